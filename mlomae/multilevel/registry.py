"""`hypergradient`, which calls a solver by its name, and the registry of solvers: one file in ``solvers`` for each.

A solver is a function of a ``Point`` and of options of its own, which are keyword-only.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from mlomae.common.errors import ConfigError
from mlomae.common.registry import Registry

from .batches import Batch
from .params import Params
from .problem import Point, ThreeLevelProblem


class Hypergradient(NamedTuple):
    """``g_phi``, a dict like φ, and L_III at the point where it was taken (0-dim, detached, this rank's)."""

    g_phi: Params
    loss_upper: Tensor


SOLVERS = Registry[Hypergradient]("solver")
register = SOLVERS.register
COMMON = ("reduce", "chunks", "paths")  # options of every solver: fields of `Point`


def list_solvers() -> list[str]:
    """Names that ``hypergradient`` accepts, sorted."""
    return SOLVERS.names()


def list_options(solver: str) -> list[str]:
    """Options of one solver, sorted. Raises ConfigError for an unknown solver."""
    return sorted([*SOLVERS.options(solver, ("at",)), *COMMON])


def check_options(solver: str, options: Iterable[str]) -> None:
    """Raise ConfigError if the solver, or one of the options' names, is unknown."""
    known = list_options(solver)
    for name in options:
        if name not in known:
            raise ConfigError(f"solver={solver!r} has no option {name!r}: choose from {', '.join(known)}")


def solve(at: Point, solver: str, options: Mapping[str, Any]) -> Hypergradient:
    """g_φ by one solver, and L_III. Options and errors as in ``hypergradient``."""
    check_options(solver, options)
    own = {name: value for name, value in options.items() if name not in COMMON}
    common = {name: value for name, value in options.items() if name in COMMON}
    return SOLVERS.get(solver)(replace(at, **common), **own)


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
        lower_batch: batch of L_I; its mask must be frozen already if the mask depends on θ or φ
            (``problem.fix``), or solvers that call ``lower`` more than once may see several masks.
        head_batch, upper_batch: labelled batches of L_II and L_III.
        solver: one of ``list_solvers()``.
        options: the solver's own (``list_options``), and ``reduce``, ``chunks`` and ``paths`` of ``Point``.

    Raises:
        ConfigError: an unknown solver or option, or a value that the solver or ``Point`` refuses; batches that do not
            divide into ``chunks``.

    Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128.
    """
    return solve(Point(problem, theta, omega, head_batch, upper_batch, phi, lower_batch), solver, options).g_phi
