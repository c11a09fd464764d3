"""A running average of the response vector v over outer iterations: one batch's v is mostly noise.

    a_t = β a_{t−1} + (1 − β) v_t,   v̄_t = a_t / (1 − β^t)

The division makes the first average v itself (as in Adam, Kingma and Ba, ICLR 2015). The state is in buffers, which
checkpoints carry, so that a resumed run goes on with the same bits; nothing waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningAverage(nn.Module):
    """``average(v)`` takes v_t and returns v̄_t, a dict with the keys of v; β = ``momentum``, ``like`` its tensors."""

    steps: Tensor

    def __init__(self, like: dict[str, Tensor], momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        for name, t in like.items():
            self.register_buffer(self._buffer(name), torch.zeros_like(t, requires_grad=False))

    @staticmethod
    def _buffer(name: str) -> str:
        return name.replace(".", "/")  # a buffer's name may not contain dots

    @torch.no_grad()
    def forward(self, v: dict[str, Tensor]) -> dict[str, Tensor]:
        self.steps += 1
        weight = 1.0 - torch.pow(self.momentum, self.steps.double())
        averages = {}
        for name, t in v.items():
            a = self.get_buffer(self._buffer(name))
            a.lerp_(t.to(a.dtype), 1.0 - self.momentum)
            averages[name] = a / weight.to(a.dtype)
        return averages
