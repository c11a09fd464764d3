"""Counting floating-point operations: every matrix product and convolution; a multiply-add is two."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def _attention(query_BHNd: Tensor, key_BHMd: Tensor) -> int:
    """Of queries with keys, and of weights with values."""
    return 4 * math.prod(query_BHNd.shape) * key_BHMd.shape[2]


_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,  # which has the attention of CUDA devices alone
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, *_, **__: _attention(query, key),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda _, query, key, *__, **___: (
        2 * _attention(query, key)
    ),
}


class FlopCounter(TorchDispatchMode):
    """torch's own formulas for matrix products and convolutions, summed over all that runs.

    `FlopCounterMode` adds hooks on modules that some uses of ``autograd.grad`` refuse; the formulas are the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = _FORMULAS.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def count_flops(step: Callable[[], object]) -> int:
    """Operations of one call, those inside attention included."""
    with FlopCounter() as counter, sdpa_kernel(SDPBackend.MATH):
        step()
    return counter.total
