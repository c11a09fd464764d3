"""Implicit differentiation of both best responses, with the linear solvers as arguments.

    g_φ = e − (∂²L_I/∂φ∂θ) H_θθ⁻¹ v,   v = ∂L_III/∂θ − (∂²L_II/∂θ∂ω) H_ωω⁻¹ ∂L_III/∂ω
                                        e = ∂L_III/∂φ − (∂²L_II/∂φ∂ω) H_ωω⁻¹ ∂L_III/∂ω

e is there only where φ weighs the features of the feedback (``ThreeLevelProblem.attend``).

Solvers differ only in what stands for the two inverses. Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128
(identity); Lorraine et al., AISTATS 2020 (Neumann series, conjugate gradients).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from torch import Tensor

from .batches import Batch, split_batch
from .encoder import Encoded
from .hessian import hessian_vector
from .mixed import mixed_product
from .modes import no_autocast_cache
from .params import Params, Reduce, axpy, constants, fill, keep, scale
from .problem import ThreeLevelProblem
from .response import LinearSolver, Paths, identity, respond


class Hypergradient(NamedTuple):
    """``g_phi``, a dict like φ, and L_III where it was taken (0-dim, detached, this rank's)."""

    g_phi: Params
    loss_upper: Tensor


def implicit(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    phi: Params,
    *,
    lower_batch: Batch,
    head_batch: Batch,
    upper_batch: Batch,
    solve_lower: LinearSolver,
    solve_head: LinearSolver,
    reduce: Reduce | None = None,
    smooth: Reduce | None = None,
    chunks: int = 1,
    paths: Paths = "both",
    rate: float = 1.0,
    encoded_head: Encoded | None = None,
) -> Hypergradient:
    """The hypergradient with ``solve_lower`` for H_θθ⁻¹ and ``solve_head`` for H_ωω⁻¹.

    A linear solver maps (Hessian-vector product, b) to an approximation of H⁻¹ b. ``reduce`` averages over ranks:
    every vector is averaged before it enters the next product. ``smooth`` replaces v, averaged over ranks, by another
    vector with its keys (a running average over outer iterations). ``chunks`` and ``paths`` are as in
    ``response_vector``. ``rate`` multiplies the part through θ: beside e the length of the lower step matters, which
    the identity for H_θθ⁻¹ sets to 1. ``encoded_head`` is the head batch as ``encode`` returned it at this θ, so that
    steps on ω and the response share one encoder pass.

    Raises:
        ConfigError: unknown ``paths``; batches that do not divide into ``chunks``.
    """
    average = reduce or keep
    v, explicit, loss_upper = respond(
        problem,
        theta,
        omega,
        head_batch,
        upper_batch,
        phi=phi,
        inverse_head=solve_head,
        reduce=reduce,
        chunks=chunks,
        paths=paths,
        encoded_head=encoded_head,
    )
    if smooth is not None:
        v = smooth(v)
    with no_autocast_cache():
        if solve_lower is not identity:  # H_θθ couples all of θ, so the entries that are zero in v are needed too
            v = solve_lower(lambda u: average(_curvature(problem, theta, phi, lower_batch, u, chunks)), fill(v, theta))
        g_phi = axpy(rate, mixed_product(problem, theta, phi, v, lower_batch, chunks=chunks), explicit)
    return Hypergradient(average(g_phi), loss_upper)


def _curvature(problem: ThreeLevelProblem, theta: Params, phi: Params, batch: Batch, u: Params, chunks: int) -> Params:
    """``H_θθ u`` of L_I, averaged over equal chunks of the batch."""
    fixed = constants(phi)
    total: Params = {}
    for part in split_batch(batch, chunks):
        product = hessian_vector(partial(_lower, problem, fixed, part), theta, u)
        total = axpy(1.0, product, total)
    return scale(1.0 / chunks, total)


def _lower(problem: ThreeLevelProblem, phi: Params, batch: Batch, theta: Params) -> Tensor:
    return problem.lower(theta, phi, batch)
