"""AttG-MAE: planted objects weigh more, by the formula, on the schedule; masks are random masking's."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import Mask, MaskState
from mlomae.masking.strategies.attg import AttGMasking
from mlomae.masking.teacher import normalised_cut, object_map, second_eigenvector, unit

GRID, L, D = (6, 6), 36, 16


def state(count: int, progress: float = 0.0) -> MaskState:
    return MaskState(random_keys.fold(random_keys.root_key("attg"), torch.arange(count)), progress=progress)


def planted(count: int = 4, size: int = 8, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Features (B, L, D) of a background and an object of ``size`` patches at random places; where it is (B, L)."""
    generator = torch.Generator().manual_seed(0)
    objects = torch.rand(count, L, generator=generator).argsort(dim=1) < size
    two = torch.randn(2, D, generator=generator, dtype=torch.float64)
    features = torch.where(objects.unsqueeze(2), two[0], two[1])
    return features + noise * torch.randn(count, L, D, generator=generator, dtype=torch.float64), objects


def attg(**options: Any) -> AttGMasking:
    strategy = masking.create("attg", embed_dim=D, grid=GRID, **options)
    assert isinstance(strategy, AttGMasking)
    return strategy


def choose(features: Tensor, progress: float = 0.0, ratio: float = 0.75, **options: Any) -> Mask:
    strategy = attg(**options)
    strategy.teacher.features = lambda images: features  # type: ignore[method-assign, assignment]
    empty = torch.empty(len(features), 0)
    return strategy(empty, empty, ratio, 0, state(len(features), progress))


def test_the_eigenvector_against_the_generalised_problem() -> None:
    """(D - W) y = λ D y with y = d^-½ u, and no other but the constant one has a smaller λ."""
    x = unit(planted()[0])
    u, scale = second_eigenvector(x)
    w = ((x @ x.mT - 1) / 0.2).exp()
    d = torch.diag_embed(w.sum(2))
    y = (u * scale).unsqueeze(2)
    rayleigh = (y.mT @ (d - w) @ y) / (y.mT @ d @ y)
    torch.testing.assert_close((d - w) @ y, rayleigh * (d @ y))
    assert (y.mT @ d @ torch.ones_like(y)).abs().max() < 1e-9
    for i in range(len(x)):
        values = torch.linalg.eigvals(torch.linalg.solve(d[i], d[i] - w[i])).real.sort().values
        assert abs(float(values[0])) < 1e-9
        assert float(values[1]) == pytest.approx(float(rayleigh[i]))


def test_the_map_is_high_on_the_object_and_low_on_the_background() -> None:
    features, objects = planted(noise=0.15)
    found = object_map(unit(features))
    assert torch.equal(found.amin(1), torch.zeros(4).double())
    assert torch.equal(found.amax(1), torch.ones(4).double())
    assert found[objects].min() > 0.6
    assert found[~objects].max() < 0.4
    side = normalised_cut(unit(features))
    assert torch.equal(side == side[:, :1], objects == objects[:, :1])


def test_the_sign_of_the_eigenvector_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x = unit(planted()[0])
    expected = object_map(x)
    u, scale = second_eigenvector(x)
    monkeypatch.setattr("mlomae.masking.teacher.second_eigenvector", lambda unit_BLD: (-u, scale))
    torch.testing.assert_close(object_map(x), expected)


def test_the_weights_are_the_formula() -> None:
    features, _ = planted()
    expected = (object_map(unit(features)) / 0.5).exp()
    expected = expected / expected.mean(dim=1, keepdim=True)
    torch.testing.assert_close(choose(features, 0.0, tau_start=0.5, tau_end=9.0).weight, expected)
    span = choose(features, tau_start=0.5).weight
    torch.testing.assert_close(span.amax(1) / span.amin(1), torch.full((4,), math.exp(2.0)).double())


def test_tau_is_on_half_a_cycle_of_a_cosine() -> None:
    strategy = attg(tau_start=3.0, tau_end=1.0)
    assert [strategy.tau(p) for p in (0.0, 1 / 3, 0.5, 1.0)] == pytest.approx([3.0, 2.5, 2.0, 1.0])
    features, objects = planted()
    shares = [float(choose(features, p).weight[objects].mean()) for p in (0.0, 0.5, 0.99)]
    assert 1.0 < shares[0] < shares[1] < shares[2]


def test_the_masks_are_those_of_random_masking() -> None:
    features, _ = planted()
    random = masking.create("random", embed_dim=D, grid=GRID)
    empty = torch.empty(4, 0)
    for progress in (0.0, 0.9):
        expected = random(empty, empty, 0.75, 0, state(4))
        assert torch.equal(choose(features, progress).mask, expected.mask)


def test_patches_that_are_all_alike_weigh_alike() -> None:
    features = torch.ones(2, L, D)
    for same in (features, features * torch.nan):
        torch.testing.assert_close(choose(same).weight, torch.ones(2, L))


@pytest.mark.parametrize("options", [{"tau_start": 0.0}, {"tau_end": -1.0}, {"tau_end": math.nan}, {"tau_start": 0.01}])
def test_a_tau_that_is_too_small_is_refused_in_one_line(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"must be (inside \[0\.05, inf\)|a number)") as error:
        attg(**options)
    assert "\n" not in str(error.value)
