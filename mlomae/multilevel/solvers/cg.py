"""Inverse Hessians by conjugate gradients on ``(H + damping·I) x = b`` (Hestenes and Stiefel, 1952).

The number of products is fixed and a converged solution is frozen instead of breaking out of the loop, so that nothing
waits for the device. A network's Hessian is indefinite: the iteration stops at the first direction of negative
curvature, and if that is ``b`` itself the result is ``b``, the one-step approximation.
"""

from collections.abc import Callable

import torch

from mlomae.common.errors import ConfigError

from ..implicit import implicit
from ..params import Params, Reduce, axpy, dot, zeros_like
from ..problem import Point
from ..registry import Hypergradient, register
from ..response import LinearSolver


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


@register("cg")
def cg(
    at: Point,
    *,
    steps: int = 10,
    damping: float = 0.0,
    tol: float = 1e-6,
    head_steps: int | None = None,
    head_damping: float | None = None,
    smooth: Reduce | None = None,
) -> Hypergradient:
    """Conjugate gradients for both inverse Hessians.

    Args:
        steps: Hessian-vector products with H_θθ.
        damping: added to the diagonal of H_θθ.
        tol: relative residual at which a solution is frozen.
        head_steps, head_damping: the same for H_ωω; by default the same values.
        smooth: as in ``implicit``.

    Raises:
        ConfigError: a value out of range.
    """
    head_steps = steps if head_steps is None else head_steps
    head_damping = damping if head_damping is None else head_damping
    solve_head = conjugate_gradients(head_steps, head_damping, tol)
    return implicit(at, conjugate_gradients(steps, damping, tol), solve_head, smooth=smooth)
