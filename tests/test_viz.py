"""Figures keep their data, say what they show, stay within budget, and wear one palette."""

from __future__ import annotations

import base64
import io
import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from anatolab import viz
from anatolab.types import InputError
from anatolab.viz.twin import colormap, rgba

ROOT = Path(__file__).resolve().parents[1]
ALT = "A test figure with a line in it."


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANATOLAB_BOOK", "1")


def spec(block: viz.Block) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" class="al-spec">(.*?)</script>', block.html, re.DOTALL)
    assert found
    return json.loads(found[1])


def picture(block: viz.Block) -> Image.Image:
    found = re.search(r'src="data:image/png;base64,([^"]+)"', block.html)
    assert found
    return Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")


def has_color(block: viz.Block, color: str) -> bool:
    pixels = np.asarray(picture(block)).reshape(-1, 3).astype(int)
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(pixels - wanted).max(1) < 12).sum() > 40)


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    """What the page's script makes of an array (anatolab-figures.js, unpack)."""
    codes = np.frombuffer(base64.b64decode(packed["v"]), "<" + packed["al"])
    top = 255 if packed["al"] == "u1" else 65_535
    values = np.round(packed["offset"] + codes * packed["scale"], packed["decimals"])
    return np.where(codes == top, np.nan, values).reshape(packed["shape"])


def test_live_it_is_the_ordinary_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANATOLAB_BOOK", raising=False)
    figure = go.Figure(go.Scatter(y=[1, 2]))
    assert viz.show(figure, alt=ALT) is figure


