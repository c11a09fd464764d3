"""Intervals and p values against scipy, closed forms and brute force; Holm's correction against a worked example."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.analysis import statistics
from benchmarks.analysis.statistics import (
    ImageSums,
    bootstrap_interval,
    holm,
    resampled_differences,
    seed_interval,
    seed_of,
    variances,
)
from benchmarks.tasks.segmentation.pixel_counts import PixelCounts, class_ious, miou
from mlomae.classification.per_image import top1

Pairs = list[tuple[ImageSums, ImageSums]]


def right(hits: np.ndarray) -> ImageSums:
    return ImageSums(hits.astype(np.int64)[:, None], top1)


def runs(seeds: int, images: int, spread: float, seed: int, gain: float = 0.0) -> Pairs:
    """Two methods whose seeds differ by ``spread`` and whose images are hard for all alike (in logits)."""
    rng = np.random.default_rng(seed)
    hard_N, pairs = rng.normal(0, 1.5, images), []
    for _ in range(seeds):
        level = rng.normal(0, spread, 2) + np.array([gain, 0.0])
        noise = rng.normal(0, 1.5, (2, images))
        a, b = (hard_N + shift + own > 0.7 for shift, own in zip(level, noise, strict=True))
        pairs.append((right(a), right(b)))
    return pairs


def by_hand(pairs: Pairs) -> tuple[float, float]:
    """What images and seeds add to the variance in closed form, which the replicates approach as they become many."""
    difference_SN = 100.0 * np.array([(a.numbers_NF - b.numbers_NF)[:, 0] for a, b in pairs])
    seeds, n = difference_SN.shape
    by_images = float(difference_SN.mean(axis=0).var()) / n
    if seeds == 1:
        return by_images, 0.0
    cov_SS = np.cov(difference_SN, bias=True) / n
    apart = cov_SS.trace() / seeds - (cov_SS.sum() - cov_SS.trace()) / (seeds * (seeds - 1))
    return by_images, (float(difference_SN.mean(axis=1).var(ddof=1)) + float(apart)) / seeds


def check_against_closed_form(pairs: Pairs) -> None:
    generator = np.random.Generator(np.random.PCG64(seed_of("key")))
    drawn_RS = statistics.resampled_differences(pairs, generator)
    by_images, by_seeds = variances(drawn_RS, generator)
    assert (by_images, by_seeds) == pytest.approx(by_hand(pairs), rel=0.1)

    found, total = bootstrap_interval(pairs, "key"), by_images + by_seeds
    t = stats.t(total**2 / (by_seeds**2 / max(len(pairs) - 1, 1) + by_images**2 / (len(pairs[0][0].numbers_NF) - 1)))
    assert (found.low + found.high) / 2 == pytest.approx(found.mean)
    assert (found.high - found.low) / 2 == pytest.approx(t.ppf(0.975) * math.sqrt(total))
    assert found.p == pytest.approx(2 * t.sf(abs(found.mean) / math.sqrt(total)))


@pytest.mark.parametrize("seeds", [1, 2, 3, 7])
def test_the_bootstrap_is_its_closed_form(seeds: int) -> None:
    for n, spread in ((150, 0.0), (150, 0.5), (1000, 0.3)):
        check_against_closed_form(runs(seeds, n, spread, seed=n + seeds, gain=0.2))


def test_methods_drawn_on_images_of_their_own_break_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    def unpaired(pairs: Pairs, generator: np.random.Generator) -> Any:
        zero = [ImageSums(np.zeros_like(a.numbers_NF), a.metric) for a, _ in pairs]
        first = resampled_differences([(a, z) for (a, _), z in zip(pairs, zero, strict=True)], generator)
        return first - resampled_differences([(b, z) for (_, b), z in zip(pairs, zero, strict=True)], generator)

    pairs = runs(3, 1000, 0.3, seed=0)
    check_against_closed_form(pairs)
    monkeypatch.setattr(statistics, "resampled_differences", unpaired)
    with pytest.raises(AssertionError):
        check_against_closed_form(pairs)


def test_one_seed_is_scipys_bootstrap_of_the_paired_differences() -> None:
    pairs = runs(1, 400, 0.0, seed=1, gain=0.4)
    differences = 100.0 * (pairs[0][0].numbers_NF - pairs[0][1].numbers_NF)[:, 0]
    options: dict[str, Any] = {"n_resamples": 4000, "method": "percentile", "rng": np.random.default_rng(0)}
    theirs = stats.bootstrap((differences,), np.mean, **options)
    found = bootstrap_interval(pairs, "key")
    assert found.how == "images"
    assert found.mean == pytest.approx(differences.mean())
    ends = theirs.confidence_interval
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=0.1 * theirs.standard_error)
    assert (found.high - found.low) / 2 == pytest.approx(stats.t(399).ppf(0.975) * theirs.standard_error, rel=0.05)


class Given:
    """A generator that draws what it is told."""

    def __init__(self, counts_RD: np.ndarray) -> None:
        self.left = [counts_RD]

    def multinomial(self, n: int, shares: np.ndarray, size: int) -> np.ndarray:
        assert shares.sum() == pytest.approx(1.0)
        return self.left.pop()[:size]


def test_resampled_miou_is_that_of_the_images_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images repeated as often as drawn, areas summed, IoUs averaged: the class that drops out of a draw with them."""
    rng = np.random.default_rng(3)
    images, classes, replicates = 6, 3, 5
    parts = []
    for _ in range(4):
        true = rng.integers(1, 50, (images, classes))
        true[1:, 2] = 0
        predicted = rng.integers(1, 50, (images, classes))
        predicted[1:, 2] = 0
        parts.append(PixelCounts(np.arange(images), rng.integers(0, np.minimum(true, predicted) + 1), predicted, true))
    sums = [ImageSums(np.concatenate([p.intersect, p.union], axis=1), miou) for p in parts]
    pairs = [(sums[0], sums[1]), (sums[2], sums[3])]
    rows = np.unique(np.concatenate([s.numbers_NF for s in sums], axis=1), axis=0, return_inverse=True)[1]
    drawn = rng.integers(0, images, (replicates, images))
    drawn[0] = 2  # without the one image of class 2
    counts_RD = np.array([np.bincount(rows[i], minlength=images) for i in drawn])
    monkeypatch.setattr(statistics, "REPLICATES", replicates)
    generator: Any = Given(counts_RD)
    found_RS = resampled_differences(pairs, generator)

    def drawn_miou(p: PixelCounts, i: np.ndarray) -> float:
        return float(np.nanmean(class_ious(PixelCounts(p.index, p.intersect[i], p.predicted[i], p.true[i]))))

    expected = [[drawn_miou(parts[s], i) - drawn_miou(parts[s + 1], i) for s in (0, 2)] for i in drawn]
    np.testing.assert_allclose(found_RS, expected, rtol=1e-12)


