"""Inverse Hessians by a truncated Neumann series (Lorraine et al., AISTATS 2020).

H⁻¹ b ≈ lr · Σ_{j=0}^{steps} (I − lr·H)ʲ b,   which converges for 0 < lr·H < 2
"""

from __future__ import annotations

from collections.abc import Callable

from mlomae.common.errors import ConfigError

from .batches import Batch
from .implicit import Hypergradient, implicit
from .params import Params, Reduce, axpy, scale
from .problem import ThreeLevelProblem
from .response import LinearSolver, Paths


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


def neumann(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    phi: Params,
    *,
    lower_batch: Batch,
    head_batch: Batch,
    upper_batch: Batch,
    steps: int = 5,
    lr: float = 0.1,
    head_steps: int | None = None,
    head_lr: float | None = None,
    reduce: Reduce | None = None,
    smooth: Reduce | None = None,
    chunks: int = 1,
    paths: Paths = "both",
) -> Hypergradient:
    """g_φ, a dict like φ, with Neumann series for both inverse Hessians; the other options as in ``implicit``.

    Args:
        steps, lr: the series of H_θθ.
        head_steps, head_lr: the series of H_ωω; the same values where None.

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
        solve_lower=neumann_series(steps, lr),
        solve_head=neumann_series(
            steps if head_steps is None else head_steps,
            lr if head_lr is None else head_lr,
        ),
        reduce=reduce,
        smooth=smooth,
        chunks=chunks,
        paths=paths,
    )
