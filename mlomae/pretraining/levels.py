"""A pretrainer as `mlomae.multilevel` takes it: its losses as pure functions of (θ, φ, ω), and its outer step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import all_reduce_params, get_world_size
from torch import Tensor
from torch.func import functional_call

from mlomae.feedback import JointFeedback
from mlomae.multilevel import AdamPreconditioner, ThreeLevelProblem
from mlomae.multilevel.step import OuterStep

if TYPE_CHECKING:
    from mlomae.pretraining.pretrainer import Pretrainer

Batch = dict[str, Any]


def level_problem(model: Pretrainer) -> ThreeLevelProblem:
    """L_I, the features, L_II and L_III, which are one if the feedback is joint."""

    def lower(theta: dict, phi: dict, batch: Batch) -> Tensor:
        return functional_call(model, {**theta, **phi}, (batch,))

    def features(theta: dict, batch: Batch) -> Tensor:
        return functional_call(model, theta, (batch,), {"mode": "features"})

    def head_loss(omega: dict, z: Tensor, batch: Batch) -> Tensor:
        return functional_call(model, omega, (batch,), {"mode": "head", "z": z})

    def fix(theta: dict, phi: dict, batch: Batch) -> Batch:
        mask = model.choose_mask(model.mae.encoder.embed(batch["image"]), batch)  # parameters are the current ones
        return {**batch, "mask": {k: getattr(mask, k) for k in ("ids_keep", "ids_restore", "mask", "weight")}}

    def attend(theta: dict, phi: dict, z: Tensor, batch: Batch) -> Tensor:
        return functional_call(model, {**theta, **phi}, (batch,), {"mode": "attend", "z": z})

    weigh = attend if model.attends else None
    if isinstance(model.feedback, JointFeedback):
        return ThreeLevelProblem(lower, features, fix=fix, joint_loss=model.feedback.joint_loss, pool=weigh)
    return ThreeLevelProblem(lower, features, head_loss, fix=fix, pool=weigh)


def mean_over_ranks(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Average a dict of gradients over data-parallel ranks; each level calls it explicitly, there is no DDP wrapper."""
    if get_world_size() == 1:
        return tensors  # copies would cost a tenth of a small step
    copies = {name: t.detach().clone() for name, t in tensors.items()}
    all_reduce_params(list(copies.values()), op="mean")
    return copies


def outer_step(model: Pretrainer, optim_wrapper: Any) -> OuterStep:
    """The update rule of all levels. Raises TrainingError if mixed precision was asked for but does not happen."""
    levels, train = model.config.levels, model.config.train
    model.check_autocast()
    forward = torch.compile(model.lower) if train.compile else model.lower
    options: dict[str, Any] = dict(levels.solver_options)
    if model.average:
        options["smooth"] = model.average
    parameters = model.level_parameters()
    if levels.solver == "sama" and model.mask.trainable:
        options["precondition"] = AdamPreconditioner(optim_wrapper["theta"].optimizer, parameters["theta"])
    return OuterStep(
        model.problem(),
        **parameters,
        optimizers=dict(optim_wrapper.items()),  # wrappers step like optimizers, and schedulers watch them
        lower_loss=lambda theta, phi, batch: forward(batch),  # the module's own parameters: no functional_call
        solver=levels.solver,
        solver_options=options,
        head_steps=levels.head_steps,
        reduce=mean_over_ranks,
        accumulate=train.accumulate,
        clip_grad=model.config.optim["theta"].clip_grad,
        autocast=model.autocast,
    )
