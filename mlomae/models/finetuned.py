"""The weights of a fine-tuned backbone, from the checkpoint of a transfer to classification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlomae.common.checkpoint import TRANSFER_FORMAT, load_checkpoint
from mlomae.common.errors import CheckpointError
from mlomae.models.weights import State


def read_finetuned(path: Path) -> dict[str, Any] | None:
    """The checkpoint of a fine-tuning; None for a file that is no transfer's.

    Raises CheckpointError for a transfer that leaves no classification backbone: a linear probe, whose backbone is the
    one it was given, or one to a dense task.
    """
    try:
        state = load_checkpoint(path, TRANSFER_FORMAT)
    except CheckpointError:
        return None
    if "backbone" not in state["modules"]:
        kind = state["config"].get("protocol", "dense task")
        raise CheckpointError(
            f"'{path}' is of a transfer ({kind}) that fine-tunes no backbone for classification; give a checkpoint of "
            "protocol 'finetune', or the backbone that this one started from"
        )
    return state


def finetuned_weights(state: dict[str, Any]) -> tuple[State, dict[str, Any], list[str]]:
    """Of a checkpoint: timm's keys, what it declares of its architecture, notes.

    The weights are those that were evaluated, so the average where one was kept. ``fc_norm``, which follows the mean of
    the tokens, becomes ``norm``, which precedes it: an affine map commutes with the mean.
    """
    modules, notes = state["modules"], []
    weights: State = dict(modules["backbone"])
    if "ema" in modules:
        weights = {k.removeprefix("module."): t for k, t in modules["ema"].items() if k.startswith("module.")}
        notes.append("the average of the fine-tuned weights")
    if "fc_norm.weight" in weights:
        weights = {k.replace("fc_norm.", "norm."): t for k, t in weights.items()}
        notes.append("norm: the fine-tuned fc_norm")
    return weights, state["meta"].get("model", {}), notes
