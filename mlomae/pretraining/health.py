"""Health of a learned mask: is it alive, does it look at the image, does it explore, does it follow the objects?

Shape legend: B probe images, L patches, S image side, C classes, U images of the upper batch. A saturated σ has no
gradient; a σ that varies over positions but not over images is a learned constant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mlomae.feedback import Feedback
from mlomae.masking.sampling import object_patches
from mlomae.pretraining.influence import model_influence
from mlomae.pretraining.separation import separate

if TYPE_CHECKING:
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
    """Percentage of right predictions, of images or their pixels, 0-dim; chance is 100 / C if classes are alike."""
    return 100.0 * feedback.correct(scores, upper_batch).float().mean()


@torch.no_grad()
def feedback_scores(model: Pretrainer, head_batch: Batch, upper_batch: Batch) -> Tensor:
    """Class scores of the upper batch (`Feedback.predict`), which has not trained the head; a feedback without
    parameters classifies it by the head batch."""
    reference = model.feedback_tokens(head_batch) if model.feedback.joint else None
    return model.feedback.predict(model.feedback_tokens(upper_batch), reference, head_batch)


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
