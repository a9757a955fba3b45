"""Paging through a volume, recombining a scene: what the widget draws is what the book's frame holds."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anatolab import viz
from anatolab.data.phantoms import draw_abdomen, recombined_scenes
from anatolab.data.phantoms.scenes import COLORS
from anatolab.data.synapse import CLASSES, CODES
from anatolab.types import Case, InputError
from anatolab.viz import explore

ALT = "A generated abdomen, slice by slice."


@pytest.fixture(scope="module")
def case() -> Case:
    one = draw_abdomen(1, 0, size=96)
    label = np.array([CODES.get(code, 0) for code in range(256)], np.uint8)[one.label]
    image = one.image[None].astype(np.float32)
    return Case("case0001", "", image, label, one.spacing, None, Path("img0001.nii.gz"), window=(-125, 275))


def same(trace: dict, other: dict) -> bool:
    """Whether two traces, as JSON, draw the same."""
    return json.dumps(trace, sort_keys=True) == json.dumps(other, sort_keys=True)


def test_every_frame_of_the_book_is_what_the_callback_draws(case: Case) -> None:
    volume = explore.reduced(case, CLASSES, side=48, slices=6)
    twin = json.loads(volume.twin().to_json())
    assert [frame["name"] for frame in twin["frames"]] == [str(n) for n in volume.slices]
    for number, frame in zip(volume.slices, twin["frames"], strict=True):
        live = json.loads(volume.figure(number).to_json())["data"]
        assert len(live) == 1 + len(volume.here)
        assert all(same(a, b) for a, b in zip(live, frame["data"], strict=True))
    start = len(volume.slices) // 2
    assert twin["layout"]["sliders"][0]["active"] == start
    assert all(same(a, b) for a, b in zip(twin["data"], twin["frames"][start]["data"], strict=True))
    assert not same(twin["frames"][0]["data"][0], twin["frames"][1]["data"][0])
    assert "visible" not in json.dumps(twin["frames"])  # a frame would undo a click into the legend


def test_what_is_shown_is_the_volume(case: Case) -> None:
    """Cut to the body, 0 to 100 over the window, the slices' own numbers, outlines of the classes that are there."""
    volume = explore.reduced(case, CLASSES, side=1000, slices=5)
    assert volume.slices[0] == 0
    assert volume.slices[-1] == case.image.shape[1] - 1
    assert volume.gray.shape[1:] < case.image.shape[2:]
    assert (volume.gray.min(), volume.gray.max()) == (0, 100)
    assert volume.label is not None
    assert case.label is not None
    for k, number in enumerate(volume.slices):
        counts = [np.bincount(a.ravel(), minlength=9)[1:] for a in (volume.label[k], case.label[number])]
        np.testing.assert_array_equal(*counts)  # nothing of an organ was cut off
    figure = volume.figure(volume.slices[2])
    assert [trace.name for trace in figure.data[1:]] == [CLASSES[c] for c in volume.here]
    for trace in figure.data[1:]:
        assert trace.line.color == viz.class_color(trace.name, CLASSES.index(trace.name))


def test_a_class_can_be_switched_off(case: Case) -> None:
    volume = explore.reduced(case, CLASSES, side=48, slices=3)
    figure = volume.figure(volume.slices[1], {"liver"})
    assert [trace.name for trace in figure.data[1:] if trace.visible] == ["liver"]


