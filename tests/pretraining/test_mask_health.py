"""The statistics of a mask at the cases that can be worked out by hand."""

import math

import pytest
import torch

from mlomae import feedback
from mlomae.common import random_keys
from mlomae.masking.base import mask_from_scores
from mlomae.pretraining.health import feedback_accuracy, mask_overlap, score_health


def health(sigma: torch.Tensor) -> dict[str, float]:
    return {k: float(v) for k, v in score_health(sigma).items()}


def test_a_score_of_one_half_has_one_bit_and_no_variance() -> None:
    found = health(torch.full((4, 9), 0.5))
    assert found["mean"] == pytest.approx(0.5)
    assert found["entropy"] == pytest.approx(1.0)
    assert found["saturated"] == 0.0
    assert found["var_images"] == found["var_positions"] == 0.0


def test_a_dead_score_is_saturated_and_has_no_entropy() -> None:
    found = health(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert found["saturated"] == 1.0
    assert 0.0 <= found["entropy"] < 1e-4, "also finite at exactly 0 and 1"
    assert found["mean"] == pytest.approx(0.5)


def test_saturated_counts_scores_outside_one_and_ninety_nine_percent() -> None:
    assert health(torch.tensor([[0.005, 0.02, 0.5, 0.98, 0.995]]))["saturated"] == pytest.approx(2 / 5)


def test_entropy_is_in_bits() -> None:
    p = 0.25
    expected = -(p * math.log2(p) + (1 - p) * math.log2(1 - p))
    assert health(torch.full((2, 3), p))["entropy"] == pytest.approx(expected, rel=1e-6)


def test_a_learned_constant_varies_over_positions_only() -> None:
    found = health(torch.tensor([0.2, 0.4, 0.9]).expand(5, 3))
    assert found["var_images"] == pytest.approx(0.0, abs=1e-12)
    assert found["var_positions"] == pytest.approx(torch.tensor([0.2, 0.4, 0.9]).var(correction=0).item(), rel=1e-5)


def test_a_score_of_whole_images_varies_over_images_only() -> None:
    found = health(torch.tensor([0.2, 0.8])[:, None].expand(2, 7))
    assert found["var_images"] == pytest.approx(0.09, rel=1e-5)
    assert found["var_positions"] == pytest.approx(0.0, abs=1e-12)


def masks(salt: int, ratio: float) -> torch.Tensor:
    scores = random_keys.uniform(torch.arange(400), 64, salt=salt)
    return mask_from_scores(scores, ratio).mask


@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_overlap_is_one_for_the_same_set_and_zero_by_chance(ratio: float) -> None:
    assert float(mask_overlap(masks(0, ratio), masks(0, ratio), ratio)) == pytest.approx(1.0)
    assert abs(float(mask_overlap(masks(0, ratio), masks(1, ratio), ratio))) < 0.02


def test_overlap_is_lowest_for_complements() -> None:
    mask = masks(0, 0.5)
    assert float(mask_overlap(mask, 1 - mask, 0.5)) == pytest.approx(-1.0)


def test_feedback_accuracy_is_a_percentage() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 2.0]])
    head = feedback.create("linear", embed_dim=4, num_classes=2)
    assert float(feedback_accuracy(head, logits, {"label": torch.tensor([0, 1, 1, 1])})) == 75.0
