"""ADIOS: the penalty keeps areas from the extremes, and the adversary goes up where the autoencoder goes down.

Shape legend: B images, N masks, L patches.
"""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import Mask, MaskState, Reconstruction
from mlomae.masking.strategies.adios import ADIOSMasking, area_penalty


def build(grid: tuple[int, int] = (4, 4), **options: float) -> ADIOSMasking:
    torch.manual_seed(0)
    strategy = masking.create("adios", embed_dim=8, grid=grid, **options)
    assert isinstance(strategy, ADIOSMasking)
    return strategy


def state(batch: int, epoch: int = 0) -> MaskState:
    return MaskState(random_keys.fold(random_keys.root_key(0, "adios", epoch), torch.arange(batch)))


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def seen(mask: Mask, rec_BL: Tensor, now: MaskState) -> Reconstruction:
    nothing: Any = None
    return Reconstruction(nothing, nothing, nothing, mask, nothing, mask.of_removed(rec_BL), now)


# --- the penalty ----------------------------------------------------------------------------------------------------


def test_the_penalty_against_its_closed_form() -> None:
    m = numbers(3, 6, 16).softmax(dim=1)
    terms = [1 / (math.sin(math.pi * float(each.mean())) + 1e-10) for image in m for each in image]
    assert float(area_penalty(m)) == pytest.approx(sum(terms) / 18, rel=1e-12)


def test_a_mask_by_itself_pays_least_at_half_of_the_image_and_most_at_nothing_and_all() -> None:
    areas = torch.linspace(0, 1, 101, dtype=torch.float64)
    paid = torch.stack([area_penalty(area.expand(1, 1, 16)) for area in areas])
    assert float(areas[paid.argmin()]) == pytest.approx(0.5)
    assert float(paid.min()) == pytest.approx(1.0)
    assert (paid[:50].diff() < 0).all()
    assert (paid[50:].diff() > 0).all()
    assert paid[0] > 1e9
    assert paid[-1] > 1e9


@pytest.mark.parametrize("masks", [2, 3, 6])
def test_masks_that_share_an_image_pay_least_with_equal_areas(masks: int) -> None:
    least = 1 / (math.sin(math.pi / masks) + 1e-10)
    equal = torch.full((1, masks, 16), 1 / masks, dtype=torch.float64)
    assert float(area_penalty(equal)) == pytest.approx(least, rel=1e-9)
    others = [float(area_penalty((scale * numbers(20, masks, 1)).softmax(dim=1))) for scale in (0.1, 1.0, 3.0)]
    assert least < others[0] < others[1] < others[2]


# --- the adversary --------------------------------------------------------------------------------------------------


def test_the_gradient_is_that_of_weighted_errors_turned_round() -> None:
    """Central differences in float64 of the mean of q/q₀ · (rec - mean) along a direction of the network's weights."""
    strategy, images, now = build(alpha=0.0).double(), numbers(3, 3, 16, 16), state(3)
    rec = numbers(3, 16).square().requires_grad_()
    mask = strategy(images, images, 0.75, 0, now)
    loss = strategy.own_loss(seen(mask, rec, now))
    weights = list(strategy.parameters())
    *found, through_errors = torch.autograd.grad(loss, [*weights, rec], allow_unused=True)
    assert through_errors is None, "the autoencoder must not feel it"

    q0 = strategy.drawn(mask.choice.detach(), now)
    mean = (mask.mask * rec).sum(dim=1, keepdim=True) / 12

    def weighted_error() -> float:
        weight = (strategy.drawn(strategy.log_masks(images), now) - q0).exp()
        return float((mask.mask * weight * (rec - mean)).sum() / 36)

    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(w.shape, dtype=torch.float64, generator=generator) for w in weights]
    values = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            for w, d in zip(weights, direction, strict=True):
                w += step * d
            values.append(weighted_error())
    numeric = (values[0] - values[1]) / 2e-5
    assert abs(numeric) > 1e-4
    along = sum(float((g * d).sum()) for g, d in zip(found, direction, strict=True))
    assert along == pytest.approx(-numeric, rel=1e-6)


