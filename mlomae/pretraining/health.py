"""Health of a learned mask: is it alive, does it look at the image, does it explore, does it follow the objects?

A saturated σ has no gradient; a σ that varies over positions but not over images is a learned constant. Whether a
number per patch tells objects from background is measured by AUROC, the normalised difference of means and t over
batches. Sign: positive influence means that more weight on the patch lowers the upper loss, so **a positive gap, a
positive t and an AUROC above 0.5 say that the feedback asks for objects**.

Shape legend: B probe images, L patches, S image side, C classes, U images of the upper batch, n batches.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlomae.common import random_keys
from mlomae.common.errors import DataError
from mlomae.feedback import Feedback
from mlomae.masking import MaskState
from mlomae.masking.sampling import object_patches
from mlomae.pretraining.influence import model_influence
from mlomae.pretraining.losses import feedback_tokens
from mlomae.pretraining.pretrainer import Pretrainer

Batch = dict[str, Any]


def score_health(sigma_BL: Tensor) -> dict[str, Tensor]:
    """Statistics of σ on fixed probe images, 0-dim tensors.

    ``mean``; ``entropy`` of the Bernoulli(σ) in bits, 1 at σ = 0.5; ``saturated``, the share of σ outside
    [0.01, 0.99]; ``var_images``, variance over images at a position, averaged over positions; ``var_positions``,
    variance over positions of the mean over images.
    """
    p = sigma_BL.float().clamp(1e-6, 1 - 1e-6)
    entropy = -(p * p.log2() + (1 - p) * (1 - p).log2())
    return {
        "mean": p.mean(),
        "entropy": entropy.mean(),
        "saturated": ((p < 0.01) | (p > 0.99)).float().mean(),
        "var_images": p.var(dim=0, correction=0).mean(),
        "var_positions": p.mean(dim=0).var(correction=0),
    }


def mask_overlap(mask_BL: Tensor, previous_BL: Tensor, ratio: float) -> Tensor:
    """Share of the removed patches that were removed before too, rescaled: 0 as by chance, 1 the same set, 0-dim."""
    shared = (mask_BL * previous_BL).sum() / mask_BL.sum()
    return (shared - ratio) / (1.0 - ratio)


@torch.no_grad()
def feedback_accuracy(feedback: Feedback, scores: Tensor, upper_batch: Batch) -> Tensor:
    """Percentage of right predictions, of images or their pixels, 0-dim."""
    return 100.0 * feedback.correct(scores, upper_batch).float().mean()


@torch.no_grad()
def feedback_scores(model: Pretrainer, head_batch: Batch, upper_batch: Batch) -> Tensor:
    """Class scores of the upper batch (`Feedback.predict`), which has not trained the head; a feedback without
    parameters classifies it by the head batch."""
    reference = feedback_tokens(model, head_batch) if model.feedback.joint else None
    return model.feedback.predict(feedback_tokens(model, upper_batch), reference, head_batch)


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
    """Area under the ROC curve of finite ``scores`` for finding objects: P(object > background) + P(tie) / 2.

    ``is_object``: of the same shape, with both kinds. From ranks, ties by their mean rank (Mann and Whitney, 1947).
    """
    from scipy.stats import rankdata  # a second, and few runs know their objects

    positive = is_object.flatten().numpy() > 0
    objects = int(positive.sum())
    wins = float(rankdata(scores.double().flatten().numpy())[positive].sum()) - objects * (objects + 1) / 2
    return wins / (objects * (positive.size - objects))


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


def object_scores(sigma_BL: Tensor, object_BSS: Tensor, grid: tuple[int, int]) -> dict[str, float]:
    """``sigma_object_auroc``: does σ (all patches of fixed images) rank objects above background, 0.5 as by chance."""
    found = separate(sigma_BL, object_patches(object_BSS, grid))
    return {} if found is None else {"sigma_object_auroc": found.auroc}


def object_influence(model: Pretrainer, lower_batch: Batch, head_batch: Batch, upper_batch: Batch) -> dict[str, float]:
    """``influence_object_auroc`` and ``influence_object_gap`` on the removed patches of one batch.

    Above 0.5 and above 0: the feedback wants objects reconstructed (`mlomae.diagnostics`). One batch is mostly noise,
    so read the curve, or ``mlomae diagnose``. Needs one encoder pass with its backward, one forward with tangents.
    """
    with model.autocast():
        found = model_influence(model, lower_batch, head_batch, upper_batch)
    objects = object_patches(lower_batch["object"], model.mae.encoder.grid)
    separation = separate(found.influence, objects, found.mask)
    if separation is None:
        return {}
    return {"influence_object_auroc": separation.auroc, "influence_object_gap": separation.gap}


class MaskHealth:
    """The trainer's hook that adds to the log, every ``interval`` outer iterations, the health of σ on fixed probe
    images, the overlap of their masks with those of the last log (new noise), and the feedback's accuracy and
    ``chance``.

    Where the objects of the images are known (embedded data) also how σ and the influence of the patches separate them
    from the background. It reads the present weights and changes nothing: training has the same bits without it.
    """

    def __init__(self, model: Pretrainer, interval: int, probe: Batch, chance: float) -> None:
        self.model, self.interval, self.probe, self.chance = model, interval, probe, chance
        self._previous: Tensor | None = None

    @torch.no_grad()
    def __call__(self, t: int, data: Any, losses: dict[str, Tensor], values: dict[str, float] | None) -> None:
        if (t + 1) % self.interval or values is None:
            return
        model, probe = self.model, self.probe
        tokens = model.mae.encoder.embed(probe["image"])
        mask = model.choose_mask(tokens, {**probe, "key": random_keys.fold(probe["key"], t)}).mask
        found: dict[str, Any] = {}
        if self._previous is not None:
            found["mask_overlap"] = mask_overlap(mask, self._previous, model.ratio)
        self._previous = mask
        sigma = model.mask.scores(tokens, MaskState(key=probe["key"]))
        if sigma is not None:
            found |= {f"sigma_{k}": v for k, v in score_health(sigma).items()}
            if "object" in probe:
                found |= object_scores(sigma, probe["object"], model.mae.encoder.grid)
        if data.get("upper") is not None:
            head, upper = data["head"], data["upper"]
            scores = feedback_scores(model, head, upper)
            found["feedback_accuracy"] = feedback_accuracy(model.feedback, scores, upper)
            found["feedback_chance"] = self.chance
            if model.mask.trainable and "object" in probe:
                found |= object_influence(model, data["lower"][-1], head, upper)
        values |= {name: float(value) for name, value in found.items()}
