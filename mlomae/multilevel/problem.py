"""The three coupled minimisations as functions of their parameters, and `hypergradient`, which calls a solver by name.

    θ*(φ) = argmin_θ L_I(θ, φ),   ω*(θ) = argmin_ω L_II(θ, ω),   min_φ L_III(θ*(φ), ω*(θ*(φ)))

L_II and L_III are one function, the head's loss on the encoder's features, on two disjoint sets of labelled images.
If the best response ω*(θ) is known in closed form, or stage II has no parameters, both levels are one joint loss:

    L_III(ω*(θ)) = J(z_head, z_upper),   v = dJ/dθ through both sets of features

If the feedback pools the features by the scores of φ (``pool``), L_II and L_III depend on φ explicitly.

A solver is a function of a ``Point`` and of options of its own, which are keyword-only; `register` makes it known. The
annotations of its options limit their values (`mlomae.common.registry.check_value`).

Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import Tensor

from mlomae.common.errors import ConfigError
from mlomae.common.registry import Registry, check_value

from .params import Batch, Params, Reduce, concat_batches, constants, unchanged

Paths: TypeAlias = Literal["both", "direct", "head"]


def _no_head_loss(omega: Params, z: Tensor, batch: Batch) -> Tensor:
    raise ConfigError("this ThreeLevelProblem has a joint_loss and no head_loss: omega must be {}")


@dataclass(frozen=True)
class ThreeLevelProblem:
    """What a hypergradient solver has to know about a model; parameters are dicts from name to tensor.

    Every function must be a pure function of its arguments (``torch.func.functional_call``), without wrapped modules.
    A part of ``lower`` that must not be differentiated has to be cut with ``Tensor.detach``: ``torch.no_grad`` stops
    reverse but not forward derivatives, and the mixed product uses both.

    Attributes:
        lower: L_I(θ, φ, batch), 0-dim, the mean over the batch.
        features: z = E(θ, batch), any shape with samples first.
        head_loss: the head's loss (ω, z, batch), 0-dim, the mean over the batch: L_II on a head batch, L_III on an
            upper one. A head without parameters has ω = {}.
        concat: joins a head and an upper batch so that the encoder runs once; None runs it once for each (images of
            different sizes, features that depend on the rest of the batch).
        fix: (θ, φ, batch) → batch in which the mask is frozen, so that later calls of ``lower`` use that one;
            None if the mask does not depend on θ or φ.
        joint_loss: (z_head, z_upper, head_batch, upper_batch), 0-dim, the mean over the upper batch, differentiable in
            both features; with it ω is {}, stage II takes no steps, and ``head_loss`` is not called. It couples the
            samples of the two batches: under data parallelism it has to be that of all ranks' samples, and its
            gradient such that v, the mean over ranks, is the derivative of that loss.
        pool: (θ, φ, z, batch) → features weighted by the scores of φ, which the feedback then pools; samples first,
            differentiable in φ and z; θ is a constant. None if φ does not touch the feedback. Not for
            ``finite_difference``, the published scheme.
    """

    lower: Callable[[Params, Params, Batch], Tensor]
    features: Callable[[Params, Batch], Tensor]
    head_loss: Callable[[Params, Tensor, Batch], Tensor] = _no_head_loss
    concat: Callable[[Batch, Batch], Batch] | None = concat_batches
    fix: Callable[[Params, Params, Batch], Batch] | None = None
    joint_loss: Callable[[Tensor, Tensor, Batch, Batch], Tensor] | None = None
    pool: Callable[[Params, Params, Tensor, Batch], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.head_loss is _no_head_loss and self.joint_loss is None:
            raise ConfigError("ThreeLevelProblem needs a head_loss or a joint_loss")

    def pooled(self, theta: Params, phi: Params, z: Tensor, batch: Batch) -> Tensor:
        """The features z of a batch as the feedback sees them: weighted if the problem has ``pool``."""
        return z if self.pool is None else self.pool(constants(theta), phi, z, batch)


@dataclass(frozen=True)
class Point:
    """Problem, parameters and batches at which a hypergradient is taken, and the options common to all solvers.

    Attributes:
        theta, omega, phi: the parameters, dicts from name to tensor; φ may be {} where nothing depends on it.
        head_batch, upper_batch: labelled batches of L_II and L_III; the first may be None if ω = {} and no joint loss.
        lower_batch: the batch of L_I, its mask frozen (``problem.fix``); None if only v is wanted.
        reduce: averages a dict over data-parallel ranks; every vector is averaged before it enters the next product.
        chunks: equal parts in which L_I is evaluated, and parts in which the encoder pass is recomputed, for memory.
        paths: ``direct`` keeps the first term of v, ``head`` the second, ``both`` their sum.

    Raises:
        ConfigError: unknown ``paths``; ``head`` without ω; a joint loss with ω or without a head batch.
    """

    problem: ThreeLevelProblem
    theta: Params
    omega: Params
    head_batch: Batch
    upper_batch: Batch
    phi: Params = field(default_factory=dict)
    lower_batch: Batch = None
    reduce: Reduce | None = None
    chunks: int = 1
    paths: Paths = "both"

    def __post_init__(self) -> None:
        check_value(self.paths, Paths, "option 'paths'")
        if self.problem.joint_loss is not None:
            if self.omega:
                raise ConfigError("a problem with joint_loss has no head to train: omega must be {}")
            if self.head_batch is None:
                raise ConfigError("a problem with joint_loss needs a head batch as well as the upper batch")
        elif self.paths == "head" and not self.omega:
            raise ConfigError("paths='head' needs a head with parameters: this one has none")

    @property
    def average(self) -> Reduce:
        """``reduce``, or in one process no change."""
        return self.reduce or unchanged


class Hypergradient(NamedTuple):
    """``g_phi``, a dict like φ, and L_III at the point where it was taken (0-dim, detached, this rank's)."""

    g_phi: Params
    loss_upper: Tensor


SOLVERS = Registry[Hypergradient]("solver")
register = SOLVERS.register
list_solvers = SOLVERS.names
COMMON = ("reduce", "chunks", "paths")  # options of every solver: fields of `Point`


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
    return SOLVERS.build(solver, own, at=replace(at, **common))


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
        ConfigError: an unknown solver or option, a value that is refused, batches that do not divide into ``chunks``.

    Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128.
    """
    return solve(Point(problem, theta, omega, head_batch, upper_batch, phi, lower_batch), solver, options).g_phi
