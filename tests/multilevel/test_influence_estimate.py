"""Influence of patches along v: against one backward per patch, against the hypergradient, and to first order."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from checks import mutant, response_vector
from quadratic import relative_error
from tiny_mae import Tiny
from torch import Tensor
from torch.func import functional_call

from mlomae import multilevel
from mlomae.multilevel import Params, mixed_product, patch_influence


def setting(tiny: Tiny) -> tuple[dict[str, Tensor], Params]:
    batch = tiny.problem.fix(tiny.theta, tiny.phi, tiny.lower_batches[-1])
    return batch, response_vector(tiny.problem, tiny.theta, tiny.omega, tiny.head_batch, tiny.upper_batch)


def errors_of(tiny: Tiny):
    def errors(theta: Params, batch: dict[str, Tensor]) -> Tensor:
        visible = batch["mask"].to(torch.float64).argsort(dim=1, stable=True)[:, :4]
        return functional_call(tiny.mae, theta, (batch["x"], visible))

    return errors


def check_influence(ml: ModuleType) -> None:
    tiny = Tiny()
    batch, v = setting(tiny)
    found = ml.patch_influence(errors_of(tiny), tiny.theta, v, batch)
    errors = errors_of(tiny)(tiny.theta, batch)
    for image, patch in [(0, 0), (3, 5), (7, 2)]:
        g = torch.autograd.grad(errors[image, patch], list(tiny.theta.values()), retain_graph=True, allow_unused=True)
        one = sum((a * b).sum() for a, b in zip(g, v.values(), strict=True) if a is not None)
        assert abs(found[image, patch] - one) <= 1e-9 * found.abs().max()


def test_influence_equals_one_backward_per_patch() -> None:
    check_influence(multilevel)


@pytest.mark.parametrize("defect", [("(tangent,))[1]", "(tangent,))[0]"), ("t.detach().to", "-t.detach().to")])
def test_a_defect_fails(defect: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_influence(mutant(tmp_path, "products.py", defect))


def test_the_hypergradient_is_the_influence_carried_on_to_phi() -> None:
    tiny = Tiny()
    batch, v = setting(tiny)
    influence = patch_influence(errors_of(tiny), tiny.theta, v, batch)
    weight = batch["mask"] * tiny.scores(tiny.theta, tiny.phi, batch) / batch["mask"].sum()
    g = torch.autograd.grad((weight * influence).sum(), list(tiny.phi.values()))
    expected = mixed_product(tiny.problem, tiny.theta, tiny.phi, v, batch)
    assert relative_error({k: -t for k, t in zip(tiny.phi, g, strict=True)}, expected) < 1e-9


def test_positive_influence_means_that_weight_lowers_the_upper_loss() -> None:
    """dL_III/dw_i of one lower step of length η is −η I_i: a finite difference of the real thing, the head kept."""
    tiny, rate, step = Tiny(), 1e-5, 0.1
    batch, _ = setting(tiny)
    v = response_vector(tiny.problem, tiny.theta, tiny.omega, tiny.head_batch, tiny.upper_batch, paths="direct")
    influence = patch_influence(errors_of(tiny), tiny.theta, v, batch)

    def upper_after(weight: Tensor) -> Tensor:
        loss = (weight * errors_of(tiny)(tiny.theta, batch)).sum()
        g = torch.autograd.grad(loss, list(tiny.theta.values()), materialize_grads=True)
        theta = {k: t - rate * d for (k, t), d in zip(tiny.theta.items(), g, strict=True)}
        return tiny.head_loss(tiny.omega, tiny.features(theta, tiny.upper_batch), tiny.upper_batch)

    weight = batch["mask"].double()
    for image, patch in batch["mask"].nonzero()[[0, 9, 20]].tolist():
        shift = torch.zeros_like(weight)
        shift[image, patch] = step
        slope = (upper_after(weight + shift) - upper_after(weight - shift)) / (2 * step)
        assert abs(slope + rate * influence[image, patch]) <= 1e-2 * rate * influence.abs().mean()


def test_nothing_moves_without_v() -> None:
    tiny = Tiny()
    batch, _ = setting(tiny)
    assert not patch_influence(errors_of(tiny), tiny.theta, {}, batch).any()
