"""What the influence predicts of a policy: the first-order effect of its weights, through one lower step.

    p_j = −Σ m s_j I / Σ m,   I_i = ⟨∂rec_i/∂θ, v⟩

A step of SGD at rate η on Σ m (1 + ε s_j) rec / Σ m changes L_III by η ε p_j more than the step with ε = 0: negative
says that weight on the patches that the policy prefers lowers the upper loss. With v replaced by P v, P = 1/(√ŝ + ε_A)
from the second moments ŝ of AdamW, it is what a step adds with AdamW once its momentum is spent, ŝ held fixed.

Shape legend: B images, L patches, J policies, n batches.
Source: `mlomae.multilevel.patch_influence`; P as in the solver `sama`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import functional_call

from mlomae.common.errors import TrainingError
from mlomae.multilevel import Params, Point, patch_influence, respond
from mlomae.multilevel.batches import split_batch
from mlomae.pretraining.influence import freeze_mask
from mlomae.pretraining.losses import level_problem, patch_errors
from mlomae.pretraining.pretrainer import Pretrainer

if TYPE_CHECKING:
    from mlomae.diagnostics.horizon.policies import Policies

Batch = dict[str, Any]
Precondition = Callable[[Params], Params]


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
        batches: (lower, head, upper) batches on the model's device. Lower and upper images are drawn apart, so that
            the product of their gradients has no bias.
        precondition: v → P v, an `mlomae.multilevel.AdamPreconditioner`.
        chunks: equal parts in which a batch passes, for memory; the result is the same.

    Raises TrainingError if a prediction is not finite.
    """
    plain, scaled = [], []
    for lower, head, upper in batches:
        lower = freeze_mask(model, lower)
        with torch.enable_grad():
            v = _response(model, head, upper, chunks)
        scores = [policies(name, lower) for name in names]
        plain.append(_project(model, v, lower, scores, chunks))
        scaled.append(_project(model, precondition(v), lower, scores, chunks))
    found = torch.stack(plain), torch.stack(scaled)
    if not all(torch.isfinite(p).all() for p in found):
        raise TrainingError("the influence is not finite: the run has diverged, or the feedback; use another of either")
    return found


def _response(model: Pretrainer, head: Batch, upper: Batch, chunks: int) -> Params:
    return respond(Point(level_problem(model), model.level_parameters()["theta"], {}, head, upper, chunks=chunks)).v


def _project(model: Pretrainer, v: Params, lower: Batch, scores: Sequence[Tensor], chunks: int) -> Tensor:
    """p (J,) along ``v``: one forward pass with tangents for all policies."""

    def errors(theta: Params, part: Batch) -> Tensor:
        return functional_call(model, theta, (patch_errors, part))

    theta = model.level_parameters()["theta"]
    influence_BL = torch.cat([patch_influence(errors, theta, v, part) for part in split_batch(lower, chunks)]).double()
    mask_BL = lower["mask"]["mask"].double()
    return torch.stack([-(mask_BL * s_BL * influence_BL).sum() / mask_BL.sum() for s_BL in scores]).cpu()
