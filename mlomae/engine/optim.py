"""Optimizers and schedules of the three levels: AdamW, no decay on vectors, warm-up then cosine over the whole run."""

from __future__ import annotations

from typing import Any

from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor
from torch.optim import AdamW

from mlomae.config import OptimConfig, PretrainConfig


def parameter_groups(parameters: dict[str, Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Two AdamW groups: matrices decay; biases, norms and the class and mask tokens do not (MAE's recipe)."""
    decay = [p for n, p in parameters.items() if p.ndim > 1 and not n.endswith("_token")]
    plain = [p for n, p in parameters.items() if p.ndim <= 1 or n.endswith("_token")]
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


class LevelOptimizers(OptimWrapperDict):
    """One optimizer a level; reports a single rate for each (MMEngine adds the base rate, which equals it here)."""

    def get_lr(self) -> dict[str, list[float]]:
        return {name: rate for name, rate in super().get_lr().items() if not name.endswith("base_lr")}


def build_optimizers(levels: dict[str, dict[str, Tensor]], config: PretrainConfig) -> OptimWrapperDict:
    """One AdamW a level that has parameters, in MMEngine's wrappers, which hooks read the learning rates from."""
    wrappers = {}
    for level, parameters in levels.items():
        if parameters:
            settings = config.optim[level]
            groups = parameter_groups(parameters, settings.weight_decay)
            wrappers[level] = OptimWrapper(AdamW(groups, lr=settings.lr, betas=tuple(settings.betas), fused=True))
    return LevelOptimizers(**wrappers)


def schedule(settings: OptimConfig, outer_iterations: int, begin: int = 0) -> list[dict[str, Any]]:
    """MMEngine schedulers of one level, one step an outer iteration; the last iteration runs at ``min_lr``.

    Iteration t of w warm-up iterations runs at lr·(t + 1)/(w + 1), so iteration w is the first at the full rate.
    A level that is left alone until ``begin`` has its whole schedule after it.
    """
    length = outer_iterations - begin
    warmup = min(round(settings.warmup * length), length - 1)
    stages: list[dict[str, Any]] = []
    if warmup:
        stages.append(
            {
                "type": "LinearLR",
                "start_factor": 1.0 / (warmup + 1),
                "by_epoch": False,
                "begin": begin,
                "end": begin + warmup + 1,
            }
        )
    stages.append(
        {
            "type": "CosineAnnealingLR",
            "eta_min": settings.min_lr,
            "by_epoch": False,
            "begin": begin + warmup,
            "end": outer_iterations,
            "T_max": max(1, length - warmup - 1),
        }
    )
    return stages
