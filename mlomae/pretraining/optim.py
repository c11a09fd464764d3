"""AdamW for each of the three levels, and learning rates: warm-up, then decay over the rest of the run."""

import math
from collections import Counter
from typing import Any, Protocol

from torch import Tensor
from torch.optim import AdamW

from mlomae.config.schema import PretrainConfig


def parameter_groups(parameters: dict[str, Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Two AdamW groups: matrices decay; biases, norms and the class and mask tokens do not (MAE's recipe)."""
    decay = [p for n, p in parameters.items() if p.ndim > 1 and not n.endswith("_token")]
    plain = [p for n, p in parameters.items() if p.ndim <= 1 or n.endswith("_token")]
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizers(levels: dict[str, dict[str, Tensor]], config: PretrainConfig) -> dict[str, AdamW]:
    """One AdamW for each level that has parameters."""
    return {
        level: AdamW(
            parameter_groups(parameters, config.optim[level].weight_decay),
            lr=config.optim[level].lr,
            betas=tuple(config.optim[level].betas),
            fused=True,
        )
        for level, parameters in levels.items()
        if parameters
    }


class Schedule(Protocol):
    """Peak rate, rate at the end, and the warm-up as a fraction of the run."""

    lr: float
    min_lr: float
    warmup: float


def warmup_steps(fraction: float, length: int) -> int:
    """w of a schedule over ``length`` iterations."""
    return min(round(fraction * length), length - 1)


def rates(
    settings: Schedule, iterations: int, begin: int = 0, decay: str = "cosine", peak: float | None = None
) -> list[float]:
    """The learning rate of each iteration of a run.

    Iteration t of w warm-up iterations runs at lr·(t + 1)/(w + 1), so iteration w is the first at the full rate. Then
    ``decay``: "cosine" or "linear" from the peak to ``min_lr`` in the last iteration, or "steps", a tenth of the peak
    from 8/9 and a hundredth from 26/27 of the run on (ViTDet's), whatever ``min_lr``.

    A level that does not train before ``begin`` has its whole schedule after it. ``peak`` is the rate of a group that
    has a share of ``lr`` (layer decay); it ends at the same share of ``min_lr``, as in MAE's ``lr_sched.py``.

    Each rate follows from the one before, as in the schedulers of MMEngine (and torch): closed forms differ in bits.
    """
    rate = settings.lr if peak is None else peak
    ratio = settings.min_lr / settings.lr if settings.lr else 1.0
    floor = settings.min_lr if peak is None else peak * ratio
    length = iterations - begin
    warmup = warmup_steps(settings.warmup, length)
    falling = max(1, length - warmup - 1)
    start = 1.0 / (warmup + 1)
    steps = Counter(round(length * share) for share in (8 / 9, 26 / 27))
    table = [rate] * begin
    for t in range(length):
        k = t - warmup
        if k <= 0 and warmup:
            rate *= 1.0 + (1.0 - start) / (warmup * start + (t - 1) * (1.0 - start)) if t else start
        elif k > 0 and decay == "cosine":
            fall = (1 + math.cos(math.pi * k / falling)) / (1 + math.cos(math.pi * (k - 1) / falling))
            rate = fall * (rate - floor) + floor
        elif k > 0 and decay == "linear":
            rate *= 1.0 + (ratio - 1.0) / (falling + (k - 1) * (ratio - 1.0))
        if decay == "steps":
            rate *= 0.1 ** steps[t]
        table.append(rate)
    return table


def deferred_rate(settings: Schedule, t: int, start: int, iterations: int) -> float:
    """The rate of iteration t for a level whose first iteration, ``start``, is only known while it trains, -1 before.

    The rule of `rates` in closed form; until the start the rate is 0.
    """
    if not 0 <= start <= t:
        return 0.0
    length = iterations - start
    rising = warmup_steps(settings.warmup, length)
    after = t - start - rising
    if after <= 0:
        return settings.lr * (t - start + 1) / (rising + 1)
    progress = after / (length - rising - 1)
    return settings.min_lr + (settings.lr - settings.min_lr) * (1.0 + math.cos(math.pi * progress)) / 2.0
