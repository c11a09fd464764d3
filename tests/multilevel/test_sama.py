"""The Adam-preconditioned solver: its own closed form, and the derivative of a real step of Adam."""

import pytest
import torch
from checks import response_vector
from quadratic import relative_error
from tiny_mae import Tiny
from torch.optim import SGD, AdamW

from mlomae.common.errors import ConfigError
from mlomae.multilevel import AdamPreconditioner, hypergradient, mixed_product

RATE, BETAS, EPS = 1e-4, (0.0, 0.999), 1e-8


def stepped(tiny: Tiny, steps: int = 3) -> AdamW:
    """An optimizer with second moments of θ, from steps on the lower loss; with β₁ = 0 its step is P g."""
    optimizer = AdamW(tiny.theta.values(), lr=RATE, betas=BETAS, eps=EPS, weight_decay=0.0)
    for step in range(steps):
        batch = tiny.problem.fix(tiny.theta, tiny.phi, tiny.lower_batches[step % 2])
        optimizer.zero_grad()
        tiny.lower(tiny.theta, tiny.phi, batch).backward()
        optimizer.step()
    return optimizer


def frozen(tiny: Tiny) -> dict:
    batches = tiny.batches()
    return batches | {"lower_batch": tiny.problem.fix(tiny.theta, tiny.phi, batches["lower_batch"])}


def test_the_preconditioner_is_the_one_adam_uses() -> None:
    tiny = Tiny()
    optimizer = stepped(tiny)
    precondition = AdamPreconditioner(optimizer, tiny.theta)
    before = {k: t.detach().clone() for k, t in tiny.theta.items()}
    optimizer.zero_grad()
    tiny.lower(tiny.theta, tiny.phi, frozen(tiny)["lower_batch"]).backward()
    g = {k: t.grad.clone() for k, t in tiny.theta.items() if t.grad is not None}
    optimizer.step()  # with beta1 = 0 the update is exactly -rate * P g, P of the state after it
    moved = {k: tiny.theta[k].detach() - before[k] for k in g}
    expected = {k: -RATE * t for k, t in precondition(g).items()}
    assert relative_error(moved, expected) < 1e-9


def test_sama_is_the_mixed_product_of_the_scaled_response() -> None:
    tiny = Tiny()
    precondition = AdamPreconditioner(stepped(tiny), tiny.theta)
    arguments = (tiny.problem, tiny.theta, tiny.omega, tiny.phi)
    batches = frozen(tiny)
    v = response_vector(tiny.problem, tiny.theta, tiny.omega, tiny.head_batch, tiny.upper_batch)
    used = {k: t for k, t in v.items() if t.any()}
    expected = mixed_product(tiny.problem, tiny.theta, tiny.phi, precondition(used), batches["lower_batch"])
    found = hypergradient(*arguments, **batches, solver="sama", precondition=precondition)
    assert relative_error(found, expected) < 1e-12
    plain = hypergradient(*arguments, **batches, solver="one_step")
    assert relative_error(hypergradient(*arguments, **batches, solver="sama"), plain) < 1e-12
    assert relative_error(found, plain) > 1e-2, "the scaling must matter here, or this test shows nothing"


def test_sama_predicts_a_real_step_of_adam() -> None:
    """dL_III(θ − rate·P ∂L_I/∂θ(φ))/dφ for P held constant, by central differences in one entry of φ at a time."""
    tiny = Tiny()
    optimizer = stepped(tiny)
    precondition = AdamPreconditioner(optimizer, tiny.theta)
    batches = frozen(tiny)
    arguments = (tiny.problem, tiny.theta, tiny.omega, tiny.phi)
    found = hypergradient(*arguments, **batches, solver="sama", precondition=precondition, paths="direct")
    rate, step = 1e-7, 1e-4

    def upper_after(phi: dict) -> torch.Tensor:
        loss = tiny.lower(tiny.theta, phi, batches["lower_batch"])
        g = torch.autograd.grad(loss, list(tiny.theta.values()), materialize_grads=True)
        moved = precondition(dict(zip(tiny.theta, g, strict=True)))
        theta = {k: t - rate * moved[k] for k, t in tiny.theta.items()}
        return tiny.head_loss(tiny.omega, tiny.features(theta, tiny.upper_batch), tiny.upper_batch)

    for name in ("out.weight", "hidden.bias"):
        shift = torch.zeros_like(tiny.phi[name])
        shift.view(-1)[0] = step
        up, down = ({**tiny.phi, name: tiny.phi[name] + sign * shift} for sign in (1, -1))
        slope = (upper_after(up) - upper_after(down)) / (2 * step)
        expected = rate * found[name].view(-1)[0]
        assert abs(slope - expected) < 2e-2 * abs(expected)


def test_an_optimizer_without_second_moments_is_refused() -> None:
    tiny = Tiny()
    with pytest.raises(ConfigError, match="needs Adam"):
        AdamPreconditioner(SGD(tiny.theta.values(), lr=0.1), tiny.theta)


def test_before_the_first_step_nothing_is_scaled() -> None:
    tiny = Tiny()
    v = {k: torch.ones_like(t) for k, t in tiny.theta.items()}
    found = AdamPreconditioner(AdamW(tiny.theta.values()), tiny.theta)(v)
    assert relative_error(found, v) == 0
