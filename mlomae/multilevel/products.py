"""Second derivatives as products with vectors, exact and without storing a matrix.

    hessian_vector    (∂²f/∂x²) u
    mixed_product     −(∂²L_I/∂φ∂θ) v, the last factor of every hypergradient: it turns θ-shaped v into φ-shaped g_φ
    patch_influence   ⟨∂rec_i/∂θ, v⟩ of every patch i

Each is forward mode: the derivative along the vector of a gradient, or of the errors themselves.
Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128, which approximates the mixed product by finite differences.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mlomae.common.precision import full_precision, twice_differentiable

from .params import Batch, Params, constants, fill, leaves, scale, sum_over_chunks
from .problem import ThreeLevelProblem


def hessian_vector(loss: Callable[[Params], Tensor], at: Params, u: Params) -> Params:
    """``(∂²loss/∂x²) u`` at ``x = at``; ``u`` has the keys of ``at``, and so has the result.

    ``torch.func.jvp`` along ``u`` of ``torch.func.grad``; no graph outlives the call.
    """
    with torch.no_grad(), twice_differentiable():
        product: Params = torch.func.jvp(torch.func.grad(loss), (constants(at),), (constants(u),))[1]
    return product


def mixed_product(
    problem: ThreeLevelProblem,
    theta: Params,
    phi: Params,
    v: Params,
    lower_batch: Batch,
    *,
    chunks: int = 1,
) -> Params:
    """``−(∂²L_I/∂φ∂θ) v`` as a dict like φ: forward over reverse, the derivative along ``v`` of the gradient in φ.

    The mask is constant and the reconstruction error does not depend on φ, so the reverse part runs through the
    masking network alone: the autoencoder is traversed once, forward, with tangents, and no graph of it is built.
    Torch's own forward mode does it, without functional transforms, which cost time at every operation.

    Args:
        v: tangent on θ; entries of θ missing from it are constants, which saves the tangent arithmetic there.
        lower_batch: the batch of L_I, its mask frozen (``ThreeLevelProblem.fix``).
        chunks: equal parts of the batch taken one after the other and averaged.

    The caller may be inside ``torch.autocast``: ``v`` and the result keep the dtype of the parameters.

    Raises:
        ConfigError: the batch does not divide into ``chunks`` parts.
    """
    constant, phi = constants(theta), leaves(phi)
    tangent = _tangent(v, constant)

    def derivative(part: Batch) -> Params:
        """``(∂²L_I/∂φ∂θ) v``; entries of φ on which it does not depend are left out."""
        with torch.enable_grad(), twice_differentiable(), forward_ad.dual_level():
            moving = {k: forward_ad.make_dual(constant[k], t) for k, t in tangent.items()}  # type: ignore[no-untyped-call]
            loss = problem.lower({**constant, **moving}, phi, part)
            with full_precision(loss.device):  # in a GPU's autocast the tangent of GELU's derivative is float32
                found = torch.autograd.grad(loss, list(phi.values()), allow_unused=True) if loss.requires_grad else ()
            pairs = {k: g for k, g in zip(phi, found, strict=False) if g is not None}
            tangents = {k: forward_ad.unpack_dual(g).tangent for k, g in pairs.items()}  # type: ignore[no-untyped-call]
        return {k: t.detach() for k, t in tangents.items() if t is not None}

    total = sum_over_chunks(derivative, lower_batch, chunks) if phi and v else {}
    return fill(scale(-1.0 / chunks, total), phi)


def patch_influence(errors: Callable[[Params, Batch], Tensor], theta: Params, v: Params, batch: Batch) -> Tensor:
    """``I_i = ⟨∂rec_i/∂θ, v⟩``, of the shape of ``errors(θ, batch)``, e.g. (B, L); outside every graph.

    A lower step on Σ_i w_i rec_i moves θ by −η Σ_i w_i ∂rec_i/∂θ, so raising the weight w_i changes L_III by −η I_i to
    first order: a positive influence says that more weight on patch i lowers the upper loss. The hypergradient is the
    same quantity passed on to φ: g_φ = −Σ_i (∂w_i/∂φ) I_i. One forward-mode pass gives all patches of a batch.

    ``errors`` is a pure function of θ with the mask of ``batch`` frozen. Entries of θ missing from ``v`` do not move.
    Source: influence functions (Koh and Liang, ICML 2017) with the identity for the inverse Hessian.
    """
    constant = constants(theta)
    if not v:
        with torch.no_grad():
            return torch.zeros_like(errors(constant, batch))
    tangent = _tangent(v, constant)
    moving = {k: constant[k] for k in v}
    with torch.no_grad(), twice_differentiable():
        influence: Tensor = torch.func.jvp(lambda m: errors({**constant, **m}, batch), (moving,), (tangent,))[1]
    return influence


def _tangent(v: Params, theta: Params) -> Params:
    """``v`` outside every graph and in the dtype of the parameters it belongs to."""
    return {k: t.detach().to(theta[k].dtype) for k, t in v.items()}
