"""Influence of the patches of a batch: how much the upper loss falls if the lower level weights a patch more.

    I_i = ⟨∂rec_i/∂θ, v⟩,   v the response of L_III to θ at the present θ and ω

A lower step with weight w_i on patch i changes L_III by −η I_i w_i to first order: **positive means that more weight on
the patch lowers the upper loss**. The hypergradient of the masking network is this quantity carried on to φ. One
encoder pass for v and one forward pass of the autoencoder with tangents give all patches.

Shape legend: B images of the lower batch, L patches.
Source: the response vector of MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128; `mlomae.multilevel.patch_influence`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from mlomae import masking
from mlomae.masking import MaskState
from mlomae.multilevel import Params, Point, ThreeLevelProblem, patch_influence, respond
from mlomae.multilevel.batches import split_batch
from mlomae.pretraining.losses import level_problem, patch_errors
from mlomae.pretraining.pretrainer import Pretrainer

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


def influence_along_response(
    problem: ThreeLevelProblem,
    errors: Errors,
    theta: Params,
    omega: Params,
    lower_batch: Batch,
    head_batch: Batch,
    upper_batch: Batch,
    *,
    chunks: int = 1,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """(I (B, L), L_III) for any three-level problem; the Hessian of stage II is taken to be the identity.

    Args:
        errors: (θ, batch) → rec (B, L), a pure function of θ with the mask of the batch frozen.
        chunks: equal parts in which both passes are taken, for memory; the result is the same.
        options: of `mlomae.multilevel.Point`, e.g. ``paths``.

    Raises ConfigError for batches that do not divide into ``chunks`` or an option that the response refuses.
    """
    response = respond(Point(problem, theta, omega, head_batch, upper_batch, chunks=chunks, **options))
    return influence_along(errors, theta, response.v, lower_batch, chunks), response.loss_upper


def errors_of(model: Pretrainer) -> Errors:
    """rec (B, L) of ``model`` as a pure function of (θ, batch); the batch has its mask frozen in (`freeze_mask`)."""
    return lambda theta, batch: functional_call(model, theta, (patch_errors, batch))


def model_influence(
    model: Pretrainer, lower_batch: Batch, head_batch: Batch, upper_batch: Batch, *, random_mask: bool = False
) -> Influence:
    """Influence of the patches of ``lower_batch`` under the model's present parameters, its own feedback and head.

    Changes neither parameters, gradients, running averages nor the state of a generator. The caller decides about
    autocast; under data parallelism the result is this rank's.

    Args:
        lower_batch, head_batch, upper_batch: batches of `mlomae.data.Stream` on the model's device.
        random_mask: draw uniform masks in place of the strategy's own, so that objects and background are removed
            equally often.
    """
    levels = model.level_parameters()
    batch = freeze_mask(model, lower_batch, random_mask)
    influence, loss_upper = influence_along_response(
        level_problem(model),
        errors_of(model),
        levels["theta"],
        levels["omega"],
        batch,
        head_batch,
        upper_batch,
        chunks=model.config.train.accumulate,
        paths=model.config.levels.solver_options.get("paths", "both"),
        phi=levels["phi"],
    )
    return Influence(influence, batch["mask"]["mask"], loss_upper)


@torch.no_grad()
def freeze_mask(model: Pretrainer, batch: Batch, random_mask: bool = False) -> Batch:
    """``batch`` with the mask of its keys frozen in, the strategy's own or a uniform one."""
    encoder = model.mae.encoder
    tokens_BLD = encoder.embed(batch["image"])
    if random_mask:
        uniform = masking.create("random", embed_dim=encoder.embed_dim, grid=encoder.grid)
        mask = uniform(tokens_BLD, batch["image"], model.ratio, 0, MaskState.of(batch))
    else:
        mask = model.choose_mask(tokens_BLD, batch)
    return {**batch, "mask": {k: getattr(mask, k) for k in ("ids_keep", "ids_restore", "mask", "weight")}}
