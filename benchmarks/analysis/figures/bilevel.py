"""Two levels against three (the paper's figure 2): BLO-MAE, MLO-MAE and MAE, each seed, and their paired differences.

A comparison is one setting and one number of images seen; "BLO-MAE (x)" is compared with "MLO-MAE (x)".
"""

import math
from dataclasses import dataclass

from matplotlib.axes import Axes

from benchmarks.analysis.comparable import BASELINE, METRICS, differences, methods_of, seed_pairs
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures.runs import Drawn, NothingToDrawError, at_one_ratio, count_phrase, settings
from benchmarks.analysis.figures.style import FAINT, MINUS, Style, page, styles
from benchmarks.analysis.statistics import seed_interval
from mlomae.records import Record, grouped

TWO, THREE = "BLO-MAE", "MLO-MAE"
HEIGHT = 1.5  # inches per panel
Row = tuple[str, Style, list[float]]  # label; one value for each seed, in percent or points
ENOUGH = 3  # seeds; intervals of fewer do not set an axis's limits: with two they are a dozen times their spread


@dataclass(frozen=True)
class Comparison:
    """``runs``: method (MAE where there is one, BLO-MAE, MLO-MAE) -> runs by seed. ``title``: what those share."""

    title: str
    runs: dict[str, list[Record]]


def comparisons(records: list[Record]) -> list[Comparison]:
    """Every pair of BLO-MAE and MLO-MAE of one setting and equal images seen, with the MAE of both if there is one."""
    found = []
    for title, alike in settings(at_one_ratio(records)).items():
        for images in sorted({r["images_seen"]["lower"] for r in alike}):
            equal = grouped([r for r in alike if r["images_seen"]["lower"] == images], lambda r: str(r["method"]))
            configurations = {method: methods_of(runs) for method, runs in equal.items()}
            for two in (method for method in configurations if method.startswith(TWO)):
                suffix = two.removeprefix(TWO)
                members = {BASELINE: BASELINE, TWO: two, THREE: THREE + suffix}
                if members[THREE] not in configurations:
                    continue
                reference = configurations[two][0]
                chosen = {
                    name: max(configurations[member], key=lambda runs: len(seed_pairs(reference, runs)))
                    for name, member in members.items()
                    if member in configurations
                }
                found.append(Comparison(f"{title}\n{images:,} images seen{suffix}", chosen))
    return found


def draw(evidence: Evidence) -> list[Drawn]:
    """The figure `bilevel`: one row for each comparison and probe, accuracies on the left, differences on the right."""
    found = comparisons(evidence.probed)
    if not found:
        raise NothingToDrawError(
            f"no runs of {TWO} and {THREE} on the same data and images are on record; "
            "`make suite SUITE=configs/suites/evidence_cifar10.py DATA=cifar10=...` makes them"
        )
    looks = styles({method for c in found for method in c.runs})
    panels = []
    for c in found:
        *base, two, three = c.runs
        pairs = [(three, two), *((method, mae) for method in (two, three) for mae in base)]
        for metric, name in METRICS.items():
            accuracies = [(m, looks[m], [r["metrics"][metric] for r in runs]) for m, runs in c.runs.items()]
            paired = [
                (f"{a} {MINUS} {b}", looks[a], differences(seed_pairs(c.runs[a], c.runs[b]), metric)) for a, b in pairs
            ]
            panels.append((c, name, accuracies, paired))
    few = any(1 < len(values) < ENOUGH for *_, left, right in panels for *_, values in (*left, *right))
    caption = (
        "Small: seeds; large: their mean; bars: Student's 95 % interval of the mean, none for one seed"
        + ("; an arrow: it extends beyond the panel, as with two seeds" if few else "")
        + f". {count_phrase([runs for c in found for runs in c.runs.values()])}; differences are of runs of the same "
        "seed. Frozen encoder, mean of the patch tokens."
    )
    title = "Two levels (BLO-MAE) against three (MLO-MAE)"
    figure, axes = page(len(panels), 2, HEIGHT, title=title, caption=caption)
    for (left, right), (c, name, accuracies, paired) in zip(axes, panels, strict=True):
        _panel(left, accuracies)
        _panel(right, paired, signed=True)
        if name == next(iter(METRICS.values())):
            left.set_title(c.title, loc="left")
            right.set_title("differences, paired by seed", loc="left")
        left.set_xlabel(f"{name} accuracy (%)")
        right.set_xlabel(f"{name} accuracy (percentage points)")
    return [Drawn("bilevel", figure, evidence.files_of(r for c in found for runs in c.runs.values() for r in runs))]


def _panel(ax: Axes, rows: list[Row], signed: bool = False) -> None:
    """Rows from the top; the limits hold every seed, 0 if ``signed``, and the intervals of enough seeds."""
    drawn = [(y, style, values, seed_interval(values)) for y, (_, style, values) in enumerate(rows) if values]
    ends = [end for *_, found in drawn if found.seeds >= ENOUGH for end in (found.low, found.high)]
    held = [value for *_, values in rows for value in values] + [0.0] * signed + [x for x in ends if not math.isnan(x)]
    pad = 0.12 * (max(held) - min(held)) or 1.0
    low, high = min(held) - pad, max(held) + pad
    ax.set(xlim=(low, high), ylim=(len(rows) - 0.4, -0.6))
    ax.set_yticks(range(len(rows)), [label for label, *_ in rows])
    ax.tick_params(axis="y", length=0, pad=6)
    if signed:
        ax.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
    for y, style, values, found in drawn:
        colour, marker, spec = style.colour, style.marker, "+.1f" if signed else ".1f"
        number = f"{found.mean:{spec}}"
        if not math.isnan(found.low):
            number += f" [{found.low:{spec}}, {found.high:{spec}}]"
            ax.plot([max(found.low, low), min(found.high, high)], [y, y], color=colour, linewidth=1.6, gid="interval")
            for extends, edge, arrow in ((found.low < low, low, "<"), (found.high > high, high, ">")):
                if extends:
                    ax.plot([edge], [y], arrow, color=colour, markersize=5, clip_on=False)
        ax.plot([found.mean], [y], marker, color=colour, markersize=8, zorder=3, gid="mean")
        below = [y + 0.28] * len(values)
        ax.plot(values, below, marker, color=colour, markersize=3.5, markerfacecolor="none", gid="seeds")
        ax.text(1.05, y, number.replace("-", MINUS), transform=ax.get_yaxis_transform(), va="center", ha="left")
