"""Self-guided masks: the cut on planted blocks, the side that is the object, the order, hints, even features."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import Mask, MaskState
from mlomae.masking.strategies import self_guided as module
from mlomae.masking.strategies.self_guided import SelfGuidedMasking, object_side
from mlomae.masking.teacher import TEMPERATURE, normalised_cut, unit
from mlomae.models import mask_from_scores

GRID, L = (8, 8), 64


def state(count: int, progress: float = 0.5) -> MaskState:
    return MaskState(random_keys.fold(random_keys.root_key(0), torch.arange(count)), progress=progress)


def strategy(**options: Any) -> SelfGuidedMasking:
    found = masking.create("self_guided", embed_dim=8, grid=GRID, **options)
    assert isinstance(found, SelfGuidedMasking)
    return found


def block(top: int, left: int, height: int, width: int) -> Tensor:
    where = torch.zeros(GRID, dtype=torch.bool)
    where[top : top + height, left : left + width] = True
    return where.flatten()


def planted(inside_L: Tensor, noise: float = 0.3, count: int = 1) -> Tensor:
    """Features (B, L, 12) with one direction inside and another outside, a large common part, and noise."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.eye(12)
    features = torch.where(inside_L.unsqueeze(1), basis[0], basis[1]) + 5 * basis[2]
    return features + noise * torch.randn(count, L, 12, generator=generator) / 12**0.5


def choose(features_BLD: Tensor, ratio: float = 0.75, **options: Any) -> Mask:
    count = features_BLD.shape[0]
    return mask_from_scores(strategy(**options).ranking_of(unit(features_BLD), ratio, state(count)), ratio)


@pytest.mark.parametrize("inside", [block(2, 3, 4, 3), block(0, 0, 4, 8), block(5, 5, 3, 3), block(1, 1, 6, 6)])
def test_the_cut_finds_two_planted_blocks(inside: Tensor) -> None:
    side = normalised_cut(unit(planted(inside, count=20)))
    assert (side == (inside != inside[0])).float().mean() > 0.99
    assert not side[:, 0].any()


def test_the_cut_is_nearly_always_the_best_of_all_splits() -> None:
    """Ncut(A) = cut / assoc(A) + cut / assoc(rest) of all splits of eight patches."""
    worse = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        group = torch.arange(8) % 2
        x = unit(torch.eye(4)[group][None] + 0.4 * torch.randn(1, 8, 4, generator=generator))
        weight = ((x @ x.mT - 1) / TEMPERATURE).exp()[0]

        def ncut(side: Tensor, w: Tensor = weight) -> float:
            cut = w[side][:, ~side].sum()
            return float(cut / w[side].sum() + cut / w[~side].sum())

        best = min(ncut(torch.tensor((False, *rest))) for rest in product((False, True), repeat=7) if any(rest))
        worse.append(ncut(normalised_cut(x)[0]) / best)
    assert sum(ratio < 1.001 for ratio in worse) >= 16


def test_the_object_is_the_side_with_less_of_it_on_the_border_else_the_smaller() -> None:
    inner, half = block(1, 1, 6, 6), block(0, 0, 8, 4)
    third, corner = block(0, 0, 8, 3), block(0, 0, 2, 2)
    cases = [(inner, inner), (~inner, inner), (third, third if 18 / 24 < 10 / 40 else ~third), (corner, ~corner)]
    for given, expected in cases:
        assert torch.equal(object_side(given[None], GRID)[0], expected)
    assert object_side(half[None], GRID)[0].sum() == 32
    rows = torch.tensor([[True, False, False, False]])  # a grid of border patches only: the smaller side
    assert torch.equal(object_side(rows, (2, 2)), rows)
    assert torch.equal(object_side(~rows, (2, 2)), rows)
    assert not object_side(torch.zeros(1, L, dtype=torch.bool), GRID).any(), "one side is empty: so is the object"


def test_the_object_goes_first_and_a_budget_that_exceeds_it_takes_what_is_like_it() -> None:
    inside = block(2, 2, 4, 4)
    mask = choose(planted(inside), hint=0.0).mask[0].bool()
    assert mask[inside].all()
    x = unit(planted(inside))[0]
    like = x @ x[inside].mean(0)
    rest = like[~inside].argsort(descending=True)[: 48 - 16]
    expected = inside.clone()
    expected[torch.arange(L)[~inside][rest]] = True
    assert torch.equal(mask, expected)


def test_the_clusters_come_before_the_similarities(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch of the object that is unlike its mean goes before one of the background that is like it."""
    inside, features = block(2, 2, 4, 4), planted(block(2, 2, 4, 4))
    features[0, 27], features[0, 0] = features[0, 0].clone(), features[0, 27].clone()  # 27 is inside
    monkeypatch.setattr(module, "normalised_cut", lambda unit_BLD: inside[None])
    assert choose(features, 16 / L, hint=0.0).mask[0].bool().equal(inside)


def test_of_an_object_that_exceeds_the_budget_the_least_typical_patches_stay() -> None:
    inside = block(1, 1, 6, 6)
    mask = choose(planted(inside), 0.5, hint=0.0).mask[0].bool()
    x = unit(planted(inside))[0]
    top = torch.where(inside, x @ x[inside].mean(0), -9.0).argsort(descending=True)[:32]
    assert set(mask.nonzero().flatten().tolist()) == set(top.tolist())


def test_hints_are_drawn_evenly_from_what_would_go_and_the_ratio_stays() -> None:
    features = planted(block(2, 2, 4, 4)).expand(500, -1, -1)
    without = choose(features[:1], hint=0.0).mask[0].bool()
    mask = choose(features, hint=0.25).mask  # 12 of 48, 4 others go instead: no more are left than 16
    assert (mask.sum(1) == 48).all()
    shown = 1 - mask[:, without].mean(0)
    torch.testing.assert_close(shown, torch.full((48,), 12 / 48), atol=0.09, rtol=0)
    assert (mask[:, ~without].sum(1) == 12).all()


def test_masks_are_random_until_the_start() -> None:
    found = strategy(start=0.2)
    found.teacher.features = lambda images: planted(block(2, 2, 4, 4), count=len(images))  # type: ignore[method-assign]
    images = torch.empty(500, 3, 1, 1)
    early = found(images, images, 0.75, 0, state(500, 0.1999)).mask
    torch.testing.assert_close(early.mean(0), torch.full((L,), 0.75), atol=0.09, rtol=0)
    late = found(images, images, 0.75, 0, state(500, 0.2)).mask
    assert late[:, block(2, 2, 4, 4)].mean() == pytest.approx(0.9, abs=0.02)  # a tenth are hints


@pytest.mark.parametrize("value", [0.0, 3.0, float("nan"), float("inf")])
def test_features_without_a_structure_give_a_mask_all_the_same(value: float) -> None:
    mask = choose(torch.full((3, L, 8), value))
    assert (mask.mask.sum(1) == 48).all()
    assert torch.equal(mask.mask, choose(torch.full((3, L, 8), value)).mask)


@pytest.mark.parametrize("options", [{"start": 1.5}, {"hint": 1.0}, {"hint": float("nan")}])
def test_values_out_of_range_are_refused_in_one_line(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(options.values())))) as error:
        strategy(**options)
    assert "\n" not in str(error.value)
