"""Compare two runs on the same test images: which is better, and could the difference be chance?

    python -m mlomae.classification.compare A.npz B.npz

The question is whether *these two trained models* differ on images like these. Another seed gives another model: a
claim about two methods needs runs over seeds (`make tables`) as well.
"""

import argparse
import math
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from mlomae.backbones.task import TestedRun, check_same_test
from mlomae.classification.per_image import read_tested
from mlomae.common.errors import exit_status


@dataclass(frozen=True, eq=False)
class Comparison:
    """Accuracies and differences (A - B) in percent and percentage points.

    Attributes:
        n: images. top1_a, top1_b: accuracies. difference, low, high: of top-1, with its 95 % interval.
        both, only_a, only_b, neither: how many images which run has right.
        p_value: of McNemar's exact test, two-sided.
        per_class: a row for every class with test images, in their order: class, n, top1_a, top1_b, difference.
    """

    n: int
    top1_a: float
    top1_b: float
    difference: float
    low: float
    high: float
    both: int
    only_a: int
    only_b: int
    neither: int
    p_value: float
    per_class: pd.DataFrame


def paired_interval(only_a: int, only_b: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of two accuracies on the same n images, as fractions.

    Wald's interval with one image added to each kind of disagreement: Bonett and Price, "Adjusted Wald confidence
    interval for a difference of binomial proportions based on paired data", J. Educ. Behav. Stat. 37 (2012). Unlike the
    plain one it keeps its coverage for few images, and has a width if the runs never disagree.
    """
    a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = float(stats.norm.ppf(0.5 + confidence / 2)) * math.sqrt((a + b - (a - b) ** 2) / (n + 2))
    return max(a - b - half, -1.0), min(a - b + half, 1.0)


def compare(a: TestedRun, b: TestedRun) -> Comparison:
    """Compare two runs image by image.

    Raises DataError if they were not tested on the same images with the same classes.
    """
    check_same_test(a, b, "compare runs tested on the same images")
    right_a, right_b = (run.sums.numbers_NF[:, 0] for run in (a, b))
    n = len(right_a)
    neither, only_b, only_a, both = np.bincount(2 * right_a + right_b, minlength=4).tolist()
    low, high = paired_interval(only_a, only_b, n)
    right = pd.DataFrame({"n": 1, "top1_a": 100.0 * right_a, "top1_b": 100.0 * right_b})
    per_class = right.groupby(a.truth).agg({"n": "sum", "top1_a": "mean", "top1_b": "mean"})
    per_class.insert(0, "class", [a.class_names[label] for label in per_class.index])
    per_class["difference"] = per_class["top1_a"] - per_class["top1_b"]
    # McNemar, exact: images on which the runs disagree are fair coins if neither is better
    p_value = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    tops = 100.0 * float(right_a.mean()), 100.0 * float(right_b.mean())
    interval = 100.0 * (only_a - only_b) / n, 100.0 * low, 100.0 * high
    return Comparison(n, *tops, *interval, both, only_a, only_b, neither, p_value, per_class.reset_index(drop=True))


def describe(a: TestedRun, b: TestedRun, found: Comparison, classes: int = 5) -> str:
    """A few lines; the ``classes`` classes that differ most come last."""
    lines = [
        f"A  {a.run} ({a.config_hash}): top-1 {found.top1_a:.2f} %",
        f"B  {b.run} ({b.config_hash}): top-1 {found.top1_b:.2f} %",
        f"A - B: {found.difference:+.2f} points, 95 % interval [{found.low:+.2f}, {found.high:+.2f}] "
        f"over {found.n} images, paired; other seeds are not in it",
        f"right in both {found.both}, only in A {found.only_a}, only in B {found.only_b}, in neither {found.neither}; "
        f"McNemar's exact test p = {found.p_value:.2g}",
    ]
    order = found.per_class["difference"].abs().sort_values(ascending=False, kind="stable").index[:classes]
    rows = [row for row in found.per_class.loc[order].to_dict("records") if row["difference"]]
    if rows:
        shown = [f"{' '.join(row['class'].split())} {row['difference']:+.1f} (n={row['n']})" for row in rows]
        lines.append(f"classes that differ most: {', '.join(shown)}")
    return "\n".join(lines)


@exit_status
def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mlomae.classification.compare",
        description="Compare two runs on the same test images.",
    )
    parser.add_argument("a", metavar="A.npz", help="predictions of a run")
    parser.add_argument("b", metavar="B.npz", help="predictions of the run it is compared with")
    parser.add_argument("--classes", type=int, default=5, help="how many of the classes that differ most are named")
    arguments = parser.parse_args(argv)
    a, b = read_tested(arguments.a), read_tested(arguments.b)
    print(describe(a, b, compare(a, b), arguments.classes))


if __name__ == "__main__":
    sys.exit(main())
