"""Forest plot: every difference to MAE on the same number of images, with its 95 % interval, on all tasks.

A line is a method on one metric; lines of one metric, data set and pretraining are together. Differences and intervals
are those of results/comparison.csv. A band shows the margin within which two methods count as equal.
"""

import math
from operator import itemgetter

from matplotlib.axes import Axes

from benchmarks.analysis.comparable import margin_of
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures.runs import NAMES, Drawn, NothingToDrawError
from benchmarks.analysis.figures.style import BLACK, BLUE, FAINT, GREEN, GREY, MINUS, PAD, VERMILLION, WIDTH, sheet
from benchmarks.analysis.tables.comparison import COMPARED, MEASURED, SECTION, comparison_rows
from benchmarks.analysis.tables.table import OWN, SOURCES, Row, protocol_name
from mlomae.records import grouped

LEAST_SEEDS = 3  # two seeds have an interval of ± 13 standard errors
LINE, HEADING = 0.145, 0.21  # inches of a method, of a heading
NAMES_WIDTH = 0.42  # share of the page that the names take
COLOURS = {"better": GREEN, "worse": VERMILLION, "equal": BLUE}  # by what a difference shows; black: not settled
_METRICS = {metric.name: metric for metrics in COMPARED.values() for metric in metrics}


def draw(evidence: Evidence) -> list[Drawn]:
    """`forest`, of differences over three seeds or more."""
    rows = [r for r in comparison_rows(evidence) if r.get("pairs", 0) >= LEAST_SEEDS and not math.isnan(r["low"])]
    if not rows:
        raise NothingToDrawError(f"no difference to MAE is over {LEAST_SEEDS} seeds; run more (`make suite`)")
    groups = [(_heading(own[0]), own) for own in grouped(rows, itemgetter(*SECTION, *MEASURED)).values()]
    height = sum(2 * HEADING + LINE * len(own) for _, own in groups)
    title = "Differences to MAE on the same number of images"
    caption = (
        f"Percentage points of the metric, mean and 95 % interval over {LEAST_SEEDS} seeds or more; an arrow: the "
        "interval goes on. Green: better, red: worse, the interval leaves out 0. Blue: equal, the 90 % interval lies "
        "within the grey margin. Black: not settled. MAE, same processor time, has seen more images. Intervals are "
        "not corrected for their number; results/comparison.md has p values after Holm's correction."
    )
    figure, (_, top) = sheet(height, title=title, caption=caption)
    total = figure.get_figheight()
    for heading, own in groups:
        figure.text(PAD / WIDTH, (top - 0.04) / total, heading, va="top", fontweight="bold")
        top -= HEADING + LINE * len(own)
        _panel(figure.add_axes((NAMES_WIDTH, top / total, 0.97 - NAMES_WIDTH, LINE * len(own) / total)), own)
        top -= HEADING
    sources = [record for row in rows for _, records in row[SOURCES]["difference"] for record in records]
    return [Drawn("forest", figure, evidence.files_of(sources))]


def _heading(row: Row) -> str:
    """E.g. ``CIFAR-10: k-NN``, or of a transfer ``CIFAR-10 → camvid: mIoU``."""
    name = str(NAMES.get(row["pretraining_dataset"], row["pretraining_dataset"] or "other weights"))
    metric = _METRICS[row["metric"]].title
    if row["task"] == "pretrain":
        return f"{name}: {metric}"
    protocol = f", {protocol_name(row)}" if row["task"] == "classification" else ""
    return f"{name} → {row['dataset']}: {metric}{protocol}"


def _panel(ax: Axes, rows: list[Row]) -> None:
    rows = sorted(rows, key=lambda row: (-row["difference"], row["method"], row["config_hash"]))
    widest = max(abs(row["difference"]) for row in rows)
    limit = max(1.5, 1.6 * widest)
    ax.axvline(0.0, color=FAINT, linewidth=0.8, zorder=0)
    margin = margin_of(rows[0][SOURCES]["difference"][0][1][0], rows[0]["metric"])
    if margin is not None:
        ax.axvspan(-margin, margin, color="#eeeeee", linewidth=0, zorder=-1)
    for y, row in enumerate(rows):
        colour = COLOURS.get(row["verdict"].split(" ")[0], BLACK)
        low, high = max(row["low"], -limit), min(row["high"], limit)
        ax.plot([low, high], [y, y], color=colour, linewidth=1.1, solid_capstyle="butt")
        for end, marker in ((row["low"], "<"), (row["high"], ">")):
            if abs(end) > limit:
                ax.plot(limit if end > 0 else -limit, y, marker=marker, color=colour, markersize=3, clip_on=False)
        ax.plot(row["difference"], y, "o", color=colour, markersize=3.2)
    ax.set(xlim=(-limit, limit), ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)))
    ax.set_yticklabels([_name(row) for row in rows])
    ax.tick_params(axis="y", length=0, pad=3)
    ax.tick_params(axis="x", length=2, pad=1, colors=GREY)
    ax.locator_params(axis="x", nbins=5)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:+g}".replace("-", MINUS) if x else "0")
    ax.spines["left"].set_visible(False)


def _name(row: Row) -> str:
    (_, runs), *_ = (pair for pair in row[SOURCES]["difference"] if pair[0] == OWN)
    return f"{runs[0]['method']} ({int(row['pairs'])})"
