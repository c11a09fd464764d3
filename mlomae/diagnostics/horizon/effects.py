"""Policies of the horizon study, and their predicted and real effects on the upper loss.

A policy is a fixed rule that gives every removed patch a number s, by which its loss is weighted:

    w = 1 + ε s

s has mean 0 and standard deviation 1 over the removed patches of an image, so that a policy moves weight between
patches and does not change the size of the step; s = 0 in an image whose removed patches all have the same value (none
is an object). Rules see pixels, masks and the checkpoint's weights only, never the weights of a roll-out.

**Predicted**, the first-order effect of the policy's weights through one lower step:

    p_j = −Σ m s_j I / Σ m,   I_i = ⟨∂rec_i/∂θ, v⟩

A step of SGD at rate η on Σ m (1 + ε s_j) rec / Σ m changes L_III by η ε p_j more than the step with ε = 0: a negative
p_j says that weight on the patches that the policy prefers lowers the upper loss. With v replaced by P v,
P = 1/(√ŝ + ε_A) from the second moments ŝ of AdamW, it is the whole effect of the step under AdamW, with that of its
momentum on later steps, ŝ held fixed.

**Real**: continue training from a checkpoint with weighted patches, and measure the upper loss after h steps:

    L_I = Σ m w rec / Σ m,   D(h) = [L_III(w = 1 + ε s) − L_III(w = 1 − ε s)] / 2ε

Both roll-outs see the same images, crops and masks (common random numbers), so that only the policy differs.

Shape legend: B images of a lower batch, U of the upper batch, L patches, D token width, H hidden width, P values in a
patch, J policies, n batches of the prediction.
Source: `mlomae.multilevel.patch_influence`; P as in the solver `sama`.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from mlomae.common import random_keys
from mlomae.common.errors import TrainingError
from mlomae.feedback import JointFeedback
from mlomae.masking.sampling import object_patches
from mlomae.models.mae import patchify
from mlomae.multilevel import OuterStep, Params, Point, respond
from mlomae.pretraining.health import feedback_accuracy
from mlomae.pretraining.influence import Batch, errors_of, influence_along
from mlomae.pretraining.losses import features, level_problem, patch_errors
from mlomae.pretraining.pretrainer import Pretrainer

PIECE = 256  # images encoded at a time
HIDDEN = 64  # of the random scorers
NAMED = ("object", "error", "contrast")


def policy_names(count: int, has_objects: bool) -> list[str]:
    """``count`` policies: object (where the data has objects), error, contrast, then random_1, random_2, ..."""
    named = [name for name in NAMED if has_objects or name != "object"]
    return [*named, *(f"random_{i + 1}" for i in range(count - len(named)))][:count]


class Policies:
    """s (B, L) of a policy by its name, from a copy of ``model`` at construction.

    - ``object``: patches that objects cover (`mlomae.masking.strategies.oracle`); the batch must have ``object``.
    - ``error``: reconstruction error under the batch's mask, at the checkpoint.
    - ``contrast``: standard deviation of the patch's pixels.
    - ``random_N``: a random two-layer network on LayerNormed patch embeddings. Positions are left out: under
      random crops, a preference for places has hardly any effect that a roll-out could measure.

    ``limit`` bounds ±s, e.g. by 1/ε, so that the weights of +s and of −s stay inside [0, 2] and remain mirror images.
    """

    def __init__(self, model: Pretrainer, seed: int, limit: float = math.inf) -> None:
        self.model, self.seed, self.limit = copy.deepcopy(model).requires_grad_(False), seed, limit

    @torch.no_grad()
    def __call__(self, name: str, batch: Batch) -> Tensor:
        """s (B, L), zero on kept patches; ``batch`` has its mask frozen in."""
        mask_BL = batch["mask"]["mask"]
        return standardise_removed(self._values(name, batch), mask_BL).clamp(-self.limit, self.limit)

    def _values(self, name: str, batch: Batch) -> Tensor:
        """The unscaled value of every patch, (B, L), in any unit."""
        encoder = self.model.mae.encoder
        if name == "object":
            return object_patches(batch["object"], encoder.grid).to(batch["image"].dtype)
        if name == "error":
            return patch_errors(self.model, batch)
        if name == "contrast":
            return patchify(batch["image"], encoder.patch_size).std(dim=-1)
        tokens_BLD = encoder.patch_embed(batch["image"])
        width = tokens_BLD.shape[-1]
        # weights are functions of (seed, name) with symmetric signs: s and −s are equally likely
        keys = [random_keys.root_key(self.seed, "horizon/policy", name, layer) for layer in (1, 2)]
        first_DH = _normal(keys[0], width * HIDDEN).view(width, HIDDEN) / math.sqrt(width)
        second_H = _normal(keys[1], HIDDEN) / math.sqrt(HIDDEN)
        hidden_BLH = F.gelu(F.layer_norm(tokens_BLD, (width,)) @ first_DH.to(tokens_BLD))
        return hidden_BLH @ second_H.to(tokens_BLD)


def standardise_removed(values_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over an image's removed patches; 0 on kept ones, and where all are equal."""
    mask_BL = mask_BL.to(values_BL)
    count_B1 = mask_BL.sum(dim=1, keepdim=True)
    centred_BL = (values_BL - (mask_BL * values_BL).sum(dim=1, keepdim=True) / count_B1) * mask_BL
    deviation_B1 = (centred_BL.square().sum(dim=1, keepdim=True) / count_B1).sqrt()
    # for an image of equal values the quotient would be one of rounding errors
    size_B1 = values_BL.abs().amax(dim=1, keepdim=True)
    flat_B1 = deviation_B1 <= 1e-5 * size_B1
    return torch.where(flat_B1, 0.0, centred_BL / torch.where(flat_B1, 1.0, deviation_B1))


