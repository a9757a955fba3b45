"""Paging through a volume: what the widget draws is what the book's frame holds; colors, windows and sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from anatolab import viz
from anatolab.data.phantoms import draw_abdomen
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
