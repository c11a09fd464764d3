"""The response vector: how the upper loss changes with θ, directly and through the head's best response.

    v = ∂L_III/∂θ − (∂²L_II/∂θ∂ω) q,   q = H_ωω⁻¹ ∂L_III/∂ω,   H_ωω = ∂²L_II/∂ω²

A feedback without parameters (``ThreeLevelProblem.joint_loss``) has v = ∂J/∂θ through the features of both batches:
the part through z_upper is the direct path, the part through z_head is the head's. Where φ weighs the features
(``ThreeLevelProblem.attend``) the same scalar has a gradient in φ at fixed θ, the explicit part of g_φ; a path that is
left out takes its explicit part along.

With the identity for H_ωω⁻¹ this is the one-step approximation of MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

from torch import Tensor

from mlomae.common.errors import ConfigError

from .batches import Batch
from .encoder import Encoded, pull_back
from .hessian import hessian_vector
from .modes import no_autocast_cache
from .params import Params, Reduce, constants, dot, fill, gradient, keep, leaves
from .problem import ThreeLevelProblem

Paths: TypeAlias = Literal["both", "direct", "head"]
LinearSolver: TypeAlias = Callable[[Callable[[Params], Params], Params], Params]


class Response(NamedTuple):
    """``v`` on the entries of θ that the features use, averaged over ranks; ``explicit``, this rank's gradient in φ at
    fixed θ and ω ({} without ``attend``); L_III where it was taken (0-dim, detached, this rank's)."""

    v: Params
    explicit: Params
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


def upper_scalar(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    phi: Params,
    head_batch: Batch,
    upper_batch: Batch,
    inverse_head: LinearSolver,
    average: Reduce,
    paths: Paths,
    upper: list[Tensor],
) -> Callable[..., Tensor]:
    """The function of the features whose gradient is v, and whose gradient in φ is the explicit part of g_φ.

    Its arguments are z_head and z_upper, or z_upper alone where the head's path is not wanted. L_III is appended to
    ``upper``.
    """
    omega = leaves(omega)

    def scalar(*z: Tensor) -> Tensor:
        z_upper = problem.seen(theta, phi, z[-1], upper_batch)
        z_head = problem.seen(theta, phi, z[0], head_batch) if len(z) > 1 else None
        if problem.joint_loss is not None:
            assert z_head is not None
            value = joint_value(problem, z_head, z_upper, head_batch, upper_batch, paths)
            upper.append(value.detach())
            return value
        loss_upper = problem.head_loss(omega, z_upper, upper_batch)
        upper.append(loss_upper.detach())
        if z_head is None:
            return loss_upper
        # Averaged before it multiplies the mixed derivative: the mean of products is not the product of means.
        g_omega = average(gradient(loss_upper, omega))
        frozen = z_head.detach()
        q = inverse_head(
            lambda u: average(hessian_vector(lambda o: problem.head_loss(o, frozen, head_batch), omega, u)), g_omega
        )
        loss_head = problem.head_loss(omega, z_head, head_batch)
        inner = dot(gradient(loss_head, omega, create_graph=True), constants(q))
        return loss_upper - inner if paths == "both" else -inner

    return scalar


def upper_batches(problem: ThreeLevelProblem, omega: Params, head: Batch, upper: Batch, paths: Paths) -> list[Batch]:
    """The batches whose features ``upper_scalar`` takes."""
    through_head = bool(omega) and paths != "direct"
    return [head, upper] if through_head or problem.joint_loss is not None else [upper]


def respond(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    head_batch: Batch,
    upper_batch: Batch,
    *,
    phi: Params | None = None,
    inverse_head: LinearSolver = identity,
    reduce: Reduce | None = None,
    chunks: int = 1,
    paths: Paths = "both",
    encoded_head: Encoded | None = None,
) -> Response:
    """``response_vector`` without the zeros, with the explicit gradient in ``phi`` and the value of L_III.

    ``encoded_head`` is the head batch as ``encode`` returned it at this θ: its encoder pass is not made again.
    """
    check_paths(paths, omega, problem, head_batch)
    if problem.attend is not None and phi is None:
        raise ConfigError("a problem with attend needs phi: the masking network weighs the features")
    average, phi = reduce or keep, leaves(phi if problem.attend is not None and phi is not None else {})
    batches = upper_batches(problem, omega, head_batch, upper_batch, paths)
    upper: list[Tensor] = []
    scalar = upper_scalar(problem, theta, omega, phi, head_batch, upper_batch, inverse_head, average, paths, upper)
    with no_autocast_cache():
        shared = encoded_head if len(batches) == 2 else None
        found, explicit = pull_back(problem, theta, batches, scalar, chunks, shared, phi)
        v = average(found)
    return Response(v, explicit, upper[0])


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
    phi: Params | None = None,
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
        phi: where the problem has ``attend``, the parameters with which features are weighed.

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
        phi=phi,
    )
    return fill(found.v, theta)
