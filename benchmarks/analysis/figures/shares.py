"""The map: where does looking at the image pay? The parts of the oracle's gain against the share of the object.

Objects of one set on photographs of another (`on_scenes`); a panel for each accuracy, a line for each part of the gain
(`benchmarks.analysis.tables.parts_table`), and for what the learned mask and MAE of its time have beyond position.
"""

import math

from matplotlib.axes import Axes

from benchmarks.analysis.comparable import PROBES, SAME_TIME
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures.runs import Drawn, NothingToDrawError
from benchmarks.analysis.figures.style import (
    BLACK,
    BLUE,
    FAINT,
    GREEN,
    MINUS,
    PINK,
    VERMILLION,
    Style,
    entry,
    page,
)
from benchmarks.analysis.tables import parts_table
from benchmarks.analysis.tables.table import SOURCES, Row
from mlomae.records import Record

LEARNED = "MLO-MAE (nca, mask pooling) beyond position"
RIVAL = f"{SAME_TIME} beyond position"
SHIFT, MARGIN = 0.006, 0.05  # of the share: by which the lines are set side by side; beside the first and the last

STYLES = {
    "image": Style(GREEN, "o", "-"),
    "position": Style(BLUE, "s", "--"),
    "unevenness": Style(VERMILLION, "^", ":"),
    LEARNED: Style(BLACK, "D", "-."),
    RIVAL: Style(PINK, "v", "--"),
}
TITLES = {
    "image": "image: the object, over another image's",
    "position": "position: another image's object, over its shape anywhere",
    "unevenness": "unevenness: the object's shape anywhere, over random masks",
    LEARNED: "learned mask, over another image's object",
    RIVAL: "MAE of the learned mask's processor time, over another image's object",
}


def draw(evidence: Evidence) -> list[Drawn]:
    """`map`, of the settings of `on_scenes` whose oracle has its controls over two seeds or more."""
    rows = [
        row
        for row in parts_table.TABLE.rows(evidence)
        if _share(row) and row["part"] in STYLES and row["seeds"] > 1 and row["weight"] == parts_table.WEIGHT
    ]
    if not rows:
        raise NothingToDrawError(
            "no oracle on scenes has run with its controls; configs/suites/map_50.py are such runs"
        )
    counts = sorted({row["seeds"] for row in rows})
    caption = (
        "Percentage points, mean and Student's 95 % interval over seeds "
        f"(n = {counts[0]}{f' to {counts[-1]}' if counts[1:] else ''}). Frozen encoder, mean of the patches where "
        "nothing else is said. Unevenness, position and image add up to what an oracle gains over random masks. All "
        "see the same number of images, but for MAE of the learned mask's time."
    )
    panels = {metric: title for metric, title in PROBES.items() if any(metric in row for row in rows)}
    figure, axes = page(
        -(-len(panels) // 2),
        2,
        2.3,
        title="Where does looking at the image pay?",
        caption=caption,
        legend=[(entry(style), TITLES[part]) for part, style in STYLES.items()],
    )
    for ax, (metric, title) in zip(axes.ravel().tolist(), panels.items(), strict=True):
        _panel(ax, [row for row in rows if metric in row], metric)
        ax.set_title(title, loc="left")
        ax.set_ylabel("gain (points)")
    for ax in axes[-1]:
        ax.set_xlabel("share of the image that the object covers")
    sources = [record for row in rows for _, records in row[SOURCES][""] for record in records]
    return [Drawn("map", figure, evidence.files_of(sources))]


def _share(row: Row) -> float:
    """The object's share in the runs of a row; 0 where the images are not of `on_scenes`."""
    record: Record = row[SOURCES][""][0][1][0]
    source = record["config"]["data"]["train"]
    return float(source.get("share", 0.25)) if source.get("type") == "on_scenes" else 0.0


def _panel(ax: Axes, rows: list[Row], metric: str) -> None:
    ax.axhline(0.0, color=FAINT, linewidth=0.8, zorder=0)
    for i, (part, style) in enumerate(STYLES.items()):
        found = sorted((row for row in rows if row["part"] == part), key=_share)
        xs = [_share(row) + SHIFT * (i - (len(STYLES) - 1) / 2) for row in found]
        ys = [row[metric] for row in found]
        ax.plot(xs, ys, color=style.colour, marker=style.marker, linestyle=style.line)
        for x, row in zip(xs, found, strict=True):
            if not math.isnan(row[f"{metric}_low"]):
                ax.plot([x, x], [row[f"{metric}_low"], row[f"{metric}_high"]], color=style.colour, linewidth=0.8)
    ticks = sorted({_share(row) for row in rows})
    ax.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
    ax.set_xlim(ticks[0] - MARGIN, ticks[-1] + MARGIN)
    ax.yaxis.set_major_formatter(lambda y, _: f"{y:+g}".replace("-", MINUS) if y else "0")
