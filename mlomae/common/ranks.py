"""Losses that couple the images of a batch, under data parallelism: gather, then compute the loss of the global batch.

Every rank computes the same J(z_1, ..., z_N) of the features of all N ranks, and gradients are averaged over ranks.
So that the average is dJ/dθ = Σ_r (∂z_r/∂θ)ᵀ ∂J/∂z_r, a rank's own part of the backward pass is multiplied by N:

    gather(z_r) = (z_1, ..., z_N),    backward: c ↦ N·c_r,    tangents: gather(ż_r)

Backward and forward mode are not adjoint: nothing is sent backwards, because every rank knows the whole of c, while a
tangent of z_s changes J on all ranks. So Hessian-vector products average to those of the global batch, too.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def process_count() -> int:
    """Number of data-parallel processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks, (N·B, ...) from (B, ...), in rank order, differentiable as above; ``x`` if there is one.

    All ranks have equally many rows, and all must call it, forward and in forward mode, equally often.
    """
    if process_count() == 1:
        return x
    if not x.is_floating_point():
        return _all(x)
    gathered: Tensor = _Gather.apply(x)
    return gathered


def _all(x: Tensor) -> Tensor:
    x = x.contiguous()
    parts = [torch.empty_like(x) for _ in range(process_count())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return _all(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.rows = len(inputs[0])

    @staticmethod
    def backward(ctx: Any, c: Tensor) -> Tensor:
        return process_count() * c.narrow(0, dist.get_rank() * ctx.rows, ctx.rows)

    @staticmethod
    def jvp(ctx: Any, x: Tensor) -> Tensor:
        return gather(x)
