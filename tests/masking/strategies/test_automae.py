"""AutoMAE: picked patches are removed more often, and each of the three losses moves whom it should.

Shape legend: B images, H heads, L patches.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import Mask, MaskState, Reconstruction
from mlomae.masking.strategies.automae import AutoMAEMasking
from mlomae.models import MAE, ViT

Built = tuple[AutoMAEMasking, MAE]


def build(**options: Any) -> Built:
    torch.manual_seed(0)
    mae = MAE(ViT(32, 4, 16, depth=2, num_heads=4), 8, 1, 2).double()
    strategy = masking.create("automae", embed_dim=16, grid=(8, 8), **options)
    assert isinstance(strategy, AutoMAEMasking)
    strategy.attach(mae)
    return strategy.double(), mae


def state(batch: int) -> MaskState:
    return MaskState(random_keys.fold(random_keys.root_key(0, "automae"), torch.arange(batch)))


def images(batch: int) -> Tensor:
    return torch.randn(batch, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def choose(strategy: AutoMAEMasking, mae: MAE, batch: int = 4) -> tuple[Tensor, Mask]:
    tokens = mae.encoder.embed(images(batch))
    return tokens, strategy(tokens, images(batch), 0.75, 0, state(batch))


def seen(strategy: AutoMAEMasking, mae: MAE, batch: int = 4) -> Reconstruction:
    tokens, mask = choose(strategy, mae, batch)
    rec = mask.of_removed(mae.patch_error(mae(tokens, mask), images(batch)))
    return Reconstruction(mae, images(batch), tokens, mask, tokens, rec, state(batch))


def lower(given: Reconstruction) -> Tensor:
    return given.rec_BR.mean()


def size(module: nn.Module) -> float:
    """Of the gradient; None counts as 0."""
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


# --- the masks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_picked_patches_are_removed_more_often_and_with_enough_strength_always(
    monkeypatch: pytest.MonkeyPatch, strength: float
) -> None:
    """The 16 picked of 64 have u + strength: at 0.5 the threshold t of 48 removed is 1/3, at 2 all picked are above."""
    strategy, _ = build(strength=strength)
    planted = torch.linspace(0, 1, 64, dtype=torch.float64).roll(7)
    monkeypatch.setattr(strategy, "soft_map", lambda attention, state: planted.expand(len(attention), -1))
    monkeypatch.setattr(strategy.teacher, "attention", lambda images: images)
    given = torch.zeros(4_000, 1, dtype=torch.float64)
    removed = strategy(given, given, 0.75, 0, state(4_000)).mask.mean(dim=0)
    picked, others = {0.0: (0.75, 0.75), 0.5: (1.0, 2 / 3), 2.0: (1.0, 2 / 3)}[strength]
    top = planted >= planted.sort().values[48]
    torch.testing.assert_close(removed[top], torch.full((16,), picked, dtype=removed.dtype), atol=0.03, rtol=0)
    torch.testing.assert_close(removed[~top], torch.full((48,), others, dtype=removed.dtype), atol=0.03, rtol=0)


def test_the_map_is_a_gumbel_softmax_of_two_convolutions() -> None:
    strategy, _ = build()
    attention = strategy.teacher.attention(images(3))
    first, _, second = strategy.generator
    assert (first.in_channels, first.out_channels, second.out_channels) == (4, 2, 1)
    hidden = torch.relu(torch.conv2d(64 * attention.view(3, 4, 8, 8), first.weight, first.bias, padding=1))
    logits = torch.conv2d(hidden, second.weight, padding=1).flatten(1)
    weights = logits.softmax(dim=1) / -torch.log(state(3).uniform(64, salt=1))
    torch.testing.assert_close(strategy.soft_map(attention, state(3)), weights / weights.sum(dim=1, keepdim=True))


def test_the_gate_is_one_to_the_bit_and_the_teacher_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, mae = build()
    ask, calls = strategy.teacher.attention, []
    monkeypatch.setattr(strategy.teacher, "attention", lambda x: calls.append(len(x)) or ask(x))
    given = seen(strategy, mae)
    strategy.own_loss(given)
    assert calls == [4]
    assert given.mask.gate is not None
    assert (given.mask.gate == 1).all()
    bare = mae.patch_error(mae(given.tokens_BLD, replace(given.mask, gate=None)), images(4))
    assert torch.equal(given.rec_BR, given.mask.of_removed(bare))


# --- who moves whom -------------------------------------------------------------------------------------------------


def test_the_reconstruction_reaches_the_generator_through_the_noise() -> None:
    """Central differences of L_I with the set kept and tokens times 1 + strength (s - s₀), along one direction."""
    strategy, mae = build()
    given, weights = seen(strategy, mae), list(strategy.generator.parameters())
    found = torch.autograd.grad(lower(given), weights)
    attention, s0 = strategy.teacher.attention(images(4)), given.mask.choice.detach()
    generator = torch.Generator().manual_seed(2)
    direction = [torch.randn(w.shape, dtype=torch.float64, generator=generator) for w in weights]
    values = []
    with torch.no_grad():
        for step in (1e-4, -2e-4):
            for w, d in zip(weights, direction, strict=True):
                w += step * d
            gate = 1 + 0.5 * (strategy.soft_map(attention, state(4)) - s0)
            pred = mae(given.tokens_BLD, replace(given.mask, gate=gate))
            rec = given.mask.of_removed(mae.patch_error(pred, images(4)))
            values.append(float(lower(replace(given, rec_BR=rec))))
    along = sum(float((g * d).sum()) for g, d in zip(found, direction, strict=True))
    assert along == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-3)
    assert abs(along) > 1e-7


def test_the_discriminator_learns_from_constant_maps_and_the_generator_from_a_constant_discriminator() -> None:
    gradients = {}
    for adversarial in (0.0, 0.2):
        strategy, mae = build(adversarial=adversarial)
        strategy.own_loss(seen(strategy, mae)).backward()
        gradients[adversarial] = [p.grad for p in strategy.discriminator.parameters()]
        assert size(mae) == 0
        assert size(strategy.teacher) == 0
        assert (size(strategy.generator) > 0) == (adversarial > 0)
    for alone, together in zip(*gradients.values(), strict=True):
        assert torch.equal(alone, together)
        assert alone.abs().sum() > 0


def test_the_generator_descends_its_own_loss_alone() -> None:
    strategy, mae = build(adversarial=0.7)
    given = seen(strategy, mae)
    weights = list(strategy.generator.parameters())
    found = torch.autograd.grad(strategy.own_loss(given), weights, retain_graph=True)
    score = strategy.discriminator(given.mask.choice)
    for a, b in zip(found, torch.autograd.grad(0.7 * (score - 1).square().mean(), weights), strict=True):
        torch.testing.assert_close(a, b)


def test_the_teacher_follows_and_is_kept() -> None:
    strategy, mae = build(decay=0.5)
    before = strategy.teacher.model.cls_token.clone()
    with torch.no_grad():
        mae.encoder.cls_token.add_(1.0)
        strategy.follow(mae, 0.0)
    torch.testing.assert_close(strategy.teacher.model.cls_token, before + 0.5)
    assert {"teacher.model.cls_token", "generator.0.weight", "discriminator.layers.0.weight"} <= set(
        strategy.state_dict()
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"adversarial": -0.1}, "option 'adversarial' of masking strategy 'automae' must be at least 0; got -0.1"),
        ({"strength": math.nan}, "'strength' .*; got nan"),
        ({"teacher": "dino"}, "unknown teacher 'dino'"),
        ({"decay": 1.0}, "'decay' .*; got 1.0"),
    ],
    ids=str,
)
def test_values_out_of_range_are_a_one_line_error(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        build(**options)
    assert "\n" not in str(error.value)
