"""The response vector: how the upper loss changes with θ, directly and through the head's best response.

    v = ∂L_III/∂θ − (∂²L_II/∂θ∂ω) q,   q = H_ωω⁻¹ ∂L_III/∂ω,   H_ωω = ∂²L_II/∂ω²

A feedback without parameters (``ThreeLevelProblem.joint_loss``) has v = ∂J/∂θ through the features of both batches:
the part through z_upper is the direct path, the part through z_head is the head's.

With the identity for H_ωω⁻¹ this is the one-step approximation of MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

from torch import Tensor

from mlomae.errors import ConfigError

from .batches import Batch
from .encoder import pull_back
from .hessian import hessian_vector
from .modes import no_autocast_cache
from .params import Params, Reduce, constants, dot, fill, gradient, keep, leaves
from .problem import ThreeLevelProblem

Paths: TypeAlias = Literal["both", "direct", "head"]
LinearSolver: TypeAlias = Callable[[Callable[[Params], Params], Params], Params]


class Response(NamedTuple):
    """``v`` on the entries of θ that the features use, and L_III where it was taken (0-dim, detached, this rank)."""

    v: Params
    loss_upper: Tensor


def identity(product: Callable[[Params], Params], b: Params) -> Params:
    """The linear solver that takes the Hessian for the identity: ``x = b``."""
    return b


def check_paths(paths: str, omega: Params, problem: ThreeLevelProblem, head_batch: Batch) -> None:
    """Raise ConfigError for an unknown choice of paths, for the head's path where the head has no parameters, and for
    a joint loss with parameters or without a head batch."""
    if paths not in get_args(Paths):
        raise ConfigError(f"paths={paths!r} is unknown: choose one of {', '.join(get_args(Paths))}")
    if problem.joint_loss is not None:
        if omega:
            raise ConfigError("a problem with joint_loss has no head to train: omega must be {}")
        if head_batch is None:
            raise ConfigError("a problem with joint_loss needs a head batch beside the upper batch")
    elif paths == "head" and not omega:
        raise ConfigError("paths='head' needs a head with parameters: this one has none")


def joint_value(
    problem: ThreeLevelProblem, z_head: Tensor, z_upper: Tensor, head_batch: Batch, upper_batch: Batch, paths: str
) -> Tensor:
    """J(z_head, z_upper), of which ``direct`` holds z_head constant and ``head`` z_upper."""
    assert problem.joint_loss is not None
    z_head = z_head.detach() if paths == "direct" else z_head
    z_upper = z_upper.detach() if paths == "head" else z_upper
    return problem.joint_loss(z_head, z_upper, head_batch, upper_batch)


def respond(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    head_batch: Batch,
    upper_batch: Batch,
    *,
    inverse_head: LinearSolver = identity,
    reduce: Reduce | None = None,
    chunks: int = 1,
    paths: Paths = "both",
) -> Response:
    """``response_vector`` without the zeros, together with the value of L_III."""
    check_paths(paths, omega, problem, head_batch)
    average = reduce or keep
    joint = problem.joint_loss is not None
    through_head = bool(omega) and paths != "direct"
    omega = leaves(omega)
    upper: list[Tensor] = []

    def scalar(*z: Tensor) -> Tensor:
        if joint:
            value = joint_value(problem, z[0], z[1], head_batch, upper_batch, paths)
            upper.append(value.detach())
            return value
        loss_upper = problem.head_loss(omega, z[-1], upper_batch)
        upper.append(loss_upper.detach())
        if not through_head:
            return loss_upper
        # Averaged before it multiplies the mixed derivative: the mean of products is not the product of means.
        g_omega = average(gradient(loss_upper, omega))
        frozen = z[0].detach()
        q = inverse_head(
            lambda u: average(hessian_vector(lambda o: problem.head_loss(o, frozen, head_batch), omega, u)), g_omega
        )
        loss_head = problem.head_loss(omega, z[0], head_batch)
        inner = dot(gradient(loss_head, omega, create_graph=True), constants(q))
        return loss_upper - inner if paths == "both" else -inner

    batches = [head_batch, upper_batch] if through_head or joint else [upper_batch]
    with no_autocast_cache():
        v = average(pull_back(problem, theta, batches, scalar, chunks))
    return Response(v, upper[0])


def response_vector(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    head_batch: Batch,
    upper_batch: Batch,
    *,
    inverse_head: LinearSolver = identity,
    reduce: Reduce | None = None,
    chunks: int = 1,
    paths: Paths = "both",
) -> Params:
    """``v`` as a dict like θ, zeros where the features do not use an entry (the decoder's).

    One encoder forward on the head and upper batches together and one backward; the head is differentiated twice, in
    full precision. With ω = {} only the direct path exists and ``head_batch`` may be None; a joint loss, which has no ω
    either, is differentiated once, through the features of both batches.

    Args:
        inverse_head: (Hessian-vector product, g) → H_ωω⁻¹ g.
        reduce: averages a dict over data-parallel ranks. With a joint loss that is the mean of the ranks' own
            dJ/dθ, each of its own pair of batches; one process on the concatenated batches finds something else.
        chunks: parts in which the encoder pass is recomputed, for memory; the result is the same.
        paths: ``direct`` keeps the first term of ``v``, ``head`` the second, ``both`` their sum.

    Raises:
        ConfigError: unknown ``paths``; ``paths='head'`` with ω = {}; batches that cannot be joined or split; a joint
            loss with ω or without a head batch.
    """
    found = respond(
        problem,
        theta,
        omega,
        head_batch,
        upper_batch,
        inverse_head=inverse_head,
        reduce=reduce,
        chunks=chunks,
        paths=paths,
    )
    return fill(found.v, theta)
