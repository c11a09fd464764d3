"""Two levels against three (the paper's figure 2): BLO-MAE, MLO-MAE and MAE, each seed, and their paired differences.

A comparison is one setting and one number of images seen; "BLO-MAE (x)" is compared with "MLO-MAE (x)".
"""

import math
from dataclasses import dataclass

from matplotlib.axes import Axes

from benchmarks.analysis.comparable import BASELINE, METRICS, methods_of, seed_pairs
from benchmarks.analysis.figures.runs import (
    Drawn,
    Inputs,
    NothingToDrawError,
    at_one_ratio,
    count_phrase,
    settings,
)
from benchmarks.analysis.figures.style import FAINT, MINUS, Style, page, styles
from benchmarks.analysis.statistics import paired_interval
from mlomae.records import Record

TWO, THREE = "BLO-MAE", "MLO-MAE"
HEIGHT = 1.5  # inches a panel
ENOUGH = 3  # seeds; intervals of fewer do not set the limits of an axis: with two they are a dozen times their spread


@dataclass(frozen=True)
class Comparison:
    """``runs``: MAE where there is one, two levels, three levels -> runs by seed. The title says what those share."""

    title: str
    runs: dict[str, list[Record]]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(method, reference), of those that are here."""
        *base, two, three = self.runs
        return [(three, two), *((method, base[0]) for method in (two, three) if base)]


@dataclass(frozen=True)
class Row:
    """One line of a panel: one value for each seed, in percent or points."""

    label: str
    style: Style
    values: list[float]


def comparisons(records: list[Record]) -> list[Comparison]:
    """Every pair of BLO-MAE and MLO-MAE of one setting and equal images seen, with the MAE of both if there is one."""
    found = []
    for title, alike in settings(at_one_ratio(records)).items():
        for images in sorted({r["images_seen"]["lower"] for r in alike}):
            runs = methods_of([r for r in alike if r["images_seen"]["lower"] == images])
            by_method: dict[str, list[list[Record]]] = {}
            for (method, _), seeds in runs.items():
                by_method.setdefault(method, []).append(seeds)
            for two in sorted(m for m in by_method if m.startswith(TWO)):
                three = THREE + two.removeprefix(TWO)
                if three not in by_method:
                    continue
                members = {TWO: two, THREE: three}
                if BASELINE in by_method:
                    members = {BASELINE: BASELINE, **members}
                (reference, *_) = by_method[two]
                chosen = {
                    name: max(by_method[m], key=lambda runs: len(seed_pairs(reference, runs)))
                    for name, m in members.items()
                }
                found.append(Comparison(f"{title}\n{images:,} images seen{two.removeprefix(TWO)}", chosen))
    return found


def draw(inputs: Inputs) -> list[Drawn]:
    """The figure `bilevel`: one row for each comparison and probe, accuracies on the left, differences on the right."""
    found = comparisons(inputs.pretraining)
    if not found:
        raise NothingToDrawError(
            f"no runs of {TWO} and {THREE} on the same data and images are on record; "
            "`make suite SUITE=configs/suites/evidence_cifar10.py DATA=cifar10=...` makes them"
        )
    looks = styles({method for c in found for method in c.runs})
    panels = []
    for c in found:
        for metric in METRICS:
            accuracies = [Row(m, looks[m], [r["metrics"][metric] for r in runs]) for m, runs in c.runs.items()]
            differences = [_difference(c, a, b, metric, looks[a]) for a, b in c.pairs]
            panels.append((c, METRICS[metric], accuracies, differences))
    rows = [row for *_, left, right in panels for row in (*left, *right)]
    caption = (
        "Small: seeds; large: their mean; bars: Student's 95 % interval of the mean, none for one seed"
        + ("; an arrow: it goes on beyond the panel, as it does with two seeds" if _leaves(rows) else "")
        + f". {count_phrase([runs for c in found for runs in c.runs.values()])}; differences are of runs of the same "
        "seed. Frozen encoder, mean of the patch tokens."
    )
    title = "Two levels (BLO-MAE) against three (MLO-MAE)"
    figure, axes = page(len(panels), 2, HEIGHT, title=title, caption=caption)
    for (left, right), (c, name, accuracies, differences) in zip(axes, panels, strict=True):
        _panel(left, accuracies, zero=False)
        _panel(right, differences, zero=True)
        if name == next(iter(METRICS.values())):
            left.set_title(c.title, loc="left")
            right.set_title("differences, paired by seed", loc="left")
        left.set_xlabel(f"{name} accuracy (%)")
        right.set_xlabel(f"{name} accuracy (percentage points)")
    return [Drawn("bilevel", figure, inputs.files(r for c in found for runs in c.runs.values() for r in runs))]


def _difference(c: Comparison, method: str, reference: str, metric: str, style: Style) -> Row:
    pairs = seed_pairs(c.runs[method], c.runs[reference])
    return Row(f"{method} {MINUS} {reference}", style, [a["metrics"][metric] - b["metrics"][metric] for a, b in pairs])


def _leaves(rows: list[Row]) -> bool:
    return any(1 < len(row.values) < ENOUGH for row in rows)


def _panel(ax: Axes, rows: list[Row], zero: bool) -> None:
    """Rows from above; the limits hold every seed, 0 if wanted, and the intervals of enough seeds."""
    held = [value for row in rows for value in row.values] + [0.0] * zero
    for row in rows:
        if len(row.values) >= ENOUGH:
            held += [end for end in paired_interval(row.values)[1:] if not math.isnan(end)]
    pad = 0.12 * (max(held) - min(held)) or 1.0
    low, high = min(held) - pad, max(held) + pad
    ax.set(xlim=(low, high), ylim=(len(rows) - 0.4, -0.6))
    ax.set_yticks(range(len(rows)), [row.label for row in rows])
    ax.tick_params(axis="y", length=0, pad=6)
    if zero:
        ax.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
    for y, row in enumerate(rows):
        if row.values:
            _row(ax, y, row, low, high, signed=zero)


def _row(ax: Axes, y: int, row: Row, low: float, high: float, signed: bool) -> None:
    style, (mean, start, end) = row.style, paired_interval(row.values)
    if not math.isnan(start):
        ax.plot([max(start, low), min(end, high)], [y, y], color=style.colour, linewidth=1.6, gid="interval")
        for goes_on, edge, arrow in ((start < low, low, "<"), (end > high, high, ">")):
            if goes_on:
                ax.plot([edge], [y], arrow, color=style.colour, markersize=5, clip_on=False)
    ax.plot([mean], [y], style.marker, color=style.colour, markersize=8, zorder=3, gid="mean")
    below = [y + 0.28] * len(row.values)
    ax.plot(row.values, below, style.marker, color=style.colour, markersize=3.5, markerfacecolor="none", gid="seeds")
    number = f"{mean:+.1f}" if signed else f"{mean:.1f}"
    if not math.isnan(start):
        number += f" [{start:+.1f}, {end:+.1f}]" if signed else f" [{start:.1f}, {end:.1f}]"
    ax.text(1.05, y, number.replace("-", MINUS), transform=ax.get_yaxis_transform(), va="center", ha="left")
