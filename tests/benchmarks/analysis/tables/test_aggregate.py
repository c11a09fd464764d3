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
    once = [(np.full(6, 1 / 6), np.full(4, 1 / 4))] * 3
    assert improvement(pairs, once) == pytest.approx(expected)
    at = GENERATOR.integers(6, size=6), GENERATOR.integers(4, size=4)  # runs that are drawn twice count twice
    drawn = [(a[at[0]], b[at[1]]) for a, b in pairs]
    shares = [(np.bincount(at[0], minlength=6) / 6, np.bincount(at[1], minlength=4) / 4)] * 3
    assert improvement(pairs, shares) == pytest.approx(improvement(drawn, once))


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
    """Tasks that differ, without any spread within one, leave no uncertainty."""
    found = aggregate([(np.full(3, 1.0), np.full(3, 1.0)), (np.full(3, 3.0), np.full(3, 1.0))], "a")
    assert found["iqm"] == found["iqm_low"] == found["iqm_high"] == 2.0
    assert found["better"] == found["better_low"] == found["better_high"] == 0.75


def test_the_reference_is_as_uncertain_as_the_method() -> None:
    fixed, moving = np.full(3, 1.0), np.array([0.9, 1.0, 1.1])
    found = aggregate([(fixed, moving)] * 3, "a")
    assert found["iqm_low"] < 0.99 < 1.01 < found["iqm_high"]


def test_of_equal_methods_few_intervals_leave_out_one() -> None:
    """Three runs of each on five tasks: 9 of 100. With the reference taken as exact it was 26."""
    out = 0
    for i in range(200):
        pairs = [(50 + 2 * GENERATOR.normal(size=3), 50 + 2 * GENERATOR.normal(size=3)) for _ in range(5)]
        found = aggregate(pairs, str(i))
        out += not found["iqm_low"] <= 1.0 <= found["iqm_high"]
    assert 0.02 < out / 200 < 0.16


def test_the_table_compares_with_mae_of_the_same_time_on_the_tasks_that_both_have() -> None:
    rows = TABLE.rows(read_evidence(ROOT / "results" / "runs"))
    assert rows
    for row in rows:
        assert row["reference"] == "MAE, same processor time"
        assert row["tasks"] >= 2
        assert row["iqm_low"] <= row["iqm"] <= row["iqm_high"]
    times = {row["method"]: row["time"] for row in rows}
    assert times["MLO-MAE (nca, mask pooling)"] == pytest.approx(1.0, abs=0.1)
    assert times["BLO-MAE"] == pytest.approx(2.0, abs=0.1)
    floor = next(row for row in rows if row["method"] == "random initialisation")
    assert floor["iqm_high"] < 1.0
    assert floor["better_high"] < 0.5
