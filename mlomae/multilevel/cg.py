"""Inverse Hessians by conjugate gradients on ``(H + damping·I) x = b`` (Hestenes and Stiefel, 1952).

The number of products is fixed and a converged system is frozen rather than left, so that nothing waits for the
device. A network's Hessian is indefinite: the iteration stops at the first direction of negative curvature, and where
that is ``b`` itself it answers ``b``, the one-step approximation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from mlomae.common.errors import ConfigError

from .batches import Batch
from .implicit import Hypergradient, implicit
from .params import Params, Reduce, axpy, dot, zeros_like
from .problem import ThreeLevelProblem
from .response import LinearSolver, Paths


def conjugate_gradients(steps: int, damping: float, tol: float) -> LinearSolver:
    """The linear solver above; frozen once ‖residual‖ ≤ tol·‖b‖. Raises ConfigError for values out of range."""
    if steps < 1 or damping < 0 or tol < 0:
        raise ConfigError(f"cg needs steps >= 1, damping >= 0, tol >= 0, not {steps}, {damping}, {tol}")

    def solve(product: Callable[[Params], Params], b: Params) -> Params:
        x, residual, direction = zeros_like(b), b, b
        square = dot(b, b)
        limit = tol**2 * square
        running = square > limit
        for step in range(steps):
            image = axpy(damping, direction, product(direction))
            curvature = dot(direction, image)
            running = running & (square > limit) & (curvature > 0)
            if step == 0:
                fallback = curvature <= 0
            length = torch.where(running, square / torch.where(running, curvature, 1.0), 0.0)
            x = axpy(length, direction, x)
            residual = axpy(-length, image, residual)
            before, square = square, dot(residual, residual)
            ratio = torch.where(running, square / torch.where(running, before, 1.0), 0.0)
            direction = axpy(ratio, direction, residual)
        return {k: torch.where(fallback, b[k], t) for k, t in x.items()}

    return solve


def cg(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    phi: Params,
    *,
    lower_batch: Batch,
    head_batch: Batch,
    upper_batch: Batch,
    steps: int = 10,
    damping: float = 0.0,
    tol: float = 1e-6,
    head_steps: int | None = None,
    head_damping: float | None = None,
    reduce: Reduce | None = None,
    smooth: Reduce | None = None,
    chunks: int = 1,
    paths: Paths = "both",
) -> Hypergradient:
    """g_φ, a dict like φ, with conjugate gradients for both inverse Hessians; the other options as in ``implicit``.

    Args:
        steps: Hessian-vector products with H_θθ (and with H_ωω, unless ``head_steps`` says otherwise).
        damping: added to the diagonal of H_θθ (and of H_ωω, unless ``head_damping`` says otherwise).
        tol: relative residual at which a system is left as it is.

    Raises:
        ConfigError: a value out of range; unknown ``paths``; batches that do not divide into ``chunks``.
    """
    return implicit(
        problem,
        theta,
        omega,
        phi,
        lower_batch=lower_batch,
        head_batch=head_batch,
        upper_batch=upper_batch,
        solve_lower=conjugate_gradients(steps, damping, tol),
        solve_head=conjugate_gradients(
            steps if head_steps is None else head_steps,
            damping if head_damping is None else head_damping,
            tol,
        ),
        reduce=reduce,
        smooth=smooth,
        chunks=chunks,
        paths=paths,
    )
