"""What a score follows: each property by its definition, ranks with ties, and a score made of one of them."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from mlomae.data.augment import IMAGENET_MEAN, IMAGENET_STD
from mlomae.diagnostics.rivals import RIVALS, patch_properties, rank_correlation, score_follows

GRID = (4, 6)


def images() -> tuple[np.ndarray, torch.Tensor]:
    """Five random images in [0, 1], (5, 16, 24, 3), and normalised, (5, 3, 16, 24)."""
    pixels = np.random.default_rng(0).random((5, 16, 24, 3)) * np.linspace(0.2, 1, 24)[:, None]
    normalised = (torch.from_numpy(pixels).permute(0, 3, 1, 2) - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / (
        torch.tensor(IMAGENET_STD).view(3, 1, 1)
    )
    return pixels, normalised.float()


def test_properties_by_their_definitions() -> None:
    pixels, normalised = images()
    found = patch_properties(normalised, GRID)
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    for b, row, column in ((0, 0, 0), (3, 1, 4), (4, 3, 5)):
        patch = grey[b, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert float(found["brightness"][b, 6 * row + column]) == pytest.approx(patch.mean(), abs=1e-6)
        assert float(found["contrast"][b, 6 * row + column]) == pytest.approx(patch.std(), abs=1e-6)
        padded = np.pad(grey[b], ((0, 1), (0, 1)), mode="edge")
        size = np.abs(padded[1:, :-1] - grey[b]) + np.abs(padded[:-1, 1:] - grey[b])
        inside = size[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert float(found["edges"][b, 6 * row + column]) == pytest.approx(inside.mean(), abs=1e-6)
    middle = found["middle"][0].view(GRID)
    assert torch.equal(middle, middle.flip(0)), "symmetric"
    assert torch.equal(middle, middle.flip(1))
    assert set(torch.nonzero(middle == middle.max()).flatten().tolist()) == {1, 2, 3}, "highest in the middle"


def test_correlations_are_those_of_ranks_with_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randint(0, 5, (2, 7, 24), generator=generator).float()
    expected = np.mean([spearmanr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)])
    assert rank_correlation(a, b) == pytest.approx(expected, abs=1e-12)
    b[3] = 1.0
    left_out = [spearmanr(x, y).statistic for i, (x, y) in enumerate(zip(a.numpy(), b.numpy(), strict=True)) if i != 3]
    assert rank_correlation(a, b) == pytest.approx(np.mean(left_out), abs=1e-12)
    assert rank_correlation(a, torch.ones(7, 24)) is None


@pytest.mark.parametrize("name", RIVALS)
def test_a_score_made_of_one_property_follows_it(name: str) -> None:
    normalised = images()[1]
    score = torch.sigmoid(3.0 * patch_properties(normalised, GRID)[name])
    found = score_follows(score, normalised, GRID)
    assert found[name] == pytest.approx(1.0)
    assert score_follows(-score, normalised, GRID)[name] == pytest.approx(-1.0)
    assert max((abs(value), key) for key, value in found.items())[1] == name
