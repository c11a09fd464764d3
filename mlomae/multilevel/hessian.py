"""Hessian-vector products, forward over reverse: ``H u`` is the derivative of the gradient along ``u``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .modes import twice_differentiable
from .params import Params, constants


def hessian_vector(loss: Callable[[Params], Tensor], at: Params, u: Params) -> Params:
    """``(∂²loss/∂x²) u`` at ``x = at``; ``u`` has the keys of ``at``, and so has the result.

    ``torch.func.jvp`` along ``u`` of ``torch.func.grad``; no graph outlives the call.
    """
    with torch.no_grad(), twice_differentiable():
        product: Params = torch.func.jvp(torch.func.grad(loss), (constants(at),), (constants(u),))[1]
    return product
