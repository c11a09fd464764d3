"""What a difference shows: by simulation of truths that are known, and by hand."""

import math

import numpy as np
import pytest

from benchmarks.analysis.comparable import margin_of
from benchmarks.analysis.statistics import Estimate, seed_interval, seeds_needed, verdict


def five(mean: float, spread: float) -> Estimate:
    """Of five seeds with this mean and sample standard deviation."""
    unit = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    return seed_interval(list(mean + spread * unit / unit.std(ddof=1)))


@pytest.mark.parametrize(
    ("mean", "spread", "said"),
    [
        (3.0, 1.0, "better"),  # ± 1.24 at 95 %
        (-3.0, 1.0, "worse"),
        (0.0, 1.0, "equal within 1"),  # ± 0.95 at 90 %
        (0.1, 1.0, "not settled"),
        (0.5, 0.2, "better by less than 1"),
        (-0.5, 0.2, "worse by less than 1"),
        (0.9, 0.2, "better"),  # 0.9 + 0.19 is beyond the margin
    ],
)
def test_verdicts_by_hand(mean: float, spread: float, said: str) -> None:
    assert verdict(five(mean, spread), 1.0).startswith(said)


def test_direction_margin_and_seeds_decide() -> None:
    found = five(3.0, 1.0)
    assert verdict(found, 1.0, sign=-1) == "worse"
    assert verdict(five(0.1, 1.0), None) == "not settled", "equal is never shown without a margin"
    assert verdict(five(0.0, 1.0), 0.5).startswith("not settled, about")
    assert verdict(seed_interval([1.0]), 1.0) == ""
    assert verdict(seed_interval([1.0, 1.0]), 1.0) == "", "seeds that agree exactly have no interval"
    one_seed = Estimate(1.0, 0.5, 1.5, 0.01, "images", 1, 0.25, 1000)
    assert verdict(one_seed, 1.0) == ""
    both = Estimate(0.0, -2.0, 2.0, 0.9, "images and seeds", 3, 1.0, 50)
    assert verdict(both, 1.0) == "not settled", "how many seeds would settle it is not known"


@pytest.mark.parametrize(("mean", "spread"), [(0.5, 1.5), (0.1, 1.5), (2.0, 3.0)])
def test_so_many_seeds_settle_it_four_times_in_five(mean: float, spread: float) -> None:
    n = seeds_needed(five(mean, spread), 1.0)
    assert n is not None
    generator = np.random.default_rng(0)

    def settled(seeds: int) -> float:
        drawn = generator.normal(mean, spread, (1500, seeds))
        return float(np.mean([not verdict(seed_interval(list(row)), 1.0).startswith("not") for row in drawn]))

    assert 0.77 < settled(n) < 0.88
    assert settled(max(6, n // 2)) < 0.75
    assert seeds_needed(five(0.0, 1000.0), 1.0) is None


def test_of_two_equal_methods_few_are_called_different_and_of_two_unequal_ones_few_equal() -> None:
    """At the margin itself, 5 % are called equal (the level of the two tests); of no difference, 5 % are not 0."""
    generator = np.random.default_rng(0)
    at_margin = [verdict(seed_interval(list(generator.normal(1.0, 0.8, 5))), 1.0) for _ in range(2000)]
    assert 0.03 < np.mean(["equal" in said or "less than" in said for said in at_margin]) < 0.07
    none = [verdict(seed_interval(list(generator.normal(0.0, 0.8, 5))), 1.0) for _ in range(2000)]
    assert math.isclose(np.mean([said[:6] in ("better", "worse", "worse ") for said in none]), 0.05, abs_tol=0.015)


def test_margins_are_of_the_protocol_or_the_metric() -> None:
    def record(task: str, **config: str) -> dict[str, object]:
        return {"task": task, "config": config}

    assert margin_of(record("pretrain"), "knn_top1_avg") == 1.0
    assert margin_of(record("pretrain"), "linear_top1_cls") == 0.5
    assert margin_of(record("classification", protocol="linear"), "top1") == 0.5
    assert margin_of(record("classification"), "top1") == 1.0
    assert margin_of(record("segmentation"), "mIoU") == 1.0
    assert margin_of(record("detection"), "box_AP") is None
