"""The mixed product, which turns a θ-shaped vector into a φ-shaped one.

    g_φ = −(∂²L_I/∂φ∂θ) v

Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128, where it is approximated by finite differences; here it is
exact, forward over reverse: the derivative along ``v`` of the gradient with respect to φ. The mask is constant and
the reconstruction error does not depend on φ, so the reverse part runs through the masking network alone: the
autoencoder is traversed once, forward, carrying tangents, and no graph of it is built.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .batches import Batch, split_batch
from .modes import twice_differentiable
from .params import Params, axpy, constants, fill, scale
from .problem import ThreeLevelProblem


def mixed_product(
    problem: ThreeLevelProblem,
    theta: Params,
    phi: Params,
    v: Params,
    lower_batch: Batch,
    *,
    chunks: int = 1,
) -> Params:
    """``−(∂²L_I/∂φ∂θ) v`` as a dict like φ.

    Args:
        v: tangent on θ; entries of θ missing from it are constants, which spares the tangent arithmetic there.
        lower_batch: the batch of L_I, its mask frozen (``ThreeLevelProblem.fix``).
        chunks: equal parts of the batch taken one after the other and averaged.

    The caller may be inside ``torch.autocast``: ``v`` and the result keep the dtype of the parameters.

    Raises:
        ConfigError: the batch does not divide into ``chunks`` parts.
    """
    constant, phi = constants(theta), constants(phi)
    moving = {k: constant[k] for k in v}
    tangent = {k: t.detach().to(constant[k].dtype) for k, t in v.items()}
    total: Params = {}
    if phi and v:
        for part in split_batch(lower_batch, chunks):
            with torch.no_grad(), twice_differentiable():
                product: Params = torch.func.jvp(_gradient_phi(problem, constant, phi, part), (moving,), (tangent,))[1]
            total = axpy(1.0, product, total)
    return fill(scale(-1.0 / chunks, total), phi)


def _gradient_phi(
    problem: ThreeLevelProblem, constant: Params, phi: Params, batch: Batch
) -> Callable[[Params], Params]:
    """θ ↦ ∂L_I/∂φ, for the entries of θ that move."""

    def gradient_phi(moving: Params) -> Params:
        theta = {**constant, **moving}
        return dict(torch.func.grad(lambda p: problem.lower(theta, p, batch))(phi))

    return gradient_phi