def test_it_points_along_the_gradient_of_the_expected_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against all ordered draws of 3 of 5 patches; the estimate neglects that draws are without replacement."""
    z = numbers(5).requires_grad_()
    rec = torch.tensor([0.1, 2.0, 0.7, 1.2, 0.4], dtype=torch.float64)
    odds, expected = F.logsigmoid(z).exp(), torch.zeros((), dtype=torch.float64)
    for draw in itertools.permutations(range(5), 3):
        chance, left = torch.ones((), dtype=torch.float64), odds.sum()
        for i in draw:
            chance, left = chance * odds[i] / left, left - odds[i]
        expected = expected + chance * rec[list(draw)].mean()
    (truth,) = torch.autograd.grad(expected, z)

    strategy, now = build((1, 5), masks=2, alpha=0.0), state(20_000)
    log_m = torch.stack([F.logsigmoid(z), F.logsigmoid(-z)]).expand(20_000, -1, -1)
    monkeypatch.setattr(strategy, "log_masks", lambda images: log_m)
    monkeypatch.setattr(strategy, "drawn", lambda log_m, state: log_m[:, 0])
    mask = strategy(z, z, 0.6, 0, now)
    (found,) = torch.autograd.grad(strategy.own_loss(seen(mask, rec.expand(20_000, -1), now)), z)
    assert float(F.cosine_similarity(-found, truth, dim=0)) > 0.9


def test_in_training_it_removes_what_is_reconstructed_badly() -> None:
    """Bright patches have high errors; the adversary finds them, and the areas stay away from the extremes."""
    strategy = build(masks=3, alpha=0.1)
    optimizer = torch.optim.Adam(strategy.parameters(), lr=1e-2)
    bright = torch.rand(48, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.3
    pixels = torch.where(bright, 2.0, -1.0).repeat_interleave(4, 1).repeat_interleave(4, 2)
    images = pixels[:, None].expand(-1, 3, -1, -1)
    removed = []
    for step in range(50):
        now = state(48, step)
        mask = strategy(images, images, 0.5, 0, now)
        loss = strategy.own_loss(seen(mask, torch.where(bright.flatten(1), 2.0, 0.5), now))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        removed.append(float(mask.mask[bright.flatten(1)].mean()))
    assert sum(removed[:3]) / 3 == pytest.approx(0.5, abs=0.1)
    assert sum(removed[-3:]) / 3 > 0.7
    areas = strategy.log_masks(images).exp().mean(dim=(0, 2))
    assert ((areas > 0.05) & (areas < 0.95)).all()


# --- the masks ------------------------------------------------------------------------------------------------------


def test_every_patch_belongs_to_the_masks_in_parts_that_add_up() -> None:
    log_m = build((5, 5)).log_masks(numbers(2, 3, 20, 20).float())
    assert log_m.shape == (2, 6, 25)
    torch.testing.assert_close(log_m.exp().sum(dim=1), torch.ones(2, 25))


def test_each_mask_has_its_turn_and_decides_what_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = build(masks=4)
    log_m = (20.0 * torch.eye(4).repeat_interleave(4, 1)).log_softmax(dim=0)  # mask n is the patches 4n to 4n + 3
    monkeypatch.setattr(strategy, "log_masks", lambda images: log_m.expand(len(images), -1, -1))
    given = torch.zeros(4_000, 1)
    mask = strategy(given, given, 0.25, 0, state(4_000)).mask
    turns = mask.view(-1, 4, 4).mean(dim=(0, 2))
    assert (mask.view(-1, 4, 4).mean(dim=2).max(dim=1).values == 1).all(), "one mask whole"
    torch.testing.assert_close(turns, torch.full((4,), 0.25), atol=0.03, rtol=0)


def test_where_one_mask_takes_everything_the_loss_is_still_finite() -> None:
    strategy, now = build(), state(2)
    log_m = (200.0 * torch.eye(6)[0, :, None]).expand(2, -1, 16).log_softmax(dim=1).requires_grad_()
    mask = strategy(torch.zeros(2, 1), numbers(2, 3, 16, 16).float(), 0.75, 0, now)
    loss = strategy.own_loss(seen(replace(mask, choice=log_m), torch.rand(2, 16), now))
    (found,) = torch.autograd.grad(loss, log_m)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("options", [{"masks": 1}, {"alpha": -1.0}, {"alpha": math.nan}, {"width": 0}], ids=str)
def test_values_out_of_range_are_a_one_line_error(options: dict[str, float]) -> None:
    with pytest.raises(
        ConfigError, match=f"option '{next(iter(options))}' of masking strategy 'adios' must be"
    ) as error:
        build(**options)
    assert "\n" not in str(error.value)
