"""Inverse Hessians by a truncated Neumann series (Lorraine et al., AISTATS 2020).

H⁻¹ b ≈ lr · Σ_{j=0}^{steps} (I − lr·H)ʲ b,   which converges for 0 < lr·H < 2
"""

from collections.abc import Callable

from mlomae.common.errors import ConfigError

from ..implicit import implicit
from ..params import Params, Reduce, axpy, scale
from ..problem import Point
from ..registry import Hypergradient, register
from ..response import LinearSolver


def neumann_series(steps: int, lr: float) -> LinearSolver:
    """The linear solver above; ``steps`` Hessian-vector products. Raises ConfigError for values out of range."""
    if steps < 0 or lr <= 0:
        raise ConfigError(f"neumann needs steps >= 0 and lr > 0, not steps={steps}, lr={lr}")

    def solve(product: Callable[[Params], Params], b: Params) -> Params:
        term = total = b
        for _ in range(steps):
            term = axpy(-lr, product(term), term)
            total = axpy(1.0, term, total)
        return scale(lr, total)

    return solve


@register("neumann")
def neumann(
    at: Point,
    *,
    steps: int = 5,
    lr: float = 0.1,
    head_steps: int | None = None,
    head_lr: float | None = None,
    smooth: Reduce | None = None,
) -> Hypergradient:
    """Neumann series for both inverse Hessians.

    Args:
        steps, lr: the series of H_θθ.
        head_steps, head_lr: the series of H_ωω; by default the same values.
        smooth: as in ``implicit``.

    Raises:
        ConfigError: a value out of range.
    """
    head = neumann_series(steps if head_steps is None else head_steps, lr if head_lr is None else head_lr)
    return implicit(at, neumann_series(steps, lr), head, smooth=smooth)
