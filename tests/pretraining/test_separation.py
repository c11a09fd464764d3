"""AUROC, gap and t against scikit-learn, scipy and the cases that can be worked out by hand."""

import math

import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from mlomae.common.errors import DataError
from mlomae.pretraining.health import auroc, separate, spread


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [0, 3], ids=["distinct", "ties"])
def test_auroc_equals_scikit_learn(seed: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    is_object = torch.rand(16, 64, generator=generator) < 0.3
    scores = torch.randn(16, 64, generator=generator) + 0.4 * is_object
    if levels:
        scores = (scores * levels).round()
    assert auroc(scores, is_object) == pytest.approx(roc_auc_score(is_object.flatten(), scores.flatten()), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "objects", "expected"),
    [
        ([1.0, 2.0, 3.0], [0, 0, 1], 1.0),
        ([1.0, 2.0, 3.0], [1, 0, 0], 0.0),
        ([5.0, 5.0, 5.0, 5.0], [1, 0, 1, 0], 0.5),
        ([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1], 0.75),
        ([1.0, 2.0, 2.0], [0, 0, 1], 0.75),
    ],
)
def test_auroc_by_hand(scores: list[float], objects: list[int], expected: float) -> None:
    assert auroc(torch.tensor(scores), torch.tensor(objects)) == expected


def test_auroc_keeps_apart_what_half_precision_does_not_hide() -> None:
    scores = torch.tensor([1.0, 1.0 + 2**-7], dtype=torch.bfloat16)
    assert auroc(scores, torch.tensor([False, True])) == 1.0


def test_gap_is_in_standard_deviations_of_the_batch() -> None:
    values, objects = torch.tensor([[1.0, 2.0, 3.0, 6.0]]), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    found = separate(values, objects)
    assert found is not None
    assert found.gap == pytest.approx((4.5 - 1.5) / float(values.double().std(correction=0)))
    scaled = separate(-1e-3 * values, objects)
    assert scaled is not None
    assert scaled.gap == pytest.approx(-found.gap, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "objects"),
    [([1.0, 2.0], [1, 1]), ([1.0, 2.0], [0, 0]), ([3.0, 3.0], [0, 1]), ([math.nan, 1.0], [0, 1])],
)
def test_a_batch_that_says_nothing_is_none(values: list[float], objects: list[int]) -> None:
    assert separate(torch.tensor([values]), torch.tensor([objects])) is None


@pytest.mark.parametrize("null", [0.0, 0.5])
def test_t_equals_scipy(null: float) -> None:
    values = [0.31, 0.72, -0.05, 0.44, 0.61, 0.58]
    found = spread(values, null)
    assert found.t == pytest.approx(stats.ttest_1samp(values, null).statistic, rel=1e-12)
    assert found.sd == pytest.approx(torch.tensor(values, dtype=torch.float64).std(correction=1).item(), rel=1e-12)
    assert found.batches == 6


def test_t_by_hand() -> None:
    found = spread([1.0, 3.0])
    assert (found.mean, found.sd, found.batches) == (2.0, pytest.approx(math.sqrt(2)), 2)
    assert found.t == pytest.approx(2.0)


def test_one_batch_has_no_spread_and_equal_batches_no_t() -> None:
    assert spread([0.7]) == (0.7, None, None, 1)
    assert spread([0.5, 0.5]) == (0.5, 0.0, None, 2)


def test_no_batch_is_refused() -> None:
    with pytest.raises(DataError, match="larger or more batches"):
        spread([])
