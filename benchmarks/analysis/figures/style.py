"""The style of the figures: page, palette, caption and legend, and files whose bytes depend only on what is drawn.

Sizes are for print: a page is as wide as the text of a two-column paper and no letter is smaller than 8 points. Colour
is never the only difference: methods that share a colour differ in marker and line.
"""

import functools
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from numpy.typing import NDArray

from benchmarks.analysis.comparable import BASELINE, SAME_TIME

WIDTH = 7.2  # inches, the width of every figure
DPI = 150  # of PNG files, and of pictures inside SVG files
SMALLEST = 8.0  # points
LINE, ROW = 0.16, 0.158  # inches: a line of the caption, a row of the legend
PAD = 0.08  # inches, between those and the rim
TITLE = 0.32  # inches, of the title with the space around it
HANDLE, SPACE = 32.0, 2.6  # points that a legend entry needs besides its text; between two words

# Okabe and Ito, "Color Universal Design", 2002; yellow is left out, illegible on white
BLACK, VERMILLION, BLUE, GREEN, PINK = "#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7"
COLOURS = (BLACK, VERMILLION, BLUE, GREEN, PINK, "#E69F00", "#56B4E9")
MARKERS = ("o", "D", "s", "^", "v", "P", "X", "<", ">", "p", "*")  # 11: coprime to the number of colours
Line = Literal["-", "--", ":", "-.", "none"]
LINES: tuple[Line, ...] = ("-", "--", ":", "-.")
MINUS = "\N{MINUS SIGN}"
FAINT, GREY = "#bdbdbd", "#555555"  # reference lines; text and leader lines
FIRST = (BASELINE, "MLO-MAE", "BLO-MAE", "MLO-MAE (nca, mask pooling)", SAME_TIME)  # methods with the first styles

SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": SMALLEST,  # also of the labels of axes, ticks and legends
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.formatter.useoffset": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "svg.fonttype": "path",  # a reader's machine may lack the font
    "svg.hashsalt": "mlomae",
}


@dataclass(frozen=True)
class Style:
    """The colour, marker and line of a method in a figure."""

    colour: str
    marker: str
    line: Line


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """A style for each method: those of `FIRST` come before the rest, which are in alphabetical order.

    Up to 77 methods differ in colour or marker, up to 28 in colour or line.
    """
    known = set(methods)
    order = [m for m in FIRST if m in known] + sorted(known.difference(FIRST))
    return {
        method: Style(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], LINES[i // len(COLOURS) % len(LINES)])
        for i, method in enumerate(order)
    }


@contextmanager
def look() -> Iterator[None]:
    """Matplotlib's defaults with `SETTINGS`, whatever the user's own; as before at the end."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def sheet(
    height: float, *, title: str, caption: str, legend: Sequence[tuple[Artist, str]] = ()
) -> tuple[Figure, tuple[float, float]]:
    """A figure with its title above, legend and caption below; (bottom, top) of the ``height`` inches between them."""
    lines = wrapped(caption, 72 * (WIDTH - 2 * PAD))
    widths = np.array([text_width(label) + HANDLE for _, label in legend])
    across = max(1, len(legend))  # as many columns of the legend as fit next to each other, filled from the top
    while across > 1 and sum(map(max, np.array_split(widths, across))) > 72 * (WIDTH - 2 * PAD):
        across -= 1
    below = PAD + LINE * len(lines) + ROW * -(-len(legend) // across) + PAD
    total = TITLE + height + below
    figure = Figure(figsize=(WIDTH, total))
    figure.text(PAD / WIDTH, 1 - PAD / total, title, va="top", ha="left", fontsize=10, fontweight="bold")
    figure.text(PAD / WIDTH, PAD / total, "\n".join(lines), va="bottom", ha="left", color=GREY)
    if legend:
        place = (PAD / WIDTH, (PAD + LINE * len(lines) + 0.5 * PAD) / total)
        figure.legend(
            *zip(*legend, strict=True),
            loc="lower left",
            bbox_to_anchor=place,
            ncols=across,
            frameon=False,
            borderaxespad=0,
            borderpad=0,
            labelspacing=0.4,
            handlelength=2.2,
            handletextpad=0.5,
            columnspacing=1.0,
        )
    return figure, (below, below + height)


def page(
    rows: int,
    columns: int,
    height: float | Sequence[float],
    *,
    title: str,
    caption: str,
    legend: Sequence[tuple[Artist, str]] = (),
    share_y: bool | Literal["row"] = False,
) -> tuple[Figure, NDArray[np.object_]]:
    """A sheet of panels, (rows, columns). ``height``: inches of a row, or of each."""
    heights = [height] * rows if isinstance(height, float) else [*height]
    figure, (bottom, top) = sheet(sum(heights), title=title, caption=caption, legend=legend)
    total = figure.get_figheight()
    place = (0, bottom / total, 1, (top - bottom) / total)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=place, hspace=0.03))
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=share_y, height_ratios=heights)


def text_width(text: str) -> float:
    """Points that a line of ``text`` takes in the smallest letters."""
    words = text.split()
    return sum(map(_word_width, words)) + SPACE * (len(words) - 1)


@functools.cache
def _word_width(word: str) -> float:
    return float(TextPath((0, 0), word, size=SMALLEST).get_extents().width) + 1.4  # with side bearings


def wrapped(text: str, width: float) -> list[str]:
    """``text`` in lines of at most ``width`` points; a longer word gets a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def entry(style: Style, *, line: bool = True, hollow: bool = False) -> Line2D:
    """The handle of a method in a legend."""
    face, linestyle = "white" if hollow else style.colour, style.line if line else "none"
    return Line2D([], [], color=style.colour, marker=style.marker, linestyle=linestyle, markerfacecolor=face)


def rendered(figure: Figure) -> dict[str, bytes]:
    """{"png": bytes, "svg": bytes}, without date and version: the same figure gives the same bytes.

    It is laid out once, and places are rounded: the last bits of the layout differ from process to process, and an SVG
    names its clip paths by them.
    """
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in figure.axes:
        x, y, width, height = (round(number, 6) for number in ax.get_position(original=True).bounds)
        ax.set_position((x, y, width, height))
    files = {}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
        files[kind] = buffer.getvalue()
    return files
