"""Implicit differentiation of both best responses, with the linear solvers as arguments.

    g_φ = e − (∂²L_I/∂φ∂θ) H_θθ⁻¹ v,   v = ∂L_III/∂θ − (∂²L_II/∂θ∂ω) q,   q = H_ωω⁻¹ ∂L_III/∂ω
                                        e = ∂L_III/∂φ − (∂²L_II/∂φ∂ω) q

v is the response vector: how the upper loss changes with θ, directly and through the head's best response. Solvers
differ only in how they approximate the two inverses.

A feedback without parameters (``ThreeLevelProblem.joint_loss``) has v = ∂J/∂θ through the features of both batches:
the part through z_upper is the direct path, the part through z_head is the head's. If features are pooled by the scores
of φ (``ThreeLevelProblem.pool``), the same scalar has a gradient in φ at fixed θ, the explicit part of g_φ; leaving out
a path leaves out its explicit part, too.

Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128 (the identity for both inverses); Lorraine et al., AISTATS
2020 (Neumann series, conjugate gradients).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from torch import Tensor

from mlomae.common.errors import ConfigError
from mlomae.common.precision import no_autocast_cache

from .encoder import Encoded, pull_back
from .params import Batch, Params, Reduce, axpy, constants, dot, fill, gradient, leaves, scale, sum_over_chunks
from .problem import Hypergradient, Point
from .products import hessian_vector, mixed_product

LinearSolver: TypeAlias = Callable[[Callable[[Params], Params], Params], Params]


class Response(NamedTuple):
    """``v`` on the entries of θ that the features use, averaged over ranks; ``explicit``, this rank's gradient in φ at
    fixed θ and ω ({} without ``pool``); L_III at this point (0-dim, detached, this rank's)."""

    v: Params
    explicit: Params
    loss_upper: Tensor


def identity(product: Callable[[Params], Params], b: Params) -> Params:
    """The linear solver that replaces the Hessian by the identity: ``x = b``."""
    return b


def joint_value(at: Point, z_head: Tensor, z_upper: Tensor) -> Tensor:
    """J(z_head, z_upper), of which ``direct`` holds z_head constant and ``head`` z_upper."""
    assert at.problem.joint_loss is not None
    z_head = z_head.detach() if at.paths == "direct" else z_head
    z_upper = z_upper.detach() if at.paths == "head" else z_upper
    return at.problem.joint_loss(z_head, z_upper, at.head_batch, at.upper_batch)


def respond(at: Point, inverse_head: LinearSolver = identity, encoded_head: Encoded | None = None) -> Response:
    """v without the entries of θ that the features do not use, with the explicit gradient in φ and the value of L_III.

    One encoder forward on the head and upper batches together and one backward; the head is differentiated twice, in
    full precision. With ω = {} only the direct path exists; a joint loss is differentiated once, through both features.

    Args:
        inverse_head: (Hessian-vector product, g) → H_ωω⁻¹ g.
        encoded_head: the head batch as ``encode`` returned it at this θ: its encoder pass is not repeated.

    Raises:
        ConfigError: batches that cannot be joined or split; a problem with ``pool`` and no φ.
    """
    if at.problem.pool is not None and not at.phi:
        raise ConfigError("a problem with pool needs phi: the masking network weights the features")
    at = replace(at, phi=leaves(at.phi if at.problem.pool is not None else {}))
    through_head = at.problem.joint_loss is not None or (at.omega and at.paths != "direct")
    batches = [at.head_batch, at.upper_batch] if through_head else [at.upper_batch]
    shared = encoded_head if len(batches) == 2 else None
    problem, omega, average = at.problem, leaves(at.omega), at.average

    def scalar(*z: Tensor) -> tuple[Tensor, Tensor]:
        """Of z_head and z_upper, or of z_upper alone without the head's path: a value whose gradient in the features
        leads to v, and in φ is the explicit part of g_φ; and L_III, detached."""
        z_upper = problem.pooled(at.theta, at.phi, z[-1], at.upper_batch)
        z_head = problem.pooled(at.theta, at.phi, z[0], at.head_batch) if len(z) > 1 else None
        if problem.joint_loss is not None:
            assert z_head is not None
            value = joint_value(at, z_head, z_upper)
            return value, value.detach()
        loss_upper = problem.head_loss(omega, z_upper, at.upper_batch)
        if z_head is None:
            return loss_upper, loss_upper.detach()
        # Averaged before it multiplies the mixed derivative: the mean of products is not the product of means.
        g_omega = average(gradient(loss_upper, omega))
        frozen = z_head.detach()
        q = inverse_head(
            lambda u: average(hessian_vector(lambda o: problem.head_loss(o, frozen, at.head_batch), omega, u)), g_omega
        )
        loss_head = problem.head_loss(omega, z_head, at.head_batch)
        inner = dot(gradient(loss_head, omega, create_graph=True), constants(q))
        return (loss_upper - inner if at.paths == "both" else -inner), loss_upper.detach()

    with no_autocast_cache():
        found, explicit, loss_upper = pull_back(problem, at.theta, batches, scalar, at.chunks, shared, at.phi)
        v = average(found)
    return Response(v, explicit, loss_upper)


def implicit(
    at: Point,
    solve_lower: LinearSolver,
    solve_head: LinearSolver,
    *,
    smooth: Reduce | None = None,
    rate: float = 1.0,
    encoded_head: Encoded | None = None,
) -> Hypergradient:
    """The hypergradient with ``solve_lower`` for H_θθ⁻¹ and ``solve_head`` for H_ωω⁻¹.

    Args:
        solve_lower, solve_head: (Hessian-vector product, b) → an approximation of H⁻¹ b.
        smooth: replaces v, averaged over ranks, by a vector with its keys (a running average over outer iterations).
        rate: factor of the part through θ. Added to e, the length of the lower step matters, 1 for the identity.
        encoded_head: the head batch as ``encode`` returned it at this θ, to share the encoder pass of the steps on ω.

    Raises:
        ConfigError: batches that do not divide into ``at.chunks``.
    """
    v, explicit, loss_upper = respond(at, solve_head, encoded_head)
    if smooth is not None:
        v = smooth(v)
    with no_autocast_cache():
        if solve_lower is not identity:  # H_θθ couples all of θ, so the entries that are zero in v are needed too
            v = solve_lower(lambda u: at.average(_curvature(at, u)), fill(v, at.theta))
        through_theta = mixed_product(at.problem, at.theta, at.phi, v, at.lower_batch, chunks=at.chunks)
        g_phi = axpy(rate, through_theta, explicit)
    return Hypergradient(at.average(g_phi), loss_upper)


def _curvature(at: Point, u: Params) -> Params:
    """``H_θθ u`` of L_I, averaged over equal chunks of the batch."""
    phi = constants(at.phi)

    def product(part: Batch) -> Params:
        return hessian_vector(lambda theta: at.problem.lower(theta, phi, part), at.theta, u)

    return scale(1.0 / at.chunks, sum_over_chunks(product, at.lower_batch, at.chunks))
