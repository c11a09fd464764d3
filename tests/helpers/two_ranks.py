"""Two outer iterations in float64 with everything that data parallelism can change recorded; run under ``torchrun``.

``python -m two_ranks OUT`` writes OUT/rankN.pt: {variant: {"losses", "gradients", "start", "parameters"}}.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import tiny
import torch

from mlomae.common import checkpoint, ranks
from mlomae.multilevel.step import OuterStep
from mlomae.pretraining import reduction, run, step, trainer

Reduce = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
_mean = reduction.mean_over_ranks


def skipping(prefix: str) -> Reduce:
    """The averaging, forgotten for one level's gradient."""
    return lambda tensors: tensors if next(iter(tensors)).startswith(prefix) else _mean(tensors)


VARIANTS: dict[str, tuple[dict[str, Any], Reduce]] = {
    "as it is": ({}, _mean),
    "normalised by weight": ({"mask__normalize": "weight"}, _mean),
    "mask gradient not averaged": ({}, skipping("mask.")),
    "head gradient not averaged": ({}, skipping("feedback.")),
}

NCA, RIDGE = {"feedback": {"type": "nca"}}, {"feedback": {"type": "ridge"}}
POOLED = {"levels__mask_pooling": True}
UNIFORM = {"auxiliary": {"type": "uniformity", "weight": 1.0}}
COUPLED: dict[str, dict[str, Any]] = {  # losses that are not means over images
    "nca": NCA,
    "nca, mask pooling": NCA | POOLED,
    "nca, explicit": NCA | POOLED | {"levels__solver": "explicit"},
    "nca, sama": NCA | {"levels__solver": "sama"},
    "nca, cg": NCA | {"levels__solver": "cg", "levels__solver_options": {"steps": 3, "damping": 1.0}},
    "nca, accumulated": NCA | {"train__accumulate": 2},
    "ridge": RIDGE,
    "ridge, squared error": {"feedback": {"type": "ridge", "loss": "squared_error"}},
    "ridge, explicit": RIDGE | POOLED | {"levels__solver": "explicit"},
    "uniformity": UNIFORM,
    "uniformity, neumann": UNIFORM | NCA | {"levels__solver": "neumann", "levels__solver_options": {"steps": 3}},
    "cl_mae": {"mask": {"type": "cl_mae", "hidden": 16}},
}

KINDS = ("nca", "ridge", "uniformity", "cl_mae")


def _backward(factor: int) -> AbstractContextManager[Any]:
    """The own part of the gradient, times ``factor`` and not the number of ranks."""
    backward = staticmethod(lambda ctx, c: factor * c.narrow(0, int(os.environ.get("RANK", 0)) * ctx.rows, ctx.rows))
    return mock.patch.object(ranks._Gather, "backward", backward)


def _other_tangents_forgotten(ctx: Any, x: torch.Tensor) -> torch.Tensor:
    rank = torch.distributed.get_rank()
    return torch.cat([x if r == rank else torch.zeros_like(x) for r in range(ranks.process_count())])


_ungathered = partial(mock.patch.object, ranks, "process_count", lambda: 1)
MUTATIONS: dict[str, tuple[str, Callable[[], AbstractContextManager[Any]]]] = {
    **{f"{name}, not gathered": (name, _ungathered) for name in KINDS},
    **{f"{name}, no gradient": (name, partial(_backward, 0)) for name in KINDS},
    **{f"{name}, not scaled": (name, partial(_backward, 1)) for name in KINDS},
    "uniformity, neumann, tangents": (
        "uniformity, neumann",
        partial(mock.patch.object, ranks._Gather, "jvp", staticmethod(_other_tangents_forgotten)),
    ),
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
    found = {name: train(*arguments, work / name) for name, arguments in VARIANTS.items()}
    found |= {name: train(changes, _mean, work / name) for name, changes in COUPLED.items()}
    for name, (variant, mutation) in MUTATIONS.items() if "RANK" in os.environ else ():
        with mutation():
            found[name] = train(COUPLED[variant], _mean, work / name)
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        torch.save(variants(Path(scratch)), Path(sys.argv[1]) / f"rank{os.environ['RANK']}.pt")
