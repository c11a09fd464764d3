"""The confusion matrix: a CSV of counts, a picture for any number of classes, and the most confused pairs.

Shape suffix: C classes; rows are true classes, columns predicted ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from mlomae.classification.per_image import PerImage, summarise
from mlomae.common.atomic import replacing
from mlomae.diagnostics.pictures import save_figure

SMALLEST_FONT = 5.0  # points; names that would need a smaller one are left out
COUNTS_UP_TO = 16  # classes with numbers in the cells
LISTED = 20
POINT = 3.0  # pixels; smaller cells are drawn as points of this size, since they would be invisible
_AXIS_NAME, _LIST_NAME = 26, 38  # characters shown of a class name


class Confusion(NamedTuple):
    """``images`` of class ``true`` were classified as ``predicted``, a ``share`` in [0, 1] of those of ``true``."""

    true: int
    predicted: int
    images: int
    share: float


def most_confused(matrix_CC: NDArray[np.int64], most: int = LISTED) -> list[Confusion]:
    """Pairs of different classes with the most images, larger shares first among equals; at most ``most``."""
    pairs = [
        Confusion(int(t), int(p), int(matrix_CC[t, p]), float(matrix_CC[t, p] / matrix_CC[t].sum()))
        for t, p in np.argwhere(matrix_CC)
        if t != p
    ]
    return sorted(pairs, key=lambda pair: (-pair.images, -pair.share, pair.true, pair.predicted))[:most]


def save_confusion(folder: Path, images: PerImage, class_names: Sequence[str], title: str = "") -> None:
    """Write ``confusion.csv`` and ``confusion.png`` into ``folder``."""
    matrix_CC = confusion_matrix(images.label, images.predicted, labels=range(len(class_names)))
    table = pd.DataFrame(matrix_CC, index=list(class_names), columns=list(class_names))
    with replacing(folder / "confusion.csv") as temporary:
        table.to_csv(temporary, index_label="true \\ predicted", lineterminator="\n")
    found = summarise(images, len(class_names))
    numbers = f"top-1 {found['top1']:.2f} %, mean per class {found['mean_per_class']:.2f} %, {found['n']} images"
    save_figure(confusion_figure(matrix_CC, class_names, f"{title}\n{numbers}".strip()), folder / "confusion.png")


def confusion_figure(matrix_CC: NDArray[np.int64], class_names: Sequence[str], title: str) -> Figure:
    """Each row as shares of its class, on a square-root colour scale, so that rare confusions are visible.

    A class without images has a grey row.
    """
    classes = len(matrix_CC)
    side = min(14.0, max(5.0, 0.12 * classes))  # inches
    names = [shorten(name, _AXIS_NAME) for name in class_names]
    size = min(9.0, 0.85 * 72.0 * side / classes)  # points of a font that fits a cell
    named = size >= SMALLEST_FONT
    room = 0.55 + 0.0085 * size * max(map(len, names)) if named else 0.9  # left of and below the matrix
    listed = _list(most_confused(matrix_CC, min(LISTED, int((side - 0.4) / 0.42))), class_names)
    list_left = room + side + 1.3  # after the colour bar
    width, height = list_left + 0.07 * max(map(len, listed.split("\n"))) + 0.2, room + side + 0.8
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((room / width, room / height, side / width, side / height))
    _paint(figure, ax, matrix_CC, (room + side + 0.25) / width)
    if named:
        ax.set_xticks(range(classes), names, fontsize=size, rotation=90)
        ax.set_yticks(range(classes), names, fontsize=size)
        ax.tick_params(length=2)
    ax.set_xlabel("predicted class", fontsize=10)
    ax.set_ylabel("true class", fontsize=10)
    longest = max(map(len, title.split("\n")))
    font = min(11.0, (width - 0.4) * 72 / (0.55 * longest)) if longest else 11.0
    figure.text(0.2 / width, 1 - 0.15 / height, title, fontsize=font, va="top")
    figure.text(list_left / width, (room + side) / height, listed, fontsize=8, va="top", family="monospace")
    return figure


def shorten(name: str, most: int) -> str:
    """A class name on one line, cut to ``most`` characters."""
    plain = " ".join(name.split())
    return (plain if len(plain) <= most else plain[: most - 1] + "…").replace("$", r"\$")  # $ would begin a formula


def _paint(figure: Figure, ax: Axes, matrix_CC: NDArray[np.int64], bar_left: float) -> None:
    """The cells and their colour bar; counts where there is room for them."""
    classes, box = len(matrix_CC), ax.get_position()
    total_C1 = matrix_CC.sum(axis=1, keepdims=True)
    share_CC = np.where(total_C1 > 0, matrix_CC / np.maximum(total_C1, 1), np.nan)
    colours, norm = matplotlib.colormaps["Blues"].with_extremes(bad="0.85"), PowerNorm(0.5, 0.0, 1.0)
    image = ax.imshow(share_CC, cmap=colours, norm=norm, interpolation="nearest", aspect="auto")
    row, column = np.nonzero(matrix_CC)
    if box.width * figure.get_figwidth() * 100 < POINT * classes:
        order = np.argsort(share_CC[row, column], kind="stable")  # dark ones last, on top
        row, column = row[order], column[order]
        side = (0.72 * POINT) ** 2  # in square points
        share = share_CC[row, column]
        ax.scatter(column, row, s=side, c=share, marker="s", cmap=colours, norm=norm, linewidths=0)
    if classes <= COUNTS_UP_TO:
        for r, c in zip(row, column, strict=True):
            colour = "white" if share_CC[r, c] > 0.4 else "black"
            ax.text(c, r, str(matrix_CC[r, c]), ha="center", va="center", fontsize=8, color=colour)
    bar = figure.add_axes((bar_left, box.y0, 0.25 / figure.get_figwidth(), box.height))
    figure.colorbar(image, cax=bar).set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    bar.set_yticklabels(["0", "1 %", "5 %", "10 %", "25 %", "50 %", "100 %"], fontsize=8)
    bar.set_title("of true class", fontsize=8)


def _list(pairs: Sequence[Confusion], class_names: Sequence[str]) -> str:
    if not pairs:
        return "no confusion"
    lines = ["most confused: true → predicted"]
    for pair in pairs:
        true, predicted = (shorten(class_names[i], _LIST_NAME) for i in (pair.true, pair.predicted))
        lines += ["", f"{pair.images} ({100 * pair.share:.0f} %)  {true}", f"  → {predicted}"]
    return "\n".join(lines)
