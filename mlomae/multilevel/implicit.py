"""Implicit differentiation of both best responses, with the linear solvers as arguments.

    g_φ = e − (∂²L_I/∂φ∂θ) H_θθ⁻¹ v,   v = ∂L_III/∂θ − (∂²L_II/∂θ∂ω) H_ωω⁻¹ ∂L_III/∂ω
                                        e = ∂L_III/∂φ − (∂²L_II/∂φ∂ω) H_ωω⁻¹ ∂L_III/∂ω

e exists only if features are pooled by the scores of φ (``ThreeLevelProblem.pool``).

Solvers differ only in what stands for the two inverses. Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128
(identity); Lorraine et al., AISTATS 2020 (Neumann series, conjugate gradients).
"""

from mlomae.common.precision import no_autocast_cache

from .batches import Batch, sum_over_chunks
from .encoder import Encoded
from .params import Params, Reduce, axpy, constants, fill, scale
from .problem import Point
from .products import hessian_vector, mixed_product
from .registry import Hypergradient
from .response import LinearSolver, identity, respond


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
        smooth: replaces v, averaged over ranks, by another vector with its keys (a running average over outer
            iterations).
        rate: factor of the part through θ. Next to e the length of the lower step matters, which the identity for
            H_θθ⁻¹ sets to 1.
        encoded_head: the head batch as ``encode`` returned it at this θ, so that steps on ω and the response share one
            encoder pass.

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
