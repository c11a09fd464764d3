"""Health of a learned mask: is it alive, does it look at the image, does it explore, does it follow the objects?

Shape legend: B probe images, L patches, S image side, C classes, U images of the upper batch. A saturated σ has no
gradient; a σ that varies over positions but not over images is a learned constant.
"""

from typing import Any

import torch
from torch import Tensor

from mlomae.common import random_keys
from mlomae.feedback import Feedback
from mlomae.masking import MaskState
from mlomae.masking.sampling import object_patches
from mlomae.pretraining.influence import model_influence
from mlomae.pretraining.losses import feedback_tokens
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.separation import separate

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
    reference = feedback_tokens(model, head_batch) if model.feedback.joint else None
    return model.feedback.predict(feedback_tokens(model, upper_batch), reference, head_batch)


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
    images, the overlap of their masks with those of the last log (new noise), and the feedback's accuracy and chance.

    Where the objects of the images are known (embedded data) also how σ and the influence of the patches separate them
    from the background. It reads the present weights and changes nothing: training has the same bits without it.
    """

    def __init__(self, model: Pretrainer, interval: int, probe: Batch) -> None:
        self.model, self.interval, self.probe = model, interval, probe
        self._previous: Tensor | None = None

    @torch.no_grad()
    def __call__(
        self, t: int, data: dict[str, Any], losses: dict[str, Tensor], values: dict[str, float] | None
    ) -> None:
        if (t + 1) % self.interval or values is None:
            return
        model, found = self.model, self._mask_values(t)
        if data.get("upper") is not None:
            head, upper = data["head"], data["upper"]
            scores = feedback_scores(model, head, upper)
            found["feedback_accuracy"] = feedback_accuracy(model.feedback, scores, upper)
            found["feedback_chance"] = 100.0 / scores.shape[-1]
            if model.mask.trainable and "object" in self.probe:
                found |= object_influence(model, data["lower"][-1], head, upper)
        values |= {name: float(value) for name, value in found.items()}

    def _mask_values(self, t: int) -> dict[str, Any]:
        """Overlap with the masks of the last log, and the health of σ where there is one."""
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
        return found
