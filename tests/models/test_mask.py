"""How many patches a ratio keeps, and the mask that scores give."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlomae.common.errors import ConfigError
from mlomae.models import keep_count, mask_from_scores

reproducible = settings(deadline=None, max_examples=40, derandomize=True)


def floor_kept(length: int, ratio: float) -> int:
    """⌊(1 - ratio) L⌋ in exact decimal arithmetic."""
    return int((1 - Fraction(str(ratio))) * length)


@given(length=st.integers(2, 10_000), ratio=st.integers(1, 9_999).map(lambda i: i / 10_000))
@settings(reproducible, max_examples=500)
def test_keep_count_is_the_exact_decimal_floor(length: int, ratio: float) -> None:
    expected = floor_kept(length, ratio)
    if 0 < expected < length:
        assert keep_count(length, ratio) == expected
    else:
        with pytest.raises(ConfigError):
            keep_count(length, ratio)


@pytest.mark.parametrize(("length", "ratio", "kept"), [(196, 0.75, 49), (10, 0.9, 1), (64, 0.6, 25), (4, 0.01, 3)])
def test_keep_count_of_known_cases(length: int, ratio: float, kept: int) -> None:
    assert keep_count(length, ratio) == kept


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_highest_scores_are_removed_and_ties_fall_to_later_patches(ratio: float) -> None:
    scores = torch.tensor([[3.0, 1.0, 4.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    mask = mask_from_scores(scores, ratio)
    removed = int(4 * ratio)
    expected = [[2, 0, 3][:removed], [3, 2, 1][:removed]]
    assert [set(row.nonzero().flatten().tolist()) for row in mask.mask] == [set(row) for row in expected]
