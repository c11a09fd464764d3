"""The authors' scheme: every second derivative by a central difference, one for each path.

    direct    v₁ = ∂L_III/∂θ
    head      v₂ = −[∂L_II/∂θ(ω + ε g) − ∂L_II/∂θ(ω − ε g)] / 2ε,      g = ∂L_III/∂ω
    each      g_φ = −[∂L_I/∂φ(θ + ε v) − ∂L_I/∂φ(θ − ε v)] / 2ε,       ε = 0.01/‖·‖

Kept as the reference for the published method (MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128): the error is of
order ε² and, in half precision, drowns in rounding. Unlike the authors' code, the mask is the same at θ ± ε v.
A difference of values does not see ``Tensor.detach``: where ``lower`` detaches the masking network's tokens, this
solver still counts the way of θ through them, and the exact ones do not. A joint loss (no ω) has one exact v through
both features, and only the last line is a difference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlomae.common.errors import ConfigError

from .batches import Batch, split_batch
from .encoder import pull_back
from .implicit import Hypergradient
from .modes import no_autocast_cache
from .params import Params, Reduce, axpy, constants, fill, gradient, keep, leaves, norm, scale
from .problem import ThreeLevelProblem
from .response import Paths, check_paths, respond


def finite_difference(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    phi: Params,
    *,
    lower_batch: Batch,
    head_batch: Batch,
    upper_batch: Batch,
    epsilon: float = 0.01,
    reduce: Reduce | None = None,
    chunks: int = 1,
    paths: Paths = "both",
) -> Hypergradient:
    """g_φ, a dict like φ, as the sum of the two paths above; the other options as in ``implicit``.

    Args:
        epsilon: length of the step in parameter space (ε·‖v‖). A zero vector gives a zero result.

    Raises:
        ConfigError: unknown ``paths``; batches that do not divide into ``chunks``.
    """
    check_paths(paths, omega, problem, head_batch)
    if problem.attend is not None:
        raise ConfigError("solver='finite_difference' does not differentiate attend: choose one_step or explicit")
    average = reduce or keep
    theta, omega, phi = constants(theta), leaves(omega), constants(phi)
    upper: list[Tensor] = []
    g_omega: Params = {}

    def loss_upper(z: Tensor) -> Tensor:
        loss = problem.head_loss(omega, z, upper_batch)
        g_omega.update(gradient(loss, omega))
        upper.append(loss.detach())
        return loss

    def head_gradient(at: Params) -> Params:
        return pull_back(problem, theta, [head_batch], lambda z: problem.head_loss(at, z, head_batch), chunks)[0]

    with no_autocast_cache():
        if problem.joint_loss is not None:
            found = respond(problem, theta, {}, head_batch, upper_batch, reduce=reduce, chunks=chunks, paths=paths)
            vectors = [found.v]
            upper.append(found.loss_upper)
        else:
            vectors = [average(pull_back(problem, theta, [upper_batch], loss_upper, chunks)[0])]
        if omega and paths != "direct":
            g, at = average(g_omega), constants(omega)
            eps = _step(g, epsilon)
            difference = axpy(-1.0, head_gradient(axpy(-eps, g, at)), head_gradient(axpy(eps, g, at)))
            vectors.append(average(scale(-0.5 / eps, difference)))
        g_phi: Params = {}
        for v in vectors[1:] if omega and paths == "head" else vectors:
            eps = _step(v, epsilon)
            above = _gradient_phi(problem, axpy(eps, v, theta), phi, lower_batch, chunks)
            below = _gradient_phi(problem, axpy(-eps, v, theta), phi, lower_batch, chunks)
            g_phi = axpy(1.0, scale(-0.5 / eps, axpy(-1.0, below, above)), g_phi)
    return Hypergradient(average(fill(g_phi, phi)), upper[0])


def _step(v: Params, epsilon: float) -> Tensor:
    """ε/‖v‖, and ε for v = 0, where both sides of the difference are then equal."""
    length = norm(v)
    return epsilon / torch.where(length > 0, length, 1.0)


def _gradient_phi(problem: ThreeLevelProblem, theta: Params, phi: Params, batch: Batch, chunks: int) -> Params:
    """∂L_I/∂φ, averaged over equal chunks of the batch."""
    phi = leaves(phi)
    total: Params = {}
    for part in split_batch(batch, chunks):
        with torch.enable_grad():
            found = gradient(problem.lower(theta, phi, part), phi)
        total = axpy(1.0 / chunks, found, total)
    return total
