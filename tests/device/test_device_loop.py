"""A pretraining as on a GPU: from one log to the next the host waits for nothing.

The first iteration keeps images, tables and constants on the device, and says the first loss. Every tenth judges the
feedback, for the gate decides on the host, and the tenth draws the first picture: runs here are shorter.
"""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from devices import DEVICES, opened, unexpected

from mlomae.data import Stream
from mlomae.pretraining import run
from mlomae.pretraining.trainer import Trainer

ITERATIONS = 5  # the last one is logged
KNOWN = {"float64: mlomae/pretraining/curves.py add": "at most 100 sums for a whole run"}
RUNS: dict[str, dict[str, Any]] = {
    "MAE": tiny.RANDOM,
    "MAE, images from disk": tiny.RANDOM,
    "AMT": {"mask": {"type": "amt", "ratio": 0.75, "start": 0.2}},
    "MLO-MAE": {"feedback": {"type": "linear"}, "levels__v_momentum": 0.9},
    "pooled": {"feedback": {"type": "nca"}, "levels__mask_pooling": True, "levels__solver": "explicit"},
}


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("kind", RUNS)
def test_between_two_logs_nothing_waits(name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = {f"train__{what}": ITERATIONS for what in ("outer_iterations", "log_interval", "picture_interval")}
    config = tiny.config(train__checkpoint_interval=ITERATIONS, **lengths, **RUNS[kind])
    monkeypatch.setattr(run, "training_device", lambda: torch.device(name))
    monkeypatch.setattr(Trainer, "_save", lambda *given: None)  # a file cannot hold simulated tensors
    monkeypatch.setattr(Stream, "in_memory", "disk" not in kind)
    model, data = tiny.trainer(config)
    found: list[list[str]] = []
    with opened(name) as device:
        trainer, _ = run.build_trainer(config, model, data, tmp_path, {}, False)

        def note(t: int, batch: Any, losses: Any, values: Any) -> None:
            found.append(unexpected(device.found, KNOWN))
            device.found.clear()

        trainer.hooks = [*trainer.hooks, note]
        with device.watch():
            trainer.train()
    assert len(found) == ITERATIONS
    assert found[1:-1] == [[]] * (ITERATIONS - 2)
    assert any("_means" in entry for entry in found[-1]), "the log waits: what is found is what waits"
