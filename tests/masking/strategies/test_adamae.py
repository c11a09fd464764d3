"""AdaMAE: visible patches follow their odds, and what is reconstructed badly becomes likelier to be visible.

Shape legend: B images, L patches, D token width.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import Mask, MaskState, Reconstruction
from mlomae.masking.strategies.adamae import AdaMAEMasking
from mlomae.models import mask_from_scores


def build(**options: float) -> AdaMAEMasking:
    torch.manual_seed(0)
    strategy = masking.create("adamae", embed_dim=8, grid=(4, 4), **options)
    assert isinstance(strategy, AdaMAEMasking)
    return strategy


def state(batch: int, epoch: int = 0) -> MaskState:
    return MaskState(random_keys.fold(random_keys.root_key(0, "adamae", epoch), torch.arange(batch)))


def seen(mask: Mask, rec_BL: Tensor) -> Reconstruction:
    nothing: Any = None
    return Reconstruction(nothing, nothing, nothing, mask, nothing, mask.of_removed(rec_BL), nothing)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_gradient_against_its_closed_form() -> None:
    """∂/∂logitⱼ = - λ / (B R) · (mⱼ recⱼ - pⱼ Σᵢ mᵢ recᵢ), R the removed patches of an image."""
    logits, rec = numbers(3, 16).requires_grad_(), numbers(3, 16).square().requires_grad_()
    mask = replace(mask_from_scores(numbers(3, 16).sin(), 0.75), choice=logits.log_softmax(dim=1))
    loss = build(weight=0.3).double().own_loss(seen(mask, rec))
    found, through_errors = torch.autograd.grad(loss, (logits, rec), allow_unused=True)
    assert through_errors is None, "the error is a constant"
    error = mask.mask * rec.detach()
    expected = -0.3 / (3 * 12) * (error - logits.detach().softmax(dim=1) * error.sum(dim=1, keepdim=True))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_the_sign_a_removed_patch_with_a_high_error_gets_higher_odds_to_be_visible() -> None:
    logits = torch.zeros(1, 16, dtype=torch.float64, requires_grad=True)
    mask = replace(mask_from_scores(torch.arange(16.0)[None], 0.75), choice=logits.log_softmax(dim=1))
    rec = torch.ones(1, 16, dtype=torch.float64)
    rec[0, 10] = 5.0
    (found,) = torch.autograd.grad(build(weight=1.0).own_loss(seen(mask, rec)), logits)
    p = (logits - found).softmax(dim=1)[0]
    assert p.argmax() == 10
    assert (p[4:] > p[:4].max()).all(), "patches that were visible have no error to show and lose"


def test_training_shows_the_patches_that_are_reconstructed_badly() -> None:
    """Errors depend on a feature of the token alone; in the end such patches are visible more often than others."""
    strategy = build(weight=1.0)
    optimizer = torch.optim.Adam(strategy.parameters(), lr=3e-3)
    tokens = numbers(64, 16, 8).float()
    hard = tokens[..., 0] > 0.5
    shown = []
    for step in range(50):
        mask = strategy(tokens, tokens, 0.75, 0, state(64, step))
        loss = strategy.own_loss(seen(mask, torch.where(hard, 2.0, 0.5)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shown.append(float((1 - mask.mask)[hard].mean()))
    assert sum(shown[:3]) / 3 == pytest.approx(0.25, abs=0.08)
    assert sum(shown[-10:]) / 10 > 0.32
    odds = strategy.log_odds(tokens).detach().exp()
    assert odds[hard].mean() > 1.5 * odds[~hard].mean()


def test_the_visible_patches_follow_the_odds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One visible patch is a draw from p; more are a sample without replacement, whose pairs are known, too."""
    strategy, p = build(), torch.tensor([0.5, 0.25, 0.15, 0.1])
    monkeypatch.setattr(strategy, "log_odds", lambda tokens: p.log().expand(len(tokens), -1))
    given = torch.zeros(20_000, 4, 8)
    one = strategy(given, given, 0.75, 0, state(20_000)).ids_keep.flatten().bincount()
    assert stats.chisquare(one, 20_000 * p.double().numpy()).pvalue > 1e-3
    two = strategy(given, given, 0.5, 0, state(20_000, 1)).mask
    pair = ((two[:, 0] == 0) & (two[:, 1] == 0)).float().mean()
    assert float(pair) == pytest.approx(0.5 * 0.25 / 0.5 + 0.25 * 0.5 / 0.75, abs=0.01)


def test_the_network_moves_nothing_but_itself() -> None:
    strategy, tokens = build(), numbers(2, 16, 8).float().requires_grad_()
    mask = strategy(tokens, tokens, 0.75, 0, state(2))
    strategy.own_loss(seen(mask, torch.rand(2, 16))).backward()
    assert tokens.grad is None
    assert all(p.grad is not None for p in strategy.parameters())


@pytest.mark.parametrize("options", [{"weight": -1.0}, {"weight": math.nan}, {"hidden": 0}, {"hidden": 200}], ids=str)
def test_values_out_of_range_are_a_one_line_error(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="mask") as error:
        build(**options)
    assert "\n" not in str(error.value)
