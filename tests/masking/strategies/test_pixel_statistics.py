"""Pixel statistics: planted variances and edges decide what is removed.

Shape legend: B images, L patches, S image side.
"""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import Mask, MaskState
from mlomae.masking.strategies.pixel_statistics import FLOOR, edge_density, variance

GRID, L = (4, 4), 16
CHECKER = ((torch.arange(4)[:, None] + torch.arange(4)) % 2 * 2 - 1).double()  # a patch of variance 1, mean 0
STRIPES = (torch.arange(4) // 2 * 2 - 1).double().expand(4, 4)


def planted(amplitude_BL: Tensor, patch: Tensor = CHECKER) -> Tensor:
    """Images (B, 3, 16, 16) whose patch l is ``patch`` times its amplitude, plus 5."""
    tiles = amplitude_BL.view(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return (5 + tiles * patch.repeat(4, 4)).expand(-1, 3, -1, -1)


def shuffled(batch: int, seed: int = 0) -> Tensor:
    """Amplitudes 1 to 16 in another order in every image, (batch, 16)."""
    noise = torch.rand(batch, L, generator=torch.Generator().manual_seed(seed))
    return 1.0 + noise.argsort(dim=1).double()


def draw(images: Tensor, ratio: float = 0.75, **options: object) -> Mask:
    strategy = masking.create("pixel_statistics", embed_dim=8, grid=GRID, **options)
    key = random_keys.fold(random_keys.root_key(0, "pixels"), torch.arange(len(images)))
    return strategy(torch.zeros(0), images, ratio, 0, MaskState(key))


@pytest.mark.parametrize(("statistic", "patch"), [("variance", CHECKER), ("edges", STRIPES)])
@pytest.mark.parametrize("prefer", ["high", "low"])
def test_topk_removes_the_extremes_of_a_planted_map(statistic: str, patch: Tensor, prefer: str) -> None:
    amplitude = shuffled(50)
    mask = draw(planted(amplitude, patch), statistic=statistic, prefer=prefer, sampling="topk").mask.bool()
    if statistic == "variance":
        assert torch.equal(mask, amplitude > 4 if prefer == "high" else amplitude <= 12)
    else:  # the edges of a patch's outermost pixels also depend on its neighbours
        removed, kept = amplitude[mask].mean(), amplitude[~mask].mean()
        assert removed > kept + 7 if prefer == "high" else removed < kept - 7


def test_variance_and_edges_prefer_different_patches() -> None:
    """A steep step has more variance than a fine pattern, which has more edges."""
    image = torch.zeros(1, 1, 32, 32)  # patches of 8 pixels
    image[..., 0:8, 4:8] = 4.0
    image[..., 16:24, 16:24] = STRIPES.repeat(2, 2)
    first, second = (statistic(image, GRID)[0] for statistic in (variance, edge_density))
    assert first.argmax() == 0
    assert second.argmax() == 10


def test_variance_is_that_of_the_pixels_of_a_patch() -> None:
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64) + 7
    found = variance(images, GRID).view(2, 4, 4)
    for row in range(4):
        for column in range(4):
            patch = images[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].flatten(2)
            torch.testing.assert_close(found[:, row, column], patch.var(dim=2, correction=0).mean(dim=1))


def test_edge_density_is_the_mean_length_of_the_grey_gradient() -> None:
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    grey, found = images[0].mean(dim=0), edge_density(images, GRID)[0].view(4, 4)
    total = torch.zeros(4, 4, dtype=torch.float64)
    at = lambda i, j: float(grey[min(max(i, 0), 31), min(max(j, 0), 31)])  # noqa: E731
    for i in range(32):
        for j in range(32):
            total[i // 8, j // 8] += math.hypot(at(i + 1, j) - at(i - 1, j), at(i, j + 1) - at(i, j - 1)) / 2
    torch.testing.assert_close(found, total / 64)


@pytest.mark.parametrize("prefer", ["high", "low"])
@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_one_removed_patch_is_a_draw_with_the_stated_odds(prefer: str, strength: float) -> None:
    amplitude = torch.linspace(0.7, 1.6, L, dtype=torch.float64).expand(6_000, -1)
    mask = draw(planted(amplitude), 1 / L, prefer=prefer, strength=strength).mask
    assert (mask.sum(dim=1) == 1).all()
    relative = amplitude[0].square() / amplitude[0].square().mean() + FLOOR
    odds = relative ** (strength if prefer == "high" else -strength)
    assert stats.chisquare(mask.sum(dim=0).double(), 6_000 * odds / odds.sum()).pvalue > 1e-3


@pytest.mark.parametrize(("prefer", "sign"), [("high", 1), ("low", -1)])
def test_weighted_masks_prefer_but_do_not_insist(prefer: str, sign: int) -> None:
    amplitude = torch.linspace(1.0, 3.0, L, dtype=torch.float64).expand(2_000, -1)
    frequency = draw(planted(amplitude), prefer=prefer).mask.mean(dim=0)
    assert stats.spearmanr(amplitude[0], frequency).statistic * sign > 0.95
    assert ((frequency > 0.01) & (frequency < 1)).all()


@pytest.mark.parametrize("options", [{"strength": 0.0}, {}], ids=["strength 0", "flat images"])
def test_without_a_preference_it_is_random_masking(options: dict[str, float]) -> None:
    images = planted(shuffled(1).expand(4_000, -1)) if options else torch.full((4_000, 3, 16, 16), 0.3)
    frequency = draw(images, **options).mask.mean(dim=0)
    torch.testing.assert_close(frequency, torch.full((L,), 0.75), atol=0.03, rtol=0)


def test_contrast_and_brightness_of_the_whole_image_do_not_matter() -> None:
    images = torch.randn(100, 3, 32, 32, dtype=torch.float64)
    for statistic in ("variance", "edges"):
        plain, changed = (draw(x, statistic=statistic).mask for x in (images, 3 * images + 1))
        assert torch.equal(plain, changed)


@pytest.mark.parametrize(
    ("option", "value", "valid"),
    [("statistic", "entropy", "variance, edges"), ("prefer", "both", "high, low"), ("sampling", "x", "topk")],
)
def test_unknown_values_are_a_one_line_error(option: str, value: str, valid: str) -> None:
    with pytest.raises(ConfigError, match=f"'{option}' .* one of .*{valid}; got '{value}'") as error:
        draw(torch.zeros(1, 3, 32, 32), **{option: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("strength", [-1.0, math.inf, math.nan])
def test_a_strength_that_is_no_exponent_is_a_one_line_error(strength: float) -> None:
    with pytest.raises(ConfigError, match=f"must be (at least 0|a number, of at most .* in size); got {strength}"):
        draw(torch.zeros(1, 3, 32, 32), strength=strength)
