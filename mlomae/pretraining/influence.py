"""Influence of the patches of a batch: how much the upper loss falls if the lower level weights a patch more.

    I_i = ⟨∂rec_i/∂θ, v⟩,   v the response of L_III to θ at the present θ and ω

A lower step with weight w_i on patch i changes L_III by −η I_i w_i to first order: **positive means that more weight on
the patch lowers the upper loss**. The hypergradient of the masking network passes this quantity on to φ. One
encoder pass for v and one forward pass of the autoencoder with tangents give all patches.

Shape legend: B images of the lower batch, L patches.
Source: the response vector of MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128; `mlomae.multilevel.patch_influence`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from mlomae.multilevel import Params, Point, patch_influence, respond
from mlomae.multilevel.params import split_batch
from mlomae.pretraining.losses import level_problem, patch_errors
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.reduction import mean_over_ranks

Batch = dict[str, Any]
Errors = Callable[[Params, Batch], Tensor]


class Influence(NamedTuple):
    """``influence`` (B, L) of every patch, in units of L_III per unit of weight and of learning rate; ``mask`` (B, L),
    1 where the patch was removed; ``loss_upper`` L_III, 0-dim. All outside every graph."""

    influence: Tensor
    mask: Tensor
    loss_upper: Tensor


def influence_along(errors: Errors, theta: Params, v: Params, batch: Batch, chunks: int = 1) -> Tensor:
    """I (B, L) along a given ``v``, in ``chunks`` equal parts of the batch, for memory; the result is the same."""
    return torch.cat([patch_influence(errors, theta, v, part) for part in split_batch(batch, chunks)])


def influence_at(at: Point, errors: Errors) -> tuple[Tensor, Tensor]:
    """(I (B, L) of the patches of ``at.lower_batch``, L_III); the Hessian of stage II is taken to be the identity.

    ``errors``: (θ, batch) → rec (B, L), a pure function of θ with the mask of the batch frozen. Raises ConfigError for
    batches that do not divide into ``at.chunks``.
    """
    response = respond(at)
    return influence_along(errors, at.theta, response.v, at.lower_batch, at.chunks), response.loss_upper


def errors_of(model: Pretrainer) -> Errors:
    """rec (B, L) of ``model`` as a pure function of (θ, batch), where `Pretrainer.freeze_mask` froze the mask."""
    return lambda theta, batch: functional_call(model, theta, (patch_errors, batch))


def model_influence(
    model: Pretrainer, lower_batch: Batch, head_batch: Batch, upper_batch: Batch, *, random_mask: bool = False
) -> Influence:
    """Influence of the patches of ``lower_batch`` under the model's present parameters, its own feedback and head.

    Changes neither parameters, gradients, running averages nor the state of a generator. The caller decides about
    autocast. Under data parallelism all ranks must call it, and the result is of this rank's patches.

    Args:
        lower_batch, head_batch, upper_batch: batches of `mlomae.data.Stream` on the model's device.
        random_mask: draw uniform masks instead, so that objects and background are removed equally often.
    """
    levels = model.level_parameters()
    at = Point(
        level_problem(model),
        levels["theta"],
        levels["omega"],
        head_batch,
        upper_batch,
        levels["phi"],
        model.freeze_mask(lower_batch, random_mask),
        reduce=mean_over_ranks,
        chunks=model.config.train.accumulate,
        paths=model.config.levels.solver_options.get("paths", "both"),
    )
    influence, loss_upper = influence_at(at, errors_of(model))
    return Influence(influence, at.lower_batch["mask"]["mask"], loss_upper)
