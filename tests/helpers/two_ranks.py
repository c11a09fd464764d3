"""Two outer iterations in float64 with everything that data parallelism can change recorded; run under ``torchrun``.

``python -m two_ranks OUT`` writes OUT/rankN.pt: {variant: {"losses", "gradients", "start", "parameters"}}.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import tiny
import torch

from mlomae.common import checkpoint
from mlomae.multilevel.step import OuterStep
from mlomae.pretraining import devices, run, step, trainer

Reduce = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
_mean = devices.mean_over_ranks


def skipping(prefix: str) -> Reduce:
    """The averaging, forgotten for one level's gradient."""
    return lambda tensors: tensors if next(iter(tensors)).startswith(prefix) else _mean(tensors)


VARIANTS: dict[str, tuple[dict[str, Any], Reduce]] = {
    "as it is": ({}, _mean),
    "normalised by weight": ({"mask__normalize": "weight"}, _mean),
    "mask gradient not averaged": ({}, skipping("mask.")),
    "head gradient not averaged": ({}, skipping("feedback.")),
}


def to_double(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.double() if batch.is_floating_point() else batch
    if isinstance(batch, dict):
        return {k: to_double(v, device) for k, v in batch.items()}
    return [to_double(v, device) for v in batch] if isinstance(batch, list) else batch


def train(changes: dict[str, Any], reduce: Reduce, work: Path) -> dict[str, Any]:
    cfg = tiny.config(
        data__eval=None, train__outer_iterations=2, train__picture_interval=9, train__checkpoint_interval=9, **changes
    )
    model, data = tiny.trainer(cfg)
    model.double()
    found: dict[str, Any] = {"losses": [], "gradients": [], "start": {}, "parameters": {}}
    found["start"] = {k: v.clone() for k, v in model.state_dict().items()}
    apply, call = OuterStep._apply, OuterStep.__call__

    def record_gradients(self: OuterStep, level: str, params: dict, g: dict) -> None:
        found["gradients"].append({k: t.clone() for k, t in g.items()})
        apply(self, level, params, g)

    def record_losses(self: OuterStep, *args: Any) -> dict[str, torch.Tensor]:
        losses = call(self, *args)
        found["losses"].append(losses)
        return losses

    with (
        mock.patch.object(step, "mean_over_ranks", reduce),
        mock.patch.object(OuterStep, "_apply", record_gradients),
        mock.patch.object(OuterStep, "__call__", record_losses),
        mock.patch.object(trainer, "to_device", to_double),
        mock.patch.object(run, "MaskHealth"),
        mock.patch.object(run, "picture_hook"),
        mock.patch.object(checkpoint, "save_atomically"),
    ):
        run.build_trainer(cfg, model, data, work, {}, resume=False)[0].train()
    found["parameters"] = model.state_dict()
    return found


def variants(work: Path) -> dict[str, Any]:
    return {name: train(*arguments, work / str(i)) for i, (name, arguments) in enumerate(VARIANTS.items())}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        torch.save(variants(Path(scratch)), Path(sys.argv[1]) / f"rank{os.environ['RANK']}.pt")
