"""Predicted and real effects of a policy on the upper loss.

**Predicted**, the first-order effect of the policy's weights through one lower step:

    p_j = −Σ m s_j I / Σ m,   I_i = ⟨∂rec_i/∂θ, v⟩

A step of SGD at rate η on Σ m (1 + ε s_j) rec / Σ m changes L_III by η ε p_j more than the step with ε = 0: a negative
p_j says that weight on the patches that the policy prefers lowers the upper loss. With v replaced by P v,
P = 1/(√ŝ + ε_A) from the second moments ŝ of AdamW, it is what a step adds with AdamW once its momentum is spent, ŝ
held fixed.

**Real**: train on from a checkpoint with weighted patches, and measure the upper loss after h steps:

    L_I = Σ m w rec / Σ m,   D(h) = [L_III(w = 1 + ε s) − L_III(w = 1 − ε s)] / 2ε

Both roll-outs see the same images, crops and masks (common random numbers), so that only the policy differs.

Shape legend: B images of a lower batch, U of the upper batch, L patches, J policies, n batches of the prediction.
Source: `mlomae.multilevel.patch_influence`; P as in the solver `sama`.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from mlomae.common.errors import TrainingError
from mlomae.diagnostics.horizon.policies import Policies
from mlomae.feedback import JointFeedback
from mlomae.multilevel import OuterStep, Params, Point, respond
from mlomae.pretraining.health import feedback_accuracy
from mlomae.pretraining.influence import errors_of, influence_along
from mlomae.pretraining.losses import features, level_problem
from mlomae.pretraining.pretrainer import Pretrainer

Batch = dict[str, Any]
Precondition = Callable[[Params], Params]
PIECE = 256  # images encoded at a time


def predict(
    model: Pretrainer,
    policies: Policies,
    names: Sequence[str],
    batches: Iterable[tuple[Batch, Batch, Batch]],
    precondition: Precondition,
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
        raise TrainingError("the influence is not finite: the run has diverged, or the feedback; use another of either")
    return predicted


class Measured(NamedTuple):
    """``loss`` L_III; ``accuracy`` of the feedback on the upper images, per cent."""

    loss: float
    accuracy: float


class RollOut:
    """Each call trains ``model`` in place, starting from the weights that it had when this object was made.

    Args:
        optimizer: makes a fresh optimizer of θ in the checkpoint's state; called once per roll-out.
        batch: lower batch of step t, counted from 0, on the model's device; the same t gives the same batch.
        measure: called with the model at every horizon.
        clip_grad: bound on the global norm of the gradient of θ, as in the run.
    """

    def __init__(
        self,
        model: Pretrainer,
        optimizer: Callable[[], Optimizer],
        measure: Callable[[Pretrainer], Measured],
        clip_grad: float | None = None,
    ) -> None:
        self.model, self.optimizer, self.measure, self.clip_grad = model, optimizer, measure, clip_grad
        self.start = copy.deepcopy(model.mae.state_dict())

    def __call__(
        self, batch: Callable[[int], Batch], weight: Callable[[Batch], Tensor], horizons: Sequence[int]
    ) -> list[Measured]:
        """What ``measure`` gives after each number of steps in ``horizons``, which ascend.

        ``weight`` gives w (B, L) of a batch with its mask frozen in. The model keeps the weights of the last step.
        Raises TrainingError if a measured loss is not finite.
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
                measured.append(self.measure(self.model))
                if not measured[-1].loss < float("inf"):  # NaN too
                    raise TrainingError(
                        f"the feedback loss is not finite after {t + 1} steps of a roll-out; lower --lr or --strength"
                    )
        return measured


def weighted_loss(model: Pretrainer, batch: Batch) -> Tensor:
    """Σ m w rec / Σ m with w = ``batch["weight"]`` (B, L), under the mask of the batch; 0-dim."""
    seen = model.reconstruct(batch)
    return (seen.mask.mask * batch["weight"] * seen.rec_BL).sum() / seen.mask.mask.sum()


@torch.no_grad()
def measure_feedback(model: Pretrainer, head_batch: Batch, upper_batch: Batch) -> Measured:
    """Feedback on fixed images, in full precision because differences between roll-outs are small."""
    feedback = model.feedback
    assert isinstance(feedback, JointFeedback)
    z_head, z_upper = (_features(model, batch) for batch in (head_batch, upper_batch))
    loss = feedback.joint_loss(z_head, z_upper, head_batch, upper_batch)
    scores_UC = feedback.predict(z_upper, z_head, head_batch)
    return Measured(float(loss), float(feedback_accuracy(feedback, scores_UC, upper_batch)))


def _features(model: Pretrainer, batch: Batch) -> Tensor:
    return torch.cat([features(model, {"image": part}) for part in batch["image"].split(PIECE)])
