"""The mixed product, which turns a θ-shaped vector into a φ-shaped one.

    g_φ = −(∂²L_I/∂φ∂θ) v

Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128, where it is approximated by finite differences; here it is
exact, forward over reverse: the derivative along ``v`` of the gradient with respect to φ. The mask is constant and
the reconstruction error does not depend on φ, so the reverse part runs through the masking network alone: the
autoencoder is traversed once, forward, carrying tangents, and no graph of it is built. Torch's own forward mode does
it, without functional transforms, which cost time at every operation.
"""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

from .batches import Batch, split_batch
from .modes import twice_differentiable
from .params import Params, axpy, constants, fill, leaves, scale
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
    constant, phi = constants(theta), leaves(phi)
    tangent = {k: t.detach().to(constant[k].dtype) for k, t in v.items()}
    total: Params = {}
    if phi and v:
        for part in split_batch(lower_batch, chunks):
            total = axpy(1.0, _derivative_of_gradient(problem, constant, tangent, phi, part), total)
    return fill(scale(-1.0 / chunks, total), phi)


def _derivative_of_gradient(problem: ThreeLevelProblem, theta: Params, v: Params, phi: Params, batch: Batch) -> Params:
    """``(∂²L_I/∂φ∂θ) v``; entries of φ on which it does not depend are left out."""
    with torch.enable_grad(), twice_differentiable(), forward_ad.dual_level():
        moving = {k: forward_ad.make_dual(theta[k], t) for k, t in v.items()}  # type: ignore[no-untyped-call]
        loss = problem.lower({**theta, **moving}, phi, batch)
        found = torch.autograd.grad(loss, list(phi.values()), allow_unused=True) if loss.requires_grad else ()
        pairs = {k: g for k, g in zip(phi, found, strict=False) if g is not None}
        tangents = {k: forward_ad.unpack_dual(g).tangent for k, g in pairs.items()}  # type: ignore[no-untyped-call]
    return {k: t.detach() for k, t in tangents.items() if t is not None}
