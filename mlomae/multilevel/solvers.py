"""The registry of hypergradient solvers: one name, one function, one small file each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from mlomae.common.errors import ConfigError

from .batches import Batch
from .cg import cg
from .explicit import explicit
from .finite_difference import finite_difference
from .implicit import Hypergradient
from .neumann import neumann
from .one_step import one_step
from .params import Params
from .problem import ThreeLevelProblem
from .sama import sama
from .unrolled import unrolled

SOLVERS: dict[str, Callable[..., Hypergradient]] = {
    "one_step": one_step,
    "finite_difference": finite_difference,
    "neumann": neumann,
    "cg": cg,
    "sama": sama,
    "explicit": explicit,
    "unrolled": unrolled,
}
_BATCHES = ("lower_batch", "head_batch", "upper_batch")


def list_solvers() -> list[str]:
    """Names that ``hypergradient`` accepts, sorted."""
    return sorted(SOLVERS)


def list_options(solver: str) -> list[str]:
    """Options of one solver, sorted. Raises ConfigError for an unknown solver."""
    if solver not in SOLVERS:
        raise ConfigError(f"solver={solver!r} is unknown: choose one of {', '.join(list_solvers())}")
    parameters = inspect.signature(SOLVERS[solver]).parameters.values()
    return sorted(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _BATCHES)


def check_options(solver: str, options: Iterable[str]) -> None:
    """Raise ConfigError where the solver, or one of the options' names, is unknown."""
    known = list_options(solver)
    for name in options:
        if name not in known:
            raise ConfigError(f"solver={solver!r} has no option {name!r}: choose from {', '.join(known)}")


def solve(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    phi: Params,
    *,
    lower_batch: Batch,
    head_batch: Batch,
    upper_batch: Batch,
    solver: str = "one_step",
    **options: Any,
) -> Hypergradient:
    """``hypergradient`` together with the value of L_III that the solver met on its way."""
    check_options(solver, options)
    return SOLVERS[solver](
        problem,
        theta,
        omega,
        phi,
        lower_batch=lower_batch,
        head_batch=head_batch,
        upper_batch=upper_batch,
        **options,
    )


def hypergradient(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    phi: Params,
    *,
    lower_batch: Batch,
    head_batch: Batch,
    upper_batch: Batch,
    solver: str = "one_step",
    **options: Any,
) -> Params:
    """g_φ ≈ dL_III(θ*(φ), ω*(θ*(φ)))/dφ at the given parameters: a dict like φ, outside every graph.

    Args:
        lower_batch: batch of L_I; its mask must be frozen already where the mask depends on θ or φ
            (``problem.fix``), or solvers that call ``lower`` more than once may see several masks.
        head_batch, upper_batch: labelled batches of L_II and L_III.
        solver: one of ``list_solvers()``.
        options: the solver's own (``list_options``); all take ``reduce``, ``chunks`` and ``paths``.

    Raises:
        ConfigError: an unknown solver or option, or a value that the solver refuses.

    Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128.
    """
    return solve(
        problem,
        theta,
        omega,
        phi,
        lower_batch=lower_batch,
        head_batch=head_batch,
        upper_batch=upper_batch,
        solver=solver,
        **options,
    ).g_phi
