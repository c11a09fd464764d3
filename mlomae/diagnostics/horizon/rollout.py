"""What really happens: train on from a checkpoint with weighted patches, and measure the upper loss on the way.

    L_I = Σ m w rec / Σ m,   D(h) = [L_III(w = 1 + ε s) − L_III(w = 1 − ε s)] / 2ε   after h steps

Both roll-outs see the same images, crops and masks (common random numbers), so that what differs is the policy.

Shape legend: B images of a lower batch, L patches, H images of the head batch, U of the upper batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from mlomae.common.errors import TrainingError
from mlomae.feedback import JointFeedback
from mlomae.multilevel import OuterStep
from mlomae.pretraining.health import feedback_accuracy
from mlomae.pretraining.influence import freeze_mask
from mlomae.pretraining.losses import features, level_problem
from mlomae.pretraining.pretrainer import Pretrainer

Batch = dict[str, Any]
PIECE = 256  # images encoded at a time


class Measured(NamedTuple):
    """``loss`` L_III; ``accuracy`` of the feedback on the upper images, per cent."""

    loss: float
    accuracy: float


class RollOut:
    """Trains ``model`` in place, from the weights that it has when this is made, as often as it is called.

    Args:
        optimizer: makes a fresh optimizer of θ, in the state of the checkpoint; it is called once a roll-out.
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
        """What ``measure`` finds after each number of steps in ``horizons``, which ascend.

        ``weight`` gives w (B, L) of a batch with its mask frozen in. The model is left as the last step made it. Raises
        TrainingError if a measured loss is not finite.
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
        found = []
        for t in range(horizons[-1]):
            lower = freeze_mask(self.model, batch(t))
            step([{**lower, "weight": weight(lower)}], None, None)
            if t + 1 in horizons:
                found.append(self.measure(self.model))
                if not found[-1].loss < float("inf"):  # NaN too
                    raise TrainingError(
                        f"the feedback loss is not finite after {t + 1} steps of a roll-out; lower --lr or --strength"
                    )
        return found


def weighted_loss(model: Pretrainer, batch: Batch) -> Tensor:
    """Σ m w rec / Σ m with w = ``batch["weight"]`` (B, L), under the mask of the batch; 0-dim."""
    seen = model.reconstruct(batch)
    mask, rec_BL = seen.mask, seen.rec_BL
    return (mask.mask * batch["weight"] * rec_BL).sum() / mask.mask.sum()


@torch.no_grad()
def measure_feedback(model: Pretrainer, head_batch: Batch, upper_batch: Batch) -> Measured:
    """The feedback of fixed images, in full precision: differences between roll-outs are small."""
    feedback = model.feedback
    assert isinstance(feedback, JointFeedback)
    z_head, z_upper = (_features(model, batch) for batch in (head_batch, upper_batch))
    loss = feedback.joint_loss(z_head, z_upper, head_batch, upper_batch)
    scores_UC = feedback.predict(z_upper, z_head, head_batch)
    return Measured(float(loss), float(feedback_accuracy(feedback, scores_UC, upper_batch)))


def _features(model: Pretrainer, batch: Batch) -> Tensor:
    return torch.cat([features(model, {"image": part}) for part in batch["image"].split(PIECE)])
