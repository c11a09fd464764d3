"""A float64 run whose warm-up ends at run time; ``torchrun -m warmup_ranks OUT`` writes OUT/rankN.pt."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import tiny
import torch
from two_ranks import to_double

from mlomae.pretraining import feedback_hook, loop, warmup
from mlomae.pretraining.runner import build_runner

ITERATIONS = 12
SCALE = 10  # every image counts ten times, so that twelve tiny probes can tell


def train(work: Path) -> dict[str, Any]:
    """{"watch", "own" (of each probe this rank's right predictions, then its images), "rates" of φ, "parameters"}."""
    cfg = tiny.config(
        name="ranks",
        data__eval=None,
        feedback={"type": "linear", "pooling": "avg"},
        levels={"warmup_margin": 2.0, "head_steps": 20, "upper_every": 2},
        optim={"omega": {"lr": 0.2, "warmup": 0.0}, "phi": {"warmup": 0.5}},
        train={"outer_iterations": ITERATIONS, "log_interval": 4, "picture_interval": 99, "checkpoint_interval": 99},
    )
    model, data = tiny.trainer(cfg)
    model.double()
    found: dict[str, Any] = {"own": [], "rates": []}
    reduce, step = feedback_hook.all_reduce, model.train_step

    def counted(count: torch.Tensor) -> None:
        found["own"].append(count.item())
        reduce(count)
        count *= SCALE

    def stepped(batch: dict, optimizers: Any) -> dict[str, torch.Tensor]:
        found["rates"].append(optimizers["phi"].param_groups[0]["lr"])
        return step(batch, optimizers)

    with (
        mock.patch.object(warmup, "PROBE_INTERVAL", 1),
        mock.patch.object(feedback_hook, "all_reduce", counted),
        mock.patch.object(feedback_hook, "chance_of", return_value=warmup.Chance(0.25, 10**6)),
        mock.patch.object(model, "train_step", stepped),
        mock.patch.object(loop, "to_device", to_double),
        mock.patch("mlomae.pretraining.hooks.PictureHook.after_train_iter"),
        mock.patch("mlomae.pretraining.hooks.MaskHealthHook.after_train_iter"),
        mock.patch("mlomae.pretraining.hooks.AtomicCheckpointHook.after_train_iter"),
    ):
        build_runner(cfg, model, data.batches, data.probe, work, {}).train()
    return {**found, "watch": model.watch.state_dict(), "parameters": model.state_dict()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        torch.save(train(Path(scratch)), Path(sys.argv[1]) / f"rank{os.environ['RANK']}.pt")
