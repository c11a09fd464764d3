"""The check that mixed precision, where it was asked for, is what the layers compute in."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn

from mlomae.common.errors import TrainingError


@torch.no_grad()
def require_bf16(layer: nn.Linear, context: AbstractContextManager[None]) -> None:
    """Raise TrainingError if ``layer``, under the autocast ``context`` of a step, does not compute in bf16."""
    with context:
        dtype = layer(torch.zeros(1, layer.in_features, device=layer.weight.device)).dtype
    if dtype != torch.bfloat16:
        raise TrainingError(f"train.amp='bf16' is not active (layers compute in {dtype}); set train.amp='none'")