def test_the_widget_draws_by_slider_and_switch(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANATOLAB_BOOK", raising=False)
    drawn: list[tuple[int, set[str]]] = []
    monkeypatch.setattr(explore.Explorer, "figure", lambda self, n, shown=None: drawn.append((n, set(shown))))
    slider, switches, _ = explore.explore(case, CLASSES, alt=ALT, side=48, slices=4).children
    names = {s.description for s in switches.children}
    slider.value = slider.options[0]
    switches.children[0].value = False
    first = switches.children[0].description
    assert drawn == [(slider.options[2], names), (0, names), (0, names - {first})]


def test_the_book_gets_frames_within_its_budget(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANATOLAB_BOOK", "1")
    block = explore.explore(case, CLASSES, alt=ALT, caption="Page through it.")
    assert isinstance(block, viz.Block)
    assert f'alt="{ALT}"' in block.html
    assert len(block.html) < 900_000


def test_a_volume_without_label_or_window(case: Case) -> None:
    bare = Case("a", "", case.image, None, None, None, case.source)
    volume = explore.reduced(bare, CLASSES, side=32, slices=3)
    assert volume.here == ()
    assert len(volume.figure(0).data) == 1
    with pytest.raises(InputError, match="at least two"):
        explore.reduced(bare, CLASSES, side=1)


@pytest.fixture
def board() -> explore.SceneBoard:
    """Three methods of known answers: the background, the object, and the color alone."""
    images = recombined_scenes(1)[0][:, :2, [0, 5]]
    o, b, c = np.meshgrid([-1.0, 1.0, 0.0], [-1.0, 1.0], [-1.0, 1.0], indexing="ij")
    margins = {"background": 2 * b, "object": 3 * o, "color": c}
    colors = {name: COLORS[name] for name in ("red", "white")}
    names = ("finch", "duck", "nothing"), ("land", "water")
    return explore.SceneBoard(images, margins, *names, colors, ("finch", "duck"))


def test_every_frame_of_a_scene_is_what_the_callback_draws(board: explore.SceneBoard) -> None:
    twin = json.loads(board.twin("duck on land").to_json())
    assert [frame["name"] for frame in twin["frames"]] == list(board.scenes)
    for scene, frame in zip(board.scenes, twin["frames"], strict=True):
        live = json.loads(board.figure(scene).to_json())
        assert all(same(a, b) for a, b in zip(live["data"], frame["data"], strict=True))
        assert frame["layout"]["title"] == live["layout"]["title"]
    assert twin["layout"]["sliders"][0]["active"] == 2
    assert same({"d": twin["data"]}, {"d": twin["frames"][2]["data"]})


def test_a_scene_shows_its_own_picture_and_the_margins_of_its_choice(board: explore.SceneBoard) -> None:
    picture, bars, dots = board.figure("finch on water", "white").data
    png = base64.b64decode(picture.source.partition(",")[2])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), board.images[0, 1, 1])
    assert dict(zip(bars.y, bars.x, strict=True)) == {"background": 2.0, "object": -3.0, "color": 1.0}
    assert list(bars.hovertext) == ["duck", "finch", "duck"]
    assert list(bars.marker.color) == [explore.BOARD_COLORS[k] for k in (1, 0, 1)]
    assert list(dots.x) == [2.0, 2.0, -3.0, -3.0, -1.0, 1.0]  # every color of the same scene
    title = board.figure("finch on water", "white").layout.title.text
    assert title == "white finch on water: 1 of 3 say finch, 2 of 3 say duck"
    assert board.figure("nothing on land", "red").layout.title.text.startswith("nothing on land: ")
    low, high = board.figure("finch on land").layout.xaxis2.range
    assert low < -3
    assert high > 3  # no bar is cut off, and the axis is the same in all frames


def test_the_widget_draws_what_is_chosen(board: explore.SceneBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANATOLAB_BOOK", raising=False)
    drawn: list[tuple[str, str]] = []
    monkeypatch.setattr(explore.SceneBoard, "figure", lambda self, scene, color=None: drawn.append((scene, color)))
    thing, place, paint, _ = explore.explore_scenes(board, alt=ALT, start="duck on land").children
    thing.value, place.value, paint.value = "finch", "water", "white"
    assert drawn == [
        ("duck on land", "red"),
        ("finch on land", "red"),
        ("finch on water", "red"),
        ("finch on water", "white"),
    ]


def test_the_book_gets_the_scenes_as_frames(board: explore.SceneBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANATOLAB_BOOK", "1")
    block = explore.explore_scenes(board, alt=ALT, caption="Choose.")
    assert isinstance(block, viz.Block)
    assert all(scene in block.html for scene in board.scenes)
    assert len(block.html) < 300_000


def test_margins_of_another_shape_are_said(board: explore.SceneBoard) -> None:
    wrong = {"background": np.zeros((2, 2, 2))}
    with pytest.raises(InputError, match="must begin with"):
        explore.SceneBoard(board.images, wrong, board.objects, board.backgrounds, board.colors, board.classes)
