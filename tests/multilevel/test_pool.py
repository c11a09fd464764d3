"""Features pooled by the scores of φ: the explicit part of the hypergradient, alone and with the part through θ."""

import dataclasses
from pathlib import Path
from types import ModuleType

import pytest
import torch
from checks import RATES, mutant, outer_step, response_vector
from joint_tiny import JointTiny, build
from quadratic import quadratic, relative_error
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from mlomae import multilevel
from mlomae.common.errors import ConfigError
from mlomae.multilevel import Params, hypergradient, mixed_product

RATE = 0.3


class PoolTiny(JointTiny):
    """Patch tokens weighted by L·σ/Σσ, so that their mean is the mean weighted by σ; with or without a head."""

    def __init__(self, head: bool = False) -> None:
        super().__init__(build("nca")[0])
        self.start = {k: t.detach().clone() for k, t in self.theta.items()}  # σ sees constant tokens
        if head:
            self.omega = dict(self.head.named_parameters())
            self.problem = dataclasses.replace(self.problem, joint_loss=None, head_loss=self.pooled_loss)
        self.problem = dataclasses.replace(self.problem, pool=self.pool)

    def pool(self, theta: Params, phi: Params, z: Tensor, batch: dict[str, Tensor]) -> Tensor:
        sigma = self.scores(self.start, phi, batch)
        weight = sigma.shape[1] * sigma / sigma.sum(1, keepdim=True)
        return torch.cat([z[:, :1], z[:, 1:] * weight.unsqueeze(-1)], 1)

    def pooled_loss(self, omega: Params, z: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return cross_entropy(functional_call(self.head, omega, (z[:, 1:].mean(1),)), batch["label"])

    def frozen(self) -> dict[str, dict[str, Tensor]]:
        batches = self.batches()
        return batches | {"lower_batch": self.fix(self.theta, self.phi, batches["lower_batch"])}

    def upper(self, theta: Params, omega: Params, phi: Params) -> Tensor:
        """L_III as a plain function of everything."""
        z = [self.pool(theta, phi, self.features(theta, b), b) for b in (self.head_batch, self.upper_batch)]
        if omega:
            return self.pooled_loss(omega, z[1], self.upper_batch)
        return self.joint_loss(z[0], z[1], self.head_batch, self.upper_batch)


def brute_force(tiny: PoolTiny) -> tuple[Params, Params]:
    """(explicit part, v) by autograd on the plain functions, stage II differentiated twice if there is a head."""
    theta, omega, phi = (
        {k: t.detach().clone().requires_grad_() for k, t in d.items()} for d in (tiny.theta, tiny.omega, tiny.phi)
    )
    value = tiny.upper(theta, omega, phi)
    if omega:
        q = torch.autograd.grad(value, list(omega.values()), retain_graph=True)
        z = tiny.pool(theta, phi, tiny.features(theta, tiny.head_batch), tiny.head_batch)
        inner = torch.autograd.grad(
            tiny.pooled_loss(omega, z, tiny.head_batch), list(omega.values()), create_graph=True
        )
        value = value - sum((a * b).sum() for a, b in zip(inner, q, strict=True))
    g = torch.autograd.grad(value, [*phi.values(), *theta.values()], materialize_grads=True)
    return dict(zip(phi, g, strict=False)), dict(zip(theta, g[len(phi) :], strict=True))


def check_pool(ml: ModuleType, head: bool) -> None:
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        tiny = PoolTiny(head)
        arguments, batches = (tiny.problem, tiny.theta, tiny.omega, tiny.phi), tiny.frozen()
        explicit, v = brute_force(tiny)
        assert relative_error(ml.hypergradient(*arguments, **batches, solver="explicit"), explicit) < 1e-9
        response = response_vector(*arguments[:3], tiny.head_batch, tiny.upper_batch, tiny.phi, ml=ml)
        assert relative_error(response, v) < 1e-9
        implicit = mixed_product(tiny.problem, tiny.theta, tiny.phi, v, batches["lower_batch"])
        expected = {k: explicit[k] + RATE * implicit[k] for k in implicit}
        assert relative_error(ml.hypergradient(*arguments, **batches, rate=RATE), expected) < 1e-9
        assert relative_error(explicit, expected) > 1e-2, "both parts must matter, or this shows nothing"


@pytest.mark.parametrize("head", [False, True])
def test_both_parts_equal_autograd(head: bool) -> None:
    check_pool(multilevel, head)


MUTATIONS = {
    "sign of the part through theta": ("response.py", ("axpy(rate, through_theta", "axpy(-rate, through_theta"), False),
    "rate ignored": ("response.py", ("axpy(rate, through_theta", "axpy(1.0, through_theta"), False),
    "head batch not weighted": ("response.py", ("problem.pooled(at.theta, at.phi, z[0], at.head_batch)", "z[0]"), True),
    "upper batch not weighted": (
        "response.py",
        ("problem.pooled(at.theta, at.phi, z[-1], at.upper_batch)", "z[-1]"),
        False,
    ),
    "head's path dropped": ("response.py", ("(loss_upper - inner if", "(loss_upper if"), True),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_defect_fails(name: str, tmp_path: Path) -> None:
    file, replacement, head = MUTATIONS[name]
    with pytest.raises((AssertionError, RuntimeError)):
        check_pool(mutant(tmp_path, file, replacement), head)


def test_unrolled_is_the_derivative_of_a_real_step() -> None:
    """d/dφ of L_III after one SGD step on θ, the explicit way included, by central differences."""
    tiny = PoolTiny()
    batches = tiny.frozen()
    found = hypergradient(tiny.problem, tiny.theta, {}, tiny.phi, **batches, solver="unrolled", lr=RATE)

    def after(phi: Params) -> Tensor:
        loss = tiny.lower(tiny.theta, phi, batches["lower_batch"])
        g = torch.autograd.grad(loss, list(tiny.theta.values()), materialize_grads=True)
        return tiny.upper({k: t - RATE * d for (k, t), d in zip(tiny.theta.items(), g, strict=True)}, {}, phi)

    for name in tiny.phi:
        shift = torch.zeros_like(tiny.phi[name])
        shift.view(-1)[0] = 1e-5
        slope = (
            after({**tiny.phi, name: tiny.phi[name] + shift}) - after({**tiny.phi, name: tiny.phi[name] - shift})
        ) / 2e-5
        assert abs(slope - found[name].view(-1)[0]) < 1e-6 * max(1.0, float(abs(slope)))


def test_the_head_learns_from_the_pooled_features() -> None:
    tiny, twin = PoolTiny(head=True), PoolTiny(head=True)
    step = outer_step(multilevel, tiny, solver="explicit")
    losses = step(tiny.lower_batches[-1:], tiny.head_batch, tiny.upper_batch)
    z = twin.pool(tiny.theta, twin.phi, twin.features(tiny.theta, twin.head_batch), twin.head_batch)
    loss = twin.pooled_loss(twin.omega, z.detach(), twin.head_batch)
    g = torch.autograd.grad(loss, list(twin.omega.values()))
    moved = {k: (twin.omega[k] - t) / RATES["omega"] for k, t in tiny.omega.items()}
    assert relative_error(moved, dict(zip(twin.omega, g, strict=True))) < 1e-9
    assert losses.keys() == {"loss_lower", "loss_head", "loss_upper"}


def test_explicit_needs_one_encoder_pass_and_leaves_no_graph() -> None:
    tiny = PoolTiny()
    found = hypergradient(tiny.problem, tiny.theta, {}, tiny.phi, **tiny.batches(), solver="explicit")
    assert tiny.feature_calls == 1
    assert tiny.lower_calls == 0
    assert not any(t.requires_grad for t in found.values())
    parts = hypergradient(tiny.problem, tiny.theta, {}, tiny.phi, **tiny.batches(), solver="explicit", chunks=4)
    assert relative_error(parts, found) < 1e-12


def test_contradictions_are_one_line_errors() -> None:
    q, tiny = quadratic(), PoolTiny()
    with pytest.raises(ConfigError, match="needs a problem with pool"):
        hypergradient(q.problem, q.theta, q.omega, q.phi, **q.batches(), solver="explicit")
    with pytest.raises(ConfigError, match="does not differentiate pool"):
        hypergradient(tiny.problem, tiny.theta, {}, tiny.phi, **tiny.batches(), solver="finite_difference")
    with pytest.raises(ConfigError, match="needs phi"):
        response_vector(tiny.problem, tiny.theta, {}, tiny.head_batch, tiny.upper_batch)