@pytest.mark.usefixtures("book")
class TestInTheBook:
    def test_one_block_with_words_picture_and_data(self) -> None:
        block = viz.show(go.Figure(go.Scatter(x=[1, 2], y=[3.25, 4])), alt='A "quoted" line & more', caption="<b>x</b>")
        assert isinstance(block, viz.Block)
        assert 'alt="A &quot;quoted&quot; line &amp; more"' in block._repr_html_()
        assert "&lt;b&gt;x&lt;/b&gt;" in block.html
        assert picture(block).size[0] > 900
        assert spec(block)["data"][0]["y"] == [3.25, 4]
        assert "<td>3.25</td>" in block.html
        assert "template" not in block.html

    def test_a_text_cannot_close_the_script(self) -> None:
        block = viz.show(go.Figure(go.Scatter(y=[1, 2], name="</script><b>")), alt=ALT)
        assert spec(block)["data"][0]["name"] == "</script><b>"

    @pytest.mark.parametrize(
        "values",
        [
            np.linspace(-3.0, 7.0, 400),
            np.arange(300) % 7,
            np.arange(300) * 100.0,
            np.array([np.nan, 2.5] * 100),
            np.geomspace(1e-9, 1e9, 200),
            np.full(100, 3.25),
        ],
        ids=["floats", "small integers", "large integers", "holes", "magnitudes", "constant"],
    )
    def test_numbers_survive(self, values: np.ndarray) -> None:
        sent = spec(viz.show(go.Figure(go.Scatter(y=values, mode="markers")), alt=ALT))["data"][0]["y"]
        got = unpacked(sent) if isinstance(sent, dict) else np.array([np.nan if v is None else v for v in sent])
        known = np.isfinite(values)
        assert np.isfinite(got).tolist() == known.tolist()
        if values.dtype.kind == "i":
            assert got.tolist() == values.tolist()
        reach = np.ptp(values[known].astype(float))
        assert np.all(
            np.abs(got - values)[known] <= np.maximum(reach / 60_000, 5e-4 * np.abs(values[known]) * (reach > 1e6))
        )

    def test_a_heatmap_keeps_its_shape(self) -> None:
        z = np.arange(120.0).reshape(8, 15)
        assert unpacked(spec(viz.show(go.Figure(go.Heatmap(z=z)), alt=ALT))["data"][0]["z"]).tolist() == z.tolist()

    @pytest.mark.parametrize("trace", [go.Scattergl(y=[1]), go.Scatter3d(x=[1], y=[1], z=[1]), go.Pie(values=[1])])
    def test_refuses_what_the_bundle_cannot_draw(self, trace: Any) -> None:
        with pytest.raises(InputError, match="The book draws no trace of type"):
            viz.show(go.Figure(trace), alt=ALT)

    def test_thins_clouds_and_says_so(self) -> None:
        n = 12_000
        cloud = go.Scatter(x=np.arange(n), y=np.arange(n) * 2.0, mode="markers", text=[str(i) for i in range(n)])
        block = viz.show(go.Figure(cloud), alt=ALT)
        assert "5,000 of 12,000 points are drawn" in block.html
        sent = spec(block)["data"][0]
        assert len(sent["text"]) == 5_000
        assert [int(t) for t in sent["text"][:50]] == unpacked(sent["x"])[:50].tolist()

    def test_the_data_of_two_panels_name_their_own_axes(self) -> None:
        figure = go.Figure([go.Scatter(x=[1, 2], y=[3, 4]), go.Scatter(x=[5, 6], y=[7, 8], xaxis="x2", yaxis="y2")])
        figure.update_layout(xaxis={"title": "updates"}, yaxis={"title": "Dice"})
        figure.update_layout(xaxis2={"title": "angle"}, yaxis2={"title": "loss"})
        rows = re.findall(r"<tr>(.*?)</tr>", viz.show(figure, alt=ALT).html)
        cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]
        assert cells[0] == ["", "axes", "x", "y"]
        assert cells[1][1:] == ["updates / Dice", "1", "3"]
        assert cells[3][1:] == ["angle / loss", "5", "7"]
        alone = viz.show(go.Figure(figure.data[0], figure.layout), alt=ALT).html
        assert re.findall(r"<th[^>]*>(.*?)</th>", alone)[1:3] == ["updates", "Dice"]

    def test_refuses_long_lines_and_heavy_figures(self) -> None:
        with pytest.raises(InputError, match="over 5000"):
            viz.show(go.Figure(go.Scatter(y=np.arange(6_000), mode="lines")), alt=ALT)
        noise = np.random.default_rng(0).standard_normal((600, 600))
        with pytest.raises(InputError, match="over 300000"):
            viz.show(go.Figure(go.Heatmap(z=noise)), alt=ALT)

    @pytest.mark.parametrize("alt", ["", "figure", "a plot"])
    def test_refuses_empty_words(self, alt: str) -> None:
        with pytest.raises(InputError, match="is too short"):
            viz.show(go.Figure(go.Scatter(y=[1, 2])), alt=alt)

    def test_the_picture_shows_every_trace_type_in_its_color(self) -> None:
        pink, x = "#ff1493", np.linspace(0, 1, 30)
        line = {"color": pink, "width": 4}
        for trace in (
            go.Scatter(x=x, y=x, mode="lines", line=line),
            go.Scatter(x=x, y=x, mode="markers", marker={"color": pink, "size": 12}),
            go.Bar(x=["a", "b"], y=[1, 2], marker={"color": pink}),
            go.Bar(x=[1, 2], y=["a", "b"], orientation="h", marker={"color": pink}),
            go.Heatmap(z=[[0, 1], [1, 0]], colorscale=[[0, "#ffffff"], [1, pink]]),
            go.Image(z=[[[255, 20, 147], [0, 0, 0]]]),
        ):
            block = viz.show(go.Figure(trace), alt=ALT)
            assert has_color(block, pink), trace.type

    def test_the_picture_follows_axes(self) -> None:
        """A point of a reversed axis is drawn on the other side."""
        sides = []
        for auto in (True, "reversed"):
            figure = go.Figure(
                go.Scatter(x=[0, 1], y=[0, 1], mode="markers", marker={"color": ["#ff0000", "#0000ff"], "size": 20})
            )
            pixels = np.asarray(picture(viz.show(figure.update_yaxes(autorange=auto), alt=ALT))).astype(int)
            red = (pixels[..., 0] > 200) & (pixels[..., 1:].max(-1) < 60)
            sides.append(np.nonzero(red)[0].mean() > pixels.shape[0] / 2)
        assert sides == [True, False]

    def test_a_frame_is_the_callback_s_figure(self) -> None:
        def make(t: float) -> go.Figure:
            return go.Figure(go.Scatter(x=[0, 1, 2], y=[0, t, t * t]), {"title": f"t = {t}"})

        values = [0.5, 1.0, 2.0]
        block = viz.explorer(make, values, label="t", start=1, alt=ALT)
        sent = spec(block)
        assert sent["slider"] == {"label": "t", "active": 1}
        assert "sliders" not in sent["layout"]
        for value, frame in zip(values, sent["frames"], strict=True):
            assert frame["name"] == f"{value:g}"
            assert frame["data"][0]["y"] == list(make(value).data[0].y)
            assert frame["layout"]["title"]["text"] == f"t = {value}"
        assert sent["data"] == sent["frames"][1]["data"]

    def test_frames_need_the_same_traces(self) -> None:
        with pytest.raises(InputError, match="same traces"):
            viz.frames_figure(lambda n: go.Figure([go.Scatter(y=[1])] * n), [1, 2])

    def test_matplotlib_figures_become_pictures(self) -> None:
        label = np.zeros((32, 32), int)
        label[8:20, 8:20] = 3
        block = viz.show(viz.overlay(np.zeros((32, 32)), label, title="a slice"), alt=ALT)
        assert "al-spec" not in block.html
        assert has_color(block, viz.class_color("LV"))


