"""Inverse Hessians by iteration: a truncated Neumann series (Lorraine et al., AISTATS 2020) or conjugate gradients.

    neumann   H⁻¹ b ≈ lr · Σ_{j=0}^{steps} (I − lr·H)ʲ b,   which converges for 0 < lr·H < 2
    cg        (H + damping·I) x = b   (Hestenes and Stiefel, 1952)

The number of products is fixed, and conjugate gradients freeze a converged solution instead of leaving the loop, so
that nothing waits for the device. A network's Hessian is indefinite: conjugate gradients stop at the first direction of
negative curvature, and if that is ``b`` itself the result is ``b``, the one-step approximation.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch

from mlomae.common.registry import Count, NotNegative, Positive

from ..params import Params, Reduce, axpy, dot, fill, scale
from ..problem import Hypergradient, Point, register
from ..response import implicit


def neumann_series(product: Callable[[Params], Params], b: Params, *, steps: int, lr: float) -> Params:
    """The Neumann series with ``steps`` Hessian-vector products."""
    term = total = b
    for _ in range(steps):
        term = axpy(-lr, product(term), term)
        total = axpy(1.0, term, total)
    return scale(lr, total)


@register("neumann")
def neumann(
    at: Point,
    *,
    steps: Annotated[int, "[0, inf)"] = 5,
    lr: Positive = 0.1,
    head_steps: Annotated[int, "[0, inf)"] | None = None,
    head_lr: Positive | None = None,
    smooth: Reduce | None = None,
) -> Hypergradient:
    """Neumann series for both inverse Hessians.

    Args:
        steps, lr: the series of H_θθ.
        head_steps, head_lr: the series of H_ωω; by default the same values.
        smooth: as in ``implicit``.
    """
    lower = partial(neumann_series, steps=steps, lr=lr)
    head = partial(lower, steps=steps if head_steps is None else head_steps, lr=lr if head_lr is None else head_lr)
    return implicit(at, lower, head, smooth=smooth)


def conjugate_gradients(
    product: Callable[[Params], Params], b: Params, *, steps: int, damping: float, tol: float
) -> Params:
    """Conjugate gradients, frozen once ‖residual‖ ≤ tol·‖b‖."""
    x, residual, direction = fill({}, b), b, b
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


@register("cg")
def cg(
    at: Point,
    *,
    steps: Count = 10,
    damping: NotNegative = 0.0,
    tol: NotNegative = 1e-6,
    head_steps: Count | None = None,
    head_damping: NotNegative | None = None,
    smooth: Reduce | None = None,
) -> Hypergradient:
    """Conjugate gradients for both inverse Hessians.

    Args:
        steps: Hessian-vector products with H_θθ.
        damping: added to the diagonal of H_θθ.
        tol: relative residual at which a solution is frozen.
        head_steps, head_damping: the same for H_ωω; by default the same values.
        smooth: as in ``implicit``.
    """
    lower = partial(conjugate_gradients, steps=steps, damping=damping, tol=tol)
    head_steps = steps if head_steps is None else head_steps
    head = partial(lower, steps=head_steps, damping=damping if head_damping is None else head_damping)
    return implicit(at, lower, head, smooth=smooth)
