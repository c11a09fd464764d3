"""CL-MAE: every term against its closed form, the turn of the curriculum, and who moves whom.

Shape legend: B images, L patches, P values in a patch.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import MaskState, Reconstruction
from mlomae.masking.strategies.cl_mae import CLMAEMasking, divergence, indecision, similarity
from mlomae.models import MAE, ViT
from mlomae.models.mae import patchify

ALONE = {"gauss": 0.0, "kl": 0.0, "diversity": 0.0}


def build(**options: Any) -> tuple[CLMAEMasking, MAE]:
    torch.manual_seed(0)
    mae = MAE(ViT(16, 4, 16, depth=2, num_heads=2), 8, 1, 2)
    strategy = masking.create("cl_mae", embed_dim=16, grid=(4, 4), **{"hidden": 16, "depth": 1, **options})
    assert isinstance(strategy, CLMAEMasking)
    return strategy.double(), mae.double()


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def seen(strategy: CLMAEMasking, mae: MAE, progress: float = 0.0, batch: int = 4) -> Reconstruction:
    images = numbers(batch, 3, 16, 16)
    state = MaskState(random_keys.fold(random_keys.root_key(0, "cl_mae"), torch.arange(batch)), progress=progress)
    tokens = mae.encoder.embed(images)
    mask = strategy(tokens, images, 0.75, 0, state)
    latents = mae.encode_kept(tokens, mask)
    rec = mae.removed_error(latents, patchify(images, 4), mask)
    return Reconstruction(mae, images, tokens, mask, latents, rec, state)


# --- the terms ------------------------------------------------------------------------------------------------------


def test_indecision_against_its_closed_form() -> None:
    s = numbers(3, 5).sigmoid()
    terms = [0.12 * math.sqrt(2 * math.pi) * math.exp(-((v - 0.5) ** 2) / 0.0288) for v in s.flatten().tolist()]
    assert float(indecision(s)) == pytest.approx(sum(terms) / 15)
    paid = torch.stack([indecision(torch.full((1, 4), v)) for v in (0.5, 0.6, 0.7, 0.9, 1.0)])
    assert (paid.diff() < 0).all()


def test_divergence_against_its_closed_form() -> None:
    s = numbers(3, 5).sigmoid()
    means = [sum(row) / 5 for row in s.tolist()]
    terms = [m * math.log(m / 0.25) + (1 - m) * math.log((1 - m) / 0.75) for m in means]
    assert float(divergence(s, 0.25)) == pytest.approx(sum(terms) / 3)
    assert float(divergence(torch.tensor([[0.1, 0.4], [0.5, 0.0]]), 0.25)) == pytest.approx(0.0, abs=1e-6)
    for extreme in (0.0, 1.0):
        assert math.isfinite(divergence(torch.full((2, 4), extreme), 0.25))


def test_similarity_against_its_closed_form() -> None:
    s = numbers(4, 5).sigmoid()
    rows = s.tolist()
    terms = [math.exp(-0.1 * math.dist(rows[i], rows[j])) for i in range(4) for j in range(i)]
    assert float(similarity(s)) == pytest.approx(sum(terms) / 6)
    assert float(similarity(s[:1])) == 0.0
    same = s[:1].repeat(3, 1).requires_grad_()
    similarity(same).backward()
    assert float(similarity(same.detach())) == 1.0
    assert torch.isfinite(same.grad).all()


def test_the_soft_error_is_that_of_all_tokens_times_their_scores() -> None:
    strategy, mae = build()
    given = seen(strategy, mae)
    s = given.mask.choice.detach()
    latents = mae.encoder.encode(given.tokens_BLD * s[..., None])
    rec = mae.patch_error(mae.decoder(latents, torch.arange(16).expand(4, -1)), given.images).detach()
    expected = sum(float((r * (1 - v)).sum() / (1 - v).sum()) for r, v in zip(rec, s, strict=True)) / 4
    assert float(strategy.soft_error(given).detach()) == pytest.approx(expected, rel=1e-12)


def test_its_gradient_by_the_scores() -> None:
    strategy, mae = build()
    given = seen(strategy, mae, batch=1)

    def error(s: Tensor) -> Tensor:
        return strategy.soft_error(replace(given, mask=replace(given.mask, choice=s)))

    assert torch.autograd.gradcheck(error, numbers(1, 16).sigmoid().requires_grad_())


def test_the_terms_add_up_with_their_weights() -> None:
    strategy, mae = build(gauss=0.3, kl=0.7, diversity=1.1)
    given = seen(strategy, mae, 0.2)
    s = given.mask.choice
    expected = 0.6 * strategy.soft_error(given) + 0.3 * indecision(s) + 0.7 * divergence(s, 0.25) + 1.1 * similarity(s)
    torch.testing.assert_close(strategy.own_loss(given), expected)


# --- the curriculum -------------------------------------------------------------------------------------------------


def test_the_factor_falls_from_one_to_minus_one() -> None:
    strategy, mae = build(**ALONE)
    error = float(strategy.soft_error(seen(strategy, mae)).detach())
    for progress, factor in ((0.0, 1.0), (0.25, 0.5), (0.5, 0.0), (0.75, -0.5), (0.999, -0.998)):
        assert float(strategy.own_loss(seen(strategy, mae, progress)).detach()) == pytest.approx(factor * error)


@pytest.mark.parametrize(("progress", "sign"), [(0.1, -1), (0.9, 1)])
def test_a_partner_lowers_the_error_and_an_adversary_raises_it(progress: float, sign: int) -> None:
    strategy, mae = build(**ALONE)
    before = float(strategy.soft_error(seen(strategy, mae)).detach())
    optimizer = torch.optim.SGD(strategy.parameters(), lr=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        strategy.own_loss(seen(strategy, mae, progress)).backward()
        optimizer.step()
    assert sign * (float(strategy.soft_error(seen(strategy, mae)).detach()) - before) > 1e-6


# --- who moves whom -------------------------------------------------------------------------------------------------


def test_the_networks_loss_moves_the_network_alone_and_stage_one_the_autoencoder_alone() -> None:
    strategy, mae = build()
    given = seen(strategy, mae)
    strategy.own_loss(given).backward(retain_graph=True)
    assert all(p.grad is None for p in mae.parameters())
    assert all(p.grad.abs().sum() > 0 for p in strategy.parameters() if p.ndim > 1)
    strategy.zero_grad()
    given.rec_BR.mean().backward()
    assert all(p.grad is None for p in strategy.parameters())
    assert all(p.grad is not None for p in mae.parameters() if p.requires_grad)


def test_the_highest_scores_stay_visible_whatever_the_key() -> None:
    strategy, mae = build()
    given = seen(strategy, mae)
    kept = torch.gather(given.mask.choice, 1, given.mask.ids_keep)
    removed = given.mask.choice.masked_fill(given.mask.mask == 0, 0)
    assert (kept.min(dim=1).values > removed.max(dim=1).values).all()
    again = strategy(given.tokens_BLD, given.images, 0.75, 1, replace(given.state, key=given.state.key + 1))
    assert torch.equal(again.mask, given.mask.mask)
    torch.testing.assert_close(strategy.scores(given.tokens_BLD, given.state), 1 - given.mask.choice)


def test_decided_scores_of_the_right_number_are_what_the_other_terms_want() -> None:
    """Without the error the network learns masks that are decided, keep a quarter, and differ between images."""
    strategy, mae = build(kl=5.0)
    given = seen(strategy, mae, 0.5, batch=8)
    optimizer = torch.optim.Adam(strategy.parameters(), lr=1e-2)
    for _ in range(60):
        mask = strategy(given.tokens_BLD, given.images, 0.75, 0, given.state)
        optimizer.zero_grad()
        strategy.own_loss(replace(given, mask=mask)).backward()
        optimizer.step()
    s = strategy.keeping(given.tokens_BLD).detach()
    before = given.mask.choice.detach()
    assert float((s - 0.5).abs().mean()) > 0.3 > float((before - 0.5).abs().mean())
    torch.testing.assert_close(s.mean(dim=1), torch.full((8,), 0.25, dtype=s.dtype), atol=0.1, rtol=0)
    assert similarity(s) < similarity(before)


@pytest.mark.parametrize(
    "options", [{"gauss": -1.0}, {"kl": math.nan}, {"diversity": -0.1}, {"hidden": 0}, {"depth": 0}], ids=str
)
def test_values_out_of_range_are_a_one_line_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))}.* (at least|a number)") as error:
        build(**options)
    assert "\n" not in str(error.value)
