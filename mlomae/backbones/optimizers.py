"""Optimizers of a transfer: AdamW, SGD or LARS over layer-decay groups, in a wrapper that averages gradients itself.

As in pretraining, nothing is wrapped for data parallelism: the mean over ranks is taken before the step, so that N
processes make the update of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.optim import OptimWrapper
from timm.optim import Lars
from torch import nn

from mlomae.backbones.config import OptimConfig
from mlomae.pretraining.levels import mean_over_ranks
from mlomae.pretraining.precision import require_bf16


class AveragingWrapper(OptimWrapper):
    """Averages the gradients over ranks before clipping and stepping; opens bf16 autocast if ``amp`` is "bf16"."""

    def __init__(self, optimizer: torch.optim.Optimizer, amp: str = "none", clip_grad: float | None = None) -> None:
        super().__init__(optimizer, clip_grad={"max_norm": clip_grad} if clip_grad else None)
        self.amp = amp

    def step(self, **kwargs: Any) -> None:
        held = {f"{g}.{i}": p for g, group in enumerate(self.param_groups) for i, p in enumerate(group["params"])}
        with_grad = {name: p for name, p in held.items() if p.grad is not None}
        means = mean_over_ranks({name: p.grad for name, p in with_grad.items()})
        for name, p in with_grad.items():
            p.grad = means[name]
        super().step(**kwargs)

    def check_autocast(self, layer: nn.Linear) -> None:
        """Raise TrainingError if mixed precision was asked for but ``layer`` does not compute in bf16."""
        if self.amp != "none":
            require_bf16(layer, self.optim_context(layer))

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.amp == "bf16"):
            yield


def build_optimizer(groups: list[dict[str, Any]], settings: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer that ``settings.type`` names, over groups with rates of their own.

    LARS scales the step of matrices alone, as MAE's main_linprobe.py does; timm's would leave out all of them where
    ``weight_decay`` is 0, which it is there.
    """
    if settings.type == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=tuple(settings.betas), fused=True)
    if settings.type == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    adapted = [{**group, "always_adapt": all(p.ndim > 1 for p in group["params"])} for group in groups]
    return Lars(adapted, lr=settings.lr, momentum=settings.momentum)


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Give all ranks the mean of the module's running statistics: they evaluate, and resume, with the same."""
    if get_world_size() == 1:
        return
    held = {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
    for name, mean in mean_over_ranks(held).items():
        held[name].copy_(mean)
