"""Whether a number per patch tells objects from background: AUROC, normalised difference of means, t over batches.

Sign: positive influence means that more weight on the patch lowers the upper loss, so **a positive gap, a positive t
and an AUROC above 0.5 say that the feedback asks for objects**.

Shape legend: B images, L patches, n batches.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.stats import rankdata
from torch import Tensor

from mlomae.common.errors import DataError


class Separation(NamedTuple):
    """Of one batch: ``gap``, mean over object patches minus mean over background, in standard deviations of all patches
    compared; ``auroc``, the chance that an object patch has the higher number, 0.5 if objects make no difference."""

    gap: float
    auroc: float


class Spread(NamedTuple):
    """``mean`` and sample standard deviation ``sd`` over n batches; ``t`` = (mean − null) / (sd / √n).

    ``sd`` and ``t`` are None for one batch, ``t`` also where all batches have the same number.
    """

    mean: float
    sd: float | None
    t: float | None
    batches: int


def auroc(scores: Tensor, is_object: Tensor) -> float:
    """Area under the ROC curve of ``scores`` for finding objects: P(object > background) + P(tie) / 2.

    Args:
        scores, is_object: tensors of one shape, e.g. (B, L); ``is_object`` bool or 0 and 1.

    Computed from ranks, ties by their mean rank (Mann and Whitney, 1947). Raises DataError for a score that is not
    finite, and where there are only objects or only background.
    """
    score, positive = scores.detach().flatten().double().cpu(), is_object.detach().flatten().cpu() > 0
    if score.shape != positive.shape:
        raise DataError(f"AUROC: {tuple(scores.shape)} scores for {tuple(is_object.shape)} patches; give one for each")
    if not torch.isfinite(score).all():
        raise DataError("AUROC: a score is not finite; the run has diverged, use an earlier checkpoint")
    objects = int(positive.sum())
    background = len(positive) - objects
    if not objects or not background:
        raise DataError(
            f"AUROC: {objects} object and {background} background patches cannot be compared; use a larger batch"
        )
    wins = float(rankdata(score.numpy())[positive.numpy()].sum()) - objects * (objects + 1) / 2
    return wins / (objects * background)


def separate(values_BL: Tensor, object_BL: Tensor, among_BL: Tensor | None = None) -> Separation | None:
    """Objects against background among the patches where ``among_BL`` is 1 (all if None).

    None where one of the two is missing, a value is not finite, or all values are equal: such a batch says nothing.
    """
    chosen = torch.ones_like(values_BL, dtype=torch.bool) if among_BL is None else among_BL > 0
    values, objects = values_BL[chosen].detach().double().cpu(), object_BL[chosen].cpu() > 0
    if not objects.any() or objects.all() or not torch.isfinite(values).all():
        return None
    deviation = values.std(correction=0)
    if deviation == 0:
        return None
    gap = (values[objects].mean() - values[~objects].mean()) / deviation
    return Separation(float(gap), auroc(values, objects))


def spread(values: Sequence[float], null: float = 0.0) -> Spread:
    """Mean, spread and one-sample t of a number per batch against ``null``; raises DataError without batches."""
    n = len(values)
    if not n:
        raise DataError("no batch could be compared; use larger or more batches")
    mean = math.fsum(values) / n
    if n == 1:
        return Spread(mean, None, None, n)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Spread(mean, sd, (mean - null) / (sd / math.sqrt(n)) if sd else None, n)
