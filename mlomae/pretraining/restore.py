"""Puts what a checkpoint holds into modules, optimizers and other parts, all of it or an error that names the field."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from mlomae.common.errors import CheckpointError, first_names
from mlomae.models.loading import load_strict

_MOMENTS = {True: {"step", "exp_avg", "exp_avg_sq"}, False: {"momentum_buffer"}}  # with betas: Adam


def restore(
    state: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    stateful: Mapping[str, Any],
) -> None:
    """Load a `mlomae.common.checkpoint.State`. Raises CheckpointError for another or missing part, another shape, or a
    number that is not finite."""
    for field, own in (("modules", modules), ("optimizers", optimizers)):
        if state[field].keys() != own.keys():
            found = first_names(state[field]) or "nothing"
            raise CheckpointError(f"holds {found} in '{field}', not {first_names(own)}")
    for name, module in modules.items():
        try:
            load_strict(module, state["modules"][name])
        except CheckpointError as error:
            raise CheckpointError(f"modules.{name}: {error}") from error
    for name, optimizer in optimizers.items():
        restore_optimizer(optimizer, state["optimizers"][name], f"optimizers.{name}")
    for name, part in stateful.items():
        if name in state:
            part.load_state_dict(state[name])
        elif "numerics" in state["meta"]:  # version 0.1, whose checkpoints lack them, had fewer parts
            raise CheckpointError(f"lacks '{name}'")


def restore_optimizer(optimizer: Optimizer, saved: Mapping[str, Any], field: str) -> None:
    """Load the moments of an optimizer; its settings are the configuration's. Errors as `restore`, naming ``field``."""
    own = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in own] != [list(group["params"]) for group in saved["param_groups"]]:
        raise CheckpointError(f"holds other groups of parameters in '{field}.param_groups' than this run has")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, moments in saved["state"].items():
        where = f"{field}.state.{number}"
        if not 0 <= number < len(parameters):
            raise CheckpointError(f"holds '{where}', and there are {len(parameters)} parameters")
        wanted = _MOMENTS["betas" in optimizer.param_groups[0]]
        if moments.keys() != wanted:
            found = first_names(moments) or "nothing"
            raise CheckpointError(f"holds {found} in '{where}', not {first_names(sorted(wanted))}")
        for key, tensor in moments.items():
            shape = () if key == "step" else parameters[number].shape
            if tensor is None and key == "momentum_buffer":  # before its first step
                continue
            if tensor is None or not tensor.is_floating_point() or tensor.shape != shape:
                raise CheckpointError(f"holds no tensor of floats of shape {tuple(shape)} in '{where}.{key}'")
            if not torch.isfinite(tensor).all() or (key in ("step", "exp_avg_sq") and (tensor < 0).any()):
                raise CheckpointError(f"holds a number in '{where}.{key}' that is not finite or negative")
    optimizer.load_state_dict({"state": dict(saved["state"]), "param_groups": own})
