"""A float64 run whose warm-up ends at run time; ``torchrun -m warmup_ranks OUT`` writes OUT/rankN.pt."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import tiny
import torch
from two_ranks import to_double

from mlomae.common import checkpoint
from mlomae.pretraining import feedback_gate, run, trainer

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
    reduce = feedback_gate.all_reduce

    def counted(count: torch.Tensor) -> None:
        found["own"].append(count.item())
        reduce(count)
        count *= SCALE

    with (
        mock.patch.object(feedback_gate, "PROBE_INTERVAL", 1),
        mock.patch.object(feedback_gate, "all_reduce", counted),
        mock.patch.object(feedback_gate, "chance_of", return_value=feedback_gate.Chance(0.25, 10**6)),
        mock.patch.object(trainer, "to_device", to_double),
        mock.patch.object(run, "MaskHealth"),
        mock.patch.object(run, "picture_hook"),
        mock.patch.object(checkpoint, "save_atomically"),
    ):
        made, _ = run.build_trainer(cfg, model, data, work, {}, resume=False)
        step = made.step

        def stepped(batch: dict, t: int) -> dict[str, torch.Tensor]:
            found["rates"].append(made.optimizers["phi"].param_groups[0]["lr"])
            return step(batch, t)

        made.step = stepped
        made.train()
    return {**found, "watch": made.stateful["watch"].state_dict(), "parameters": model.state_dict()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        torch.save(train(Path(scratch)), Path(sys.argv[1]) / f"rank{os.environ['RANK']}.pt")