def test_the_explorer_is_a_widget_where_python_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANATOLAB_BOOK", raising=False)
    seen: list[int] = []

    def make(n: int) -> go.Figure:
        seen.append(n)
        return go.Figure(go.Scatter(y=[n]))

    slider, _ = viz.explorer(make, [1, 2, 3], label="n", alt=ALT).children
    slider.value = 3
    assert seen == [1, 3]


def test_an_outline_goes_round_each_part_once() -> None:
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:7] = True
    mask[8, 10] = True
    x, y = viz.outline(mask)
    assert np.isnan(x).sum() == 1
    assert (np.nanmin(x), np.nanmax(x), np.nanmin(y), np.nanmax(y)) == (2.5, 10.5, 1.5, 8.5)
    assert viz.outline(np.zeros((4, 4)))[0].size == 0
    edge = viz.outline(np.ones((4, 4)))[0]
    assert (edge.min(), edge.max()) == (-0.5, 3.5)


# ---------------------------------------------------------------------------------------------------------- palette
# Linear-RGB matrices for full loss of one cone type: Machado, Oliveira, Fernandes, IEEE TVCG 2009.
SIGHT = {
    "normal": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}


def linear(color: str) -> np.ndarray:
    c = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def luminance(color: str) -> float:
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("sight", SIGHT)
def test_colors_are_told_apart(sight: str) -> None:
    def nearest(colors: Any) -> float:
        seen = [lab(SIGHT[sight] @ linear(c)) for c in colors]
        return min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2))

    assert nearest([viz.CLASS_COLORS[c] for c in ("RV", "Myo", "LV")]) > 40
    assert nearest(viz.METHOD_COLORS.values()) > 9  # dash and symbol say the same


@pytest.mark.parametrize("color", sorted({*viz.CLASS_COLORS.values(), *viz.METHOD_COLORS.values(), *viz.PALETTE}))
def test_colors_stand_out_on_both_pages(color: str) -> None:
    assert 1.05 / (luminance(color) + 0.05) >= 2.9
    assert (luminance(color) + 0.05) / (luminance("#121212") + 0.05) >= 2.9


def test_style_sheet_and_script_wear_the_same_palette() -> None:
    css = (ROOT / "book/_static/anatolab.css").read_text("utf-8")
    assert dict(re.findall(r"--al-(background|RV|Myo|LV): (#\w{6});", css)) == viz.CLASS_COLORS
    script = (ROOT / "book/_static/anatolab-figures.js").read_text("utf-8")
    colorway = re.search(r"COLORWAY = (\[.*?\])", script)
    assert colorway
    assert tuple(json.loads(colorway[1])) == viz.PALETTE


def test_methods_differ_in_more_than_color() -> None:
    styles = [viz.method_style(name) for name in viz.METHOD_COLORS]
    assert len({(s["line"]["dash"], s["marker"]["symbol"]) for s in styles}) == len(styles)
    with pytest.raises(InputError, match="has no color"):
        viz.method_color("nobody")
    with pytest.raises(InputError, match="has no color"):
        viz.class_color("spleen")
    assert viz.class_color("spleen", 1) == viz.PALETTE[0]


def test_colors_and_scales_are_read_as_plotly_writes_them() -> None:
    assert rgba("rgb(255, 0, 51)") == (1.0, 0.0, 0.2, 1.0)
    assert rgba("#ff0000", 0.5) == (1.0, 0.0, 0.0, 0.5)
    assert colormap("Viridis_r")(0.0) == colormap("viridis")(1.0)
    assert colormap([[0, "#000000"], [1, "#ffffff"]])(1.0) == (1.0, 1.0, 1.0, 1.0)
