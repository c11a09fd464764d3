"""Strategies with a teacher: one pass of it for a batch, no part in what is trained, and a resume that keeps it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.masking.teacher import Teacher
from mlomae.pretraining.run import run_pretraining

OPTIONS: dict[str, dict[str, Any]] = {
    "amt": {"start": 0.0, "every": 0.3, "throw": 0.125},
    "attg": {"decay": 0.9},
    "attmask": {"decay": 0.9},
    "self_guided": {"start": 0.0, "decay": 0.9},
    "semmae": {"parts": 3, "decay": 0.9},
}
every_kind = pytest.mark.parametrize("kind", sorted(OPTIONS))


def changes(kind: str) -> dict[str, Any]:
    return {"method": kind, "mask": {"type": kind, "ratio": 0.75, **OPTIONS[kind]}}


@every_kind
def test_the_teacher_runs_once_per_batch_and_is_not_trained(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    embed = Teacher._embed
    monkeypatch.setattr(Teacher, "_embed", lambda self, x: asked.append(tuple(x.shape)) or embed(self, x))
    model, data = tiny.trainer(tiny.config(**changes(kind)))
    step = tiny.step_of(model)
    assert not any(name.startswith("mask.") for name in model.level_parameters()["theta"])
    for t in range(6):
        step(data.batches[t], t)
        assert all(p.grad is None and not p.requires_grad for p in model.mask.parameters())
    assert len(asked) == sum(len(data.batches[t]["lower"]) for t in range(6))
    copied = model.mask.teacher.model.blocks[0].mlp.fc1.weight
    assert not torch.equal(copied, model.mae.encoder.blocks[0].mlp.fc1.weight)


@every_kind
def test_a_resumed_run_ends_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    config = tiny.config(**changes(kind), name=kind)
    run_pretraining(config, tmp_path / "straight")
    target = checkpoint_path(tmp_path / "resumed", 6)
    target.parent.mkdir(parents=True)
    shutil.copy(checkpoint_path(tmp_path / "straight", 6), target)
    run_pretraining(config, tmp_path / "resumed", resume=True)
    states = [load_checkpoint(checkpoint_path(tmp_path / name, 10)) for name in ("straight", "resumed")]
    assert tiny.state_differences(*states) == []
    assert "teacher.model.blocks.1.attn.qkv.weight" in states[0]["modules"]["mask"]
