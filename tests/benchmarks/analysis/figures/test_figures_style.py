"""The look: colours that colour-blind readers tell apart, markers and lines beside them, text on the page."""

import itertools

import matplotlib
import numpy as np
import pytest
from figure_samples import METHODS, crowded_cost, curves, draws, inputs, many, on_scenes, ratios, run, write_masks
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures.__main__ import FIGURES
from benchmarks.analysis.figures.levels import GRADIENT, OMEGA, PHI, THETA
from benchmarks.analysis.figures.style import (
    COLOURS,
    FAINT,
    FIRST,
    MARKERS,
    SMALLEST,
    WIDTH,
    look,
    styles,
    text_width,
    wrapped,
)

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", IEEE TVCG
# 15(6), 2009: matrices of severity 1 on linear RGB
SEEN = {
    "all": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.119192, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])
APART = 14.0  # CIELAB; 2.3 is what can just be noticed


def lab(colour: str, seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIELAB (D65) of a colour as it is seen."""
    srgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    ratio = TO_XYZ @ np.clip(seen @ linear, 0, 1) / WHITE
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def nearest(colours: tuple[str, ...], seen: NDArray[np.float64]) -> float:
    return min(float(np.linalg.norm(lab(a, seen) - lab(b, seen))) for a, b in itertools.combinations(colours, 2))


@pytest.mark.parametrize("vision", SEEN)
def test_any_two_colours_used_together_can_be_told_apart(vision: str) -> None:
    assert nearest((*COLOURS, FAINT), SEEN[vision]) >= APART
    assert nearest((THETA, OMEGA, PHI, GRADIENT)[:3], SEEN[vision]) >= APART


def test_the_measure_knows_colours_that_are_confused() -> None:
    pair = ("#a05000", "#607800")  # a red and a green brown
    assert nearest(pair, SEEN["all"]) > 30
    assert nearest(pair, SEEN["deuteranopia"]) < APART
    assert lab("white", SEEN["all"]) == pytest.approx([100, 0, 0], abs=0.01)
    for seen in SEEN.values():  # greys stay grey
        assert lab("#777777", seen) == pytest.approx(lab("#777777", np.eye(3)), abs=0.01)


def test_colour_is_never_alone() -> None:
    looks = styles([f"method {i}" for i in range(77)])
    assert len({(s.colour, s.marker) for s in looks.values()}) == 77
    lines = [(s.colour, s.line) for s in list(looks.values())[:28]]
    assert len(set(lines)) == 28
    assert len(set(MARKERS)) == len(MARKERS)
    assert len({s.marker for s in list(looks.values())[: len(COLOURS)]}) == len(COLOURS)


def test_a_method_looks_the_same_whatever_the_order_of_names() -> None:
    assert styles(METHODS) == styles(reversed(METHODS))
    assert list(styles(METHODS))[: len(FIRST)] == list(FIRST)
    assert styles(["MAE", "x"])["MAE"] == styles(["MAE", "a", "b"])["MAE"]


def test_text_is_wrapped_at_words() -> None:
    text = "a caption of several words, some of them longer than others"
    lines = wrapped(text, 100.0)
    assert " ".join(lines) == text
    assert all(text_width(line) <= 100 for line in lines)
    assert all(text_width(f"{a} {b.split()[0]}") > 100 for a, b in itertools.pairwise(lines))
    assert wrapped("incomprehensibilities", 10.0) == ["incomprehensibilities"]


def texts(figure: Figure) -> list[Text]:
    return [t for t in figure.findobj(Text) if isinstance(t, Text) and t.get_visible() and t.get_text().strip()]


def crowded(name: str, tmp_path: object) -> Evidence:
    """What each figure finds hardest: 25 methods, long names, two data sets, intervals of two seeds."""
    if name == "mask_ratio":
        return inputs(ratios((*METHODS[:6], "MAE (joint classification)")))
    if name == "masks":
        return inputs([], write_masks(tmp_path / "masks" / "a.json", rows=25, count=4).parent)  # type: ignore[operator]
    if name == "map":
        return inputs([record for share in (0.25, 0.5, 0.75) for record in on_scenes(share, 6.0)])
    if name == "tuning":
        return inputs([r for m in METHODS[:6] for r in draws(m, [40.0, 44.0, 41.0, 45.0, 39.0, 46.0])])
    records = many()
    if name == "bilevel":
        suffix = " (nca, mask pooling)"
        records += [run("BLO-MAE" + suffix, s, 50.0 + s, config={"train": {"outer_iterations": 800}}) for s in (0, 1)]
    if name == "loss_curves":
        records += [run(m, 0, dataset="tiny_imagenet", curves=curves(0, True)) for m in METHODS[:3]]
    return inputs(records)


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_text_is_large_enough_and_stays_on_the_page(name: str, tmp_path: object) -> None:
    with look():
        for drawn in crowded_cost() if name == "cost" else FIGURES[name](crowded(name, tmp_path)):
            drawn.figure.draw_without_rendering()
            assert drawn.figure.get_figwidth() == WIDTH
            page = drawn.figure.bbox
            assert min(text.get_fontsize() for text in texts(drawn.figure)) >= SMALLEST
            for part in drawn.figure.get_children():  # of axes: with ticks, labels and texts
                box = part.get_tightbbox()
                inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
                assert inside, f"{part} leaves the figure: {box} outside {page}"
            above = drawn.figure.texts[0].get_window_extent()
            below = drawn.figure.texts[1].get_window_extent()
            for ax in drawn.figure.axes:
                box = ax.get_tightbbox()
                assert box is not None
                assert box.y0 >= below.y1 - 1, "the caption is free"
                assert box.y1 <= above.y0 + 1, "the title is free"
                for legend in drawn.figure.legends:
                    assert not legend.get_window_extent().overlaps(box)
            for legend in drawn.figure.legends:
                assert not legend.get_window_extent().overlaps(below)


def test_the_diagram_can_be_read_at_800_pixels() -> None:
    with look():
        (drawn,) = FIGURES["levels"](inputs([]))
        assert min(t.get_fontsize() for t in texts(drawn.figure)) / 72 * 800 / WIDTH >= 12
        words = " ".join(t.get_text() for t in texts(drawn.figure))
    assert all(symbol in words for symbol in ("encoder\nθ", "decoder\nθ", "head\nω", "network φ", "θ*(φ)", "ω*(θ*)"))
