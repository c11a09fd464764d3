"""Optimizers and schedules of the three levels: AdamW, no decay on vectors, warm-up then cosine over the whole run."""

from __future__ import annotations

import math
from typing import Any, Protocol

from mmengine.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from torch import Tensor
from torch.optim import AdamW

from mlomae.config.schema import PretrainConfig


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


def warmup_steps(fraction: float, length: int) -> int:
    """w of a schedule over ``length`` iterations."""
    return min(round(fraction * length), length - 1)


@PARAM_SCHEDULERS.register_module()
class DeferredLR(_ParamScheduler):
    """The rule of `schedule` for a level whose first iteration, ``start``, is only known while it trains.

    In closed form, so that the rate is a function of (iteration, start) alone, through a resume too: ``start`` is part
    of the state. -1 is not known yet; until the start the rate is 0.
    """

    def __init__(self, optimizer: Any, warmup: float, min_lr: float, end: int, by_epoch: bool = False) -> None:
        self.warmup, self.min_lr, self.start = warmup, min_lr, -1
        super().__init__(optimizer, "lr", end=end, by_epoch=by_epoch)

    def rate(self, t: int, lr: float) -> float:
        """The rate of outer iteration ``t``, counted from 0; ``lr`` is the peak."""
        if not 0 <= self.start <= t:
            return 0.0
        length = self.end - self.start
        rising = warmup_steps(self.warmup, length)
        after = t - self.start - rising
        if after <= 0:
            return lr * (t - self.start + 1) / (rising + 1)
        progress = after / (length - rising - 1)
        return self.min_lr + (lr - self.min_lr) * (1.0 + math.cos(math.pi * progress)) / 2.0

    def _get_value(self) -> list[float]:
        return [self.rate(self.last_step, lr) for lr in self.base_values]


class Schedule(Protocol):
    """Peak rate, rate at the end, and the warm-up as a fraction of the run."""

    lr: float
    min_lr: float
    warmup: float


def schedule(
    settings: Schedule, outer_iterations: int, begin: int | None = 0, decay: str = "cosine"
) -> list[dict[str, Any]]:
    """MMEngine schedulers of one level, one step an outer iteration; the last iteration runs at ``min_lr``.

    ``decay``, after the warm-up: "cosine" or "linear" from the peak to ``min_lr``, or "steps", a tenth of the peak from
    8/9 and a hundredth from 26/27 of the run on (ViTDet's), whatever ``min_lr``.

    Iteration t of w warm-up iterations runs at lr·(t + 1)/(w + 1), so iteration w is the first at the full rate.
    A level that is left alone until ``begin`` has its whole schedule after it; None is a start not known beforehand.
    """
    if begin is None:
        rule = {"type": "DeferredLR", "warmup": settings.warmup, "min_lr": settings.min_lr}
        return [{**rule, "by_epoch": False, "end": outer_iterations}]
    length = outer_iterations - begin
    warmup = warmup_steps(settings.warmup, length)
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
    falling = max(1, length - warmup - 1)
    span = {"by_epoch": False, "begin": begin + warmup}
    if decay == "steps":
        milestones = [begin + round(length * share) for share in (8 / 9, 26 / 27)]
        stages.append({"type": "MultiStepLR", "by_epoch": False, "milestones": milestones, "gamma": 0.1})
    elif decay == "linear":
        factor = settings.min_lr / settings.lr
        stages.append({**span, "type": "LinearLR", "start_factor": 1.0, "end_factor": factor})
        stages[-1]["end"] = begin + warmup + 1 + falling
    else:
        stages.append({**span, "type": "CosineAnnealingLR", "eta_min": settings.min_lr, "T_max": falling})
        stages[-1]["end"] = outer_iterations
    return stages
