"""One number over all transfers: the interquartile mean, the probability of improvement, and their bootstrap."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean

from benchmarks.analysis.evidence import read_evidence
from benchmarks.analysis.tables.aggregate_table import TABLE, aggregate, improvement, interquartile_mean
from benchmarks.suite.file import ROOT

GENERATOR = np.random.default_rng(0)


def test_the_middle_half_with_shares_at_its_ends() -> None:
    values = GENERATOR.normal(size=20)
    assert interquartile_mean(values) == pytest.approx(trim_mean(values, 0.25)), "20 runs: five are cut at each end"
    assert interquartile_mean(np.array([0.0, 1.0, 2.0])) == pytest.approx(1.0)
    six = np.arange(6.0) ** 2  # 1.5 are cut at each end
    assert interquartile_mean(six) == pytest.approx((0.5 * 1 + 4 + 9 + 0.5 * 16) / 3)


def test_the_probability_is_that_of_ranks() -> None:
    pairs = [(GENERATOR.integers(0, 5, 6).astype(float), GENERATOR.integers(0, 5, 4).astype(float)) for _ in range(3)]
    expected = np.mean([mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in pairs])
    assert improvement(pairs) == pytest.approx(expected)


def test_a_method_that_is_always_better_and_one_that_is_the_reference() -> None:
    reference = [np.array([0.98, 1.0, 1.02])] * 3
    better = aggregate([(part + 0.2, part) for part in reference], "a")
    assert better["better"] == better["better_low"] == 1.0
    assert better["iqm_low"] > 1.15
    same = aggregate([(part, part) for part in reference], "a")
    assert same["better_low"] < 0.5 < same["better_high"]
    assert same["iqm"] == pytest.approx(1.0)
    assert aggregate([(part, part) for part in reference], "a") == same, "the same key, the same bits"


def test_runs_are_drawn_within_their_task() -> None:
    """A task without spread keeps its value: the interval comes from the other task alone."""
    fixed, moving = np.full(3, 1.0), np.array([0.0, 1.0, 2.0])
    spread = aggregate([(moving, moving)] * 2, "a")
    half = aggregate([(fixed, fixed), (moving, moving)], "a")
    assert half["iqm_high"] - half["iqm_low"] < spread["iqm_high"] - spread["iqm_low"]


def test_the_table_compares_with_mae_of_the_same_time_on_the_tasks_that_both_have() -> None:
    rows = TABLE.rows(read_evidence(ROOT / "results" / "runs"))
    assert rows
    for row in rows:
        assert row["reference"] == "MAE, same processor time"
        assert row["tasks"] >= 2
        assert row["iqm_low"] <= row["iqm"] <= row["iqm_high"]
    floor = next(row for row in rows if row["method"] == "random initialisation")
    assert floor["iqm_high"] < 1.0
    assert floor["better_high"] < 0.5