def _normal(key: int, n: int) -> Tensor:
    """(n,) standard normal numbers of a key, float32, the same on every device."""
    return math.sqrt(2.0) * torch.erfinv(2.0 * random_keys.uniform(torch.tensor(key), n) - 1.0)


# --- effects ---------------------------------------------------------------------------------------------------------


def predict(
    model: Pretrainer,
    policies: Policies,
    names: Sequence[str],
    batches: Iterable[tuple[Batch, Batch, Batch]],
    precondition: Callable[[Params], Params],
    chunks: int = 1,
) -> tuple[Tensor, Tensor]:
    """p of every batch and policy, (n, J) float64, with v and with P v; in full precision.

    Args:
        batches: (lower, head, upper) batches on the model's device. Lower and upper images are drawn independently,
            so that the product of their gradients has no bias.
        precondition: v → P v, an `mlomae.multilevel.AdamPreconditioner`.
        chunks: equal parts in which a batch is processed, for memory; the result is the same.

    Raises TrainingError if a prediction is not finite.
    """
    theta = model.level_parameters()["theta"]

    def along(v: Params, lower: Batch, scores: Sequence[Tensor]) -> Tensor:
        influence_BL = influence_along(errors_of(model), theta, v, lower, chunks).double()
        mask_BL = lower["mask"]["mask"].double()
        return torch.stack([-(mask_BL * s_BL * influence_BL).sum() / mask_BL.sum() for s_BL in scores]).cpu()

    plain, scaled = [], []
    for lower, head, upper in batches:
        lower = model.freeze_mask(lower)
        with torch.enable_grad():
            v = respond(Point(level_problem(model), theta, {}, head, upper, chunks=chunks)).v
        scores = [policies(name, lower) for name in names]
        plain.append(along(v, lower, scores))
        scaled.append(along(precondition(v), lower, scores))
    predicted = torch.stack(plain), torch.stack(scaled)
    if not all(torch.isfinite(p).all() for p in predicted):
        raise TrainingError("the influence is not finite: the run or the feedback has diverged; use another one")
    return predicted


class Measured(NamedTuple):
    """``loss`` L_III; ``accuracy`` of the feedback on the upper images, in percent."""

    loss: float
    accuracy: float


@dataclass(eq=False)
class RollOut:
    """Each call trains ``model`` in place, starting from the weights that it had when this object was made.

    Attributes:
        optimizer: makes a fresh optimizer of θ in the checkpoint's state; called once per roll-out.
        head, upper: fixed images on which the feedback is measured.
        clip_grad: bound on the global norm of the gradient of θ, as in the run.
    """

    model: Pretrainer
    optimizer: Callable[[], Optimizer]
    head: Batch
    upper: Batch
    clip_grad: float | None = None

    def __post_init__(self) -> None:
        self.start = copy.deepcopy(self.model.mae.state_dict())

    def __call__(
        self, batch: Callable[[int], Batch], weight: Callable[[Batch], Tensor], horizons: Sequence[int]
    ) -> list[Measured]:
        """The feedback after each number of steps in ``horizons``, which ascend.

        Args:
            batch: lower batch of step t, counted from 0, on the model's device; the same t gives the same batch.
            weight: gives w (B, L) of a batch with its mask frozen in.

        The model keeps the weights of the last step. Raises TrainingError if a measured loss is not finite.
        """
        self.model.mae.load_state_dict(self.start)
        step = OuterStep(
            level_problem(self.model),
            self.model.level_parameters()["theta"],
            {},
            {},
            optimizers={"theta": self.optimizer()},
            lower_loss=lambda theta, phi, part: weighted_loss(self.model, part),
            accumulate=self.model.config.train.accumulate,
            clip_grad=self.clip_grad,
            autocast=self.model.autocast,
        )
        measured: list[Measured] = []
        for t in range(horizons[-1]):
            lower = self.model.freeze_mask(batch(t))
            step([{**lower, "weight": weight(lower)}], None, None)
            if t + 1 in horizons:
                measured.append(measure_feedback(self.model, self.head, self.upper))
                if not measured[-1].loss < float("inf"):  # NaN too
                    raise TrainingError(
                        f"the feedback loss is not finite after {t + 1} steps of a roll-out; lower --lr or --strength"
                    )
        return measured


def weighted_loss(model: Pretrainer, batch: Batch) -> Tensor:
    """Σ m w rec / Σ m with w = ``batch["weight"]`` (B, L), under the mask of the batch; 0-dim."""
    seen = model.reconstruct(batch)
    mask_BR, weight_BR = (seen.mask.of_removed(t) for t in (seen.mask.mask, seen.mask.mask * batch["weight"]))
    return (weight_BR * seen.rec_BR).sum() / mask_BR.sum()


@torch.no_grad()
def measure_feedback(model: Pretrainer, head_batch: Batch, upper_batch: Batch) -> Measured:
    """Feedback on fixed images, in full precision because differences between roll-outs are small."""
    feedback = model.feedback
    assert isinstance(feedback, JointFeedback)
    z_head, z_upper = (
        torch.cat([features(model, {"image": part}) for part in batch["image"].split(PIECE)])
        for batch in (head_batch, upper_batch)
    )
    loss = feedback.joint_loss(z_head, z_upper, head_batch, upper_batch)
    scores_UC = feedback.predict(z_upper, z_head, head_batch)
    return Measured(float(loss), float(feedback_accuracy(feedback, scores_UC, upper_batch)))
