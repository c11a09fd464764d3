"""Accuracy against the number of random draws of a method's rates, judged on a part of the training images.

A line is the best of b draws in expectation, over all choices of b of the n draws on record:

    E = Σ_i a_(i) C(i - 1, b - 1) / C(n, b),   a_(1) ≤ ... ≤ a_(n)

Source: Dodge et al., "Show Your Work: Improved Reporting of Experimental Results", EMNLP 2019; without replacement.
"""

import math
import re
from collections.abc import Sequence

from benchmarks.analysis.comparable import PROBES
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures.runs import Drawn, NothingToDrawError
from benchmarks.analysis.figures.style import entry, page, styles
from mlomae.records import Record, grouped

HEIGHT = 2.2  # inches per panel
_DRAW = re.compile(r"^(.*), draw (\d+)$")


def draw(evidence: Evidence) -> list[Drawn]:
    """`tuning`, of methods that are called ``NAME, draw K`` and have two draws or more; of several data sets the one
    with most of them."""
    drawn = [r for r in evidence.tuning if _DRAW.match(r["method"])]
    found = max(grouped(drawn, _data).values(), key=len, default=[])
    rows = {_method(own[0]): own for own in grouped(found, _method).values() if len(own) > 1}
    if not rows:
        raise NothingToDrawError(
            "no two draws of one method were run; `make suite SUITE=configs/suites/tuning_map_50.py` makes them"
        )
    looks = styles(rows)
    most = max(map(len, rows.values()))
    caption = (
        "Lines: the best of so many random draws of learning rate and the method's own rate, in expectation over all "
        f"choices of the {most} draws on record; dots: single draws, at 1. Judged on a fifth of the training images, "
        "which was not trained on; one seed."
    )
    panels = {key: title for key, title in PROBES.items() if all(key in r["metrics"] for r in found)}
    figure, axes = page(
        -(-len(panels) // 2),
        2,
        HEIGHT,
        title="What tuning gains",
        caption=caption,
        legend=[(entry(style), name) for name, style in looks.items() if name in rows],
    )
    for ax, (metric, title) in zip(axes.ravel(), panels.items(), strict=True):
        for name, runs in rows.items():
            values, style = [r["metrics"][metric] for r in runs], looks[name]
            budgets = range(1, len(values) + 1)
            best = [expected_best(values, b) for b in budgets]
            ax.plot(budgets, best, style.line, marker=style.marker, color=style.colour, gid=name)
            ax.plot([1] * len(values), values, ".", color=style.colour, markersize=3, alpha=0.6)
        ax.set(xlabel="draws", ylabel=f"{title} (%)", xticks=range(1, most + 1))
    return [Drawn("tuning", figure, evidence.files_of([r for runs in rows.values() for r in runs]))]


def expected_best(values: Sequence[float], budget: int) -> float:
    """The mean of the largest over all choices of ``budget`` of the ``values``."""
    n = len(values)
    ways = (math.comb(i, budget - 1) * value for i, value in enumerate(sorted(values)))
    return math.fsum(ways) / math.comb(n, budget)


def _data(record: Record) -> tuple[str, str, str]:
    return record["dataset"], record["train_source"], record["eval_source"]


def _method(record: Record) -> str:
    match = _DRAW.match(record["method"])
    assert match is not None
    return match[1]
