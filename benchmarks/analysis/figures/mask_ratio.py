"""Accuracy against mask ratio (the paper's figure 3): runs whose configurations differ in the ratio alone."""

import itertools
import re

from benchmarks.analysis.comparable import METRICS
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures.runs import (
    Drawn,
    NothingToDrawError,
    count_phrase,
    mean_and_bar,
    settings,
    sweeps,
)
from benchmarks.analysis.figures.style import entry, page, styles
from mlomae.records import Record

HEIGHT = 2.3  # inches per panel
SHIFT = 0.004  # of the ratio, so that bars of methods do not hide each other
_RATIO = re.compile(r"[\s,(]*\b((mask|masking)\s+)?ratio\b[\s=]*[\d.]*$|[\s,(=]+$")  # at the end of a name
Sweep = dict[float, list[Record]]


def draw(evidence: Evidence) -> list[Drawn]:
    """The figure `mask_ratio`: one row for each setting with k-NN and linear probe, one line for each method."""
    records = evidence.probed
    panels = {title: found for title, runs in settings(records).items() if (found := sweeps(runs))}
    if not panels:
        raise NothingToDrawError(
            "no two runs differ in the ratio of the mask alone; `make suite SUITE=configs/suites/mask_ratio.py` makes"
            " them"
        )
    names = {title: [method_of(sweep) for sweep in found] for title, found in panels.items()}
    looks = styles(name for found in names.values() for name in found)
    used = [runs for found in panels.values() for sweep in found for runs in sweep.values()]
    caption = (
        "Lines: mean over seeds; bars: ± sample standard deviation, none for one seed; small: seeds; "
        f"{count_phrase(used)} per point. Points of the same ratio are drawn side by side, {2 * SHIFT:g} apart. "
        "Frozen encoder, mean of the patch tokens."
    )
    figure, axes = page(
        len(panels),
        len(METRICS),
        HEIGHT,
        title="Accuracy against mask ratio",
        caption=caption,
        legend=[(entry(style), name) for name, style in looks.items()],
    )
    for row, (title, found) in zip(axes, panels.items(), strict=True):
        for ax, (metric, label) in zip(row, METRICS.items(), strict=True):
            for i, (sweep, name) in enumerate(zip(found, names[title], strict=True)):
                shift, style = SHIFT * (2 * i + 1 - len(found)), looks[name]
                values = {ratio + shift: [r["metrics"][metric] for r in runs] for ratio, runs in sweep.items()}
                means, bars = zip(*map(mean_and_bar, values.values()), strict=True)
                ax.errorbar([*values], means, yerr=bars, fmt="none", ecolor=style.colour, elinewidth=0.9, capsize=2)
                ax.plot([*values], means, style.line, marker=style.marker, color=style.colour, gid="mean")
                for x, seeds in values.items():
                    ax.plot([x] * len(seeds), seeds, ".", color=style.colour, markersize=2.5, alpha=0.6, gid="seeds")
            ax.set_xticks(sorted({ratio for sweep in found for ratio in sweep}))
            ax.tick_params(axis="x", rotation=0)
            ax.set_xlabel("mask ratio (share of patches removed)")
            ax.set_ylabel(f"{label} accuracy (%)")
        row[0].set_title(title, loc="left")
    return [Drawn("mask_ratio", figure, evidence.files_of(r for runs in used for r in runs))]


def method_of(sweep: Sweep) -> str:
    """The name of a sweep: the common prefix of its methods' names, without words about the ratio."""
    names = sorted({r["method"] for runs in sweep.values() for r in runs})
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(names[0], names[-1], strict=False))
    return _RATIO.sub("", "".join(letter for letter, _ in alike)) or names[0]