def coverage(seeds: int, spread: float, repeats: int = 150) -> float:
    truth, hits = 0.0, 0
    for repeat in range(repeats):
        found = bootstrap_interval(runs(seeds, 200, spread, seed=repeat), "key")
        hits += found.low <= truth <= found.high
    return hits / repeats


def test_the_interval_covers_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seeds that vary little and much; images drawn alone do not, where seeds vary."""
    monkeypatch.setattr(statistics, "REPLICATES", 200)
    assert coverage(3, 0.0) >= 0.93
    assert coverage(3, 0.6) >= 0.90  # standard error 0.02
    assert coverage(2, 0.6) >= 0.85
    monkeypatch.setattr(statistics, "variances", lambda d_RS, _: (float(d_RS.mean(axis=1).var()), 0.0))
    assert coverage(3, 0.6) < 0.7


def test_the_same_comparison_gives_the_same_bits_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = runs(2, 100, 0.2, seed=5)
    found = bootstrap_interval(pairs, "key")
    np.random.default_rng(1).random(5)
    monkeypatch.setattr(statistics, "_CELLS", 1000)
    assert bootstrap_interval(pairs, "key") == found
    assert bootstrap_interval(pairs, "another").low != found.low
    assert found.how == "images and seeds"


def test_runs_that_agree_on_every_image_have_no_interval() -> None:
    a = runs(2, 50, 0.0, seed=0)
    found = bootstrap_interval([(one, one) for one, _ in a], "key")
    assert (found.mean, found.how) == (0.0, "none")
    assert math.isnan(found.p)


def test_over_seeds_it_is_students() -> None:
    values = [28.0, 37.0, 25.0, 31.5]
    found, theirs = seed_interval(values), stats.ttest_1samp(values, 0.0)
    ends = theirs.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((ends.low, ends.high, theirs.pvalue))
    assert (found.mean, found.how, found.seeds) == (30.375, "seeds", 4)


@pytest.mark.parametrize("values", [[3.0], [6.5, 6.5], [0.1 + 0.2, 0.3]])
def test_one_seed_or_seeds_that_agree_have_no_interval_over_seeds(values: list[float]) -> None:
    found = seed_interval(values)
    assert found.how == "none"
    assert all(math.isnan(x) for x in (found.low, found.high, found.p))


def test_holm_by_hand() -> None:
    nan = math.nan
    # sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, then 0.04 x 1 = 0.04, which may not fall below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, nan, 0.04]) == pytest.approx([0.02, nan, 0.04], nan_ok=True)
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def statsmodels_formula(p: list[float]) -> Iterator[float]:
    """As `statsmodels.stats.multitest.multipletests(method="holm")` has it: ordered p times m, m - 1, ..., 1."""
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    back = np.empty(len(p))
    back[order] = np.minimum(raised, 1.0)
    return iter(back.tolist())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_statsmodels(p: list[float]) -> None:
    corrected = holm(p)
    assert corrected == pytest.approx(list(statsmodels_formula(p)))
    assert all(one >= other for one, other in zip(corrected, p, strict=True))
    assert max(corrected) <= 1.0


def test_bonferroni_and_unordered_steps_are_not_holm() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) != pytest.approx([min(1.0, len(p) * x) for x in p])
    steps = {x: (len(p) - k) * x for k, x in enumerate(sorted(p))}
    assert holm(p) != pytest.approx([steps[x] for x in p])
