"""Influence of every masked patch: what the upper loss would gain if the lower level cared more for that patch.

    I_i = ⟨∂rec_i/∂θ, v⟩

A lower step on Σ_i w_i rec_i moves θ by −η Σ_i w_i ∂rec_i/∂θ, so raising the weight w_i changes L_III by −η I_i to
first order: a positive influence says that more weight on patch i lowers the upper loss. The hypergradient is the same
quantity carried on to φ: g_φ = −Σ_i (∂w_i/∂φ) I_i. One forward-mode pass gives all patches of a batch.

Source: the response vector of MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128; read as an influence (Koh and Liang,
ICML 2017) with the identity for the inverse Hessian.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .batches import Batch
from .modes import twice_differentiable
from .params import Params, constants


def patch_influence(errors: Callable[[Params, Batch], Tensor], theta: Params, v: Params, batch: Batch) -> Tensor:
    """``⟨∂errors/∂θ, v⟩``, of the shape of ``errors(θ, batch)``, (B, L) say; outside every graph.

    ``errors`` is a pure function of θ with the mask of ``batch`` frozen. Entries of θ missing from ``v`` do not move.
    """
    constant = constants(theta)
    moving = {k: constant[k] for k in v}
    tangent = {k: t.detach().to(constant[k].dtype) for k, t in v.items()}
    if not v:
        with torch.no_grad():
            return torch.zeros_like(errors(constant, batch))
    with torch.no_grad(), twice_differentiable():
        influence: Tensor = torch.func.jvp(lambda m: errors({**constant, **m}, batch), (moving,), (tangent,))[1]
    return influence
