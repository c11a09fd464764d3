"""The authors' scheme: every second derivative by a central difference, one for each path.

    direct    v₁ = ∂L_III/∂θ
    head      v₂ = −[∂L_II/∂θ(ω + ε g) − ∂L_II/∂θ(ω − ε g)] / 2ε,      g = ∂L_III/∂ω
    each      g_φ = −[∂L_I/∂φ(θ + ε v) − ∂L_I/∂φ(θ − ε v)] / 2ε,       ε = 0.01/‖·‖

Kept as the reference for the published method (MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128): the error is of
order ε² and, in half precision, mostly rounding. Unlike the authors' code, the mask is the same at θ ± ε v.
A difference of values does not see ``Tensor.detach``: if ``lower`` detaches the masking network's tokens, this solver
still counts the path of θ through them, and the exact ones do not. A joint loss (no ω) has one exact v through both
features, and only the last line is a difference.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mlomae.common.errors import ConfigError
from mlomae.common.precision import no_autocast_cache

from ..encoder import pull_back
from ..params import Batch, Params, axpy, constants, fill, gradient, leaves, norm, scale, sum_over_chunks
from ..problem import Hypergradient, Point, register
from ..response import respond


@register("finite_difference")
def finite_difference(at: Point, *, epsilon: float = 0.01) -> Hypergradient:
    """The sum of the two paths above.

    Args:
        epsilon: length of the step in parameter space (ε·‖v‖). A zero vector gives a zero result.

    Raises:
        ConfigError: a problem with ``pool``; batches that do not divide into ``at.chunks``.
    """
    problem, head_batch = at.problem, at.head_batch
    if problem.pool is not None:
        raise ConfigError("solver='finite_difference' does not differentiate pool: choose one_step or explicit")
    theta, omega = constants(at.theta), leaves(at.omega)

    def upper(z: Tensor) -> tuple[Tensor, tuple[Tensor, Params]]:
        loss = problem.head_loss(omega, z, at.upper_batch)
        return loss, (loss.detach(), gradient(loss, omega))

    def head_gradient(omega: Params) -> Params:
        def head(z: Tensor) -> tuple[Tensor, None]:
            return problem.head_loss(omega, z, head_batch), None

        return pull_back(problem, theta, [head_batch], head, at.chunks)[0]

    def lower_gradient(theta: Params) -> Params:
        """∂L_I/∂φ, averaged over equal chunks of the batch."""

        def one(part: Batch) -> Params:
            phi = leaves(at.phi)
            with torch.enable_grad():
                return gradient(problem.lower(theta, phi, part), phi)

        return scale(1.0 / at.chunks, sum_over_chunks(one, at.lower_batch, at.chunks))

    with no_autocast_cache():
        if problem.joint_loss is not None:
            v, _, loss_upper = respond(at)
            vectors = [v]
        else:
            direct, _, (loss_upper, g_omega) = pull_back(problem, theta, [at.upper_batch], upper, at.chunks)
            vectors = [at.average(direct)]
        if omega and at.paths != "direct":
            vectors.append(at.average(_difference(head_gradient, constants(omega), at.average(g_omega), epsilon)))
        g_phi: Params = {}
        for v in vectors[1:] if omega and at.paths == "head" else vectors:
            g_phi = axpy(1.0, _difference(lower_gradient, theta, v, epsilon), g_phi)
    return Hypergradient(at.average(fill(g_phi, at.phi)), loss_upper)


def _difference(find: Callable[[Params], Params], at: Params, v: Params, epsilon: float) -> Params:
    """−[find(at + ε v) − find(at − ε v)] / 2ε with ε = epsilon/‖v‖, or epsilon for v = 0, where both are equal."""
    length = norm(v)
    eps = epsilon / torch.where(length > 0, length, 1.0)
    difference = axpy(-1.0, find(axpy(-eps, v, at)), find(axpy(eps, v, at)))
    return scale(-0.5 / eps, difference)
