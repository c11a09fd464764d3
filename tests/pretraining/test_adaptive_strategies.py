"""Training with strategies that learn together with θ: a resume keeps their state, chunks are means over images."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.pretraining.run import run_pretraining

STRATEGIES: dict[str, dict[str, Any]] = {
    "adamae": {"hidden": 16},
    "adios": {"masks": 3, "width": 4},
    "automae": {"decay": 0.5},
    "cl_mae": {"hidden": 16, "depth": 1, "diversity": 0.0},  # which compares the images of a chunk
    "hpm": {"hard": 1.0, "decay": 0.5, "decay_end": 0.9},
}
every_strategy = pytest.mark.parametrize("name", STRATEGIES)


def changes(name: str) -> dict[str, Any]:
    return {"name": name, "method": name, "mask": {"type": name, "ratio": 0.75, **STRATEGIES[name]}}


@every_strategy
def test_a_resumed_run_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    config = tiny.config(**changes(name), train__outer_iterations=8, data__eval=None)
    run_pretraining(config, tmp_path / "straight")
    source, target = (checkpoint_path(tmp_path / run, 4) for run in ("straight", "resumed"))
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    run_pretraining(config, tmp_path / "resumed", resume=True)
    states = [load_checkpoint(checkpoint_path(tmp_path / run, 8)) for run in ("straight", "resumed")]
    assert tiny.state_differences(*states) == []
    middle, end = load_checkpoint(source)["modules"]["mask"], states[0]["modules"]["mask"]
    still = {key for key, value in end.items() if torch.equal(value, middle[key])}
    assert all(key.endswith("pos_embed") for key in still), "all that it holds moves, but for fixed positions"


@every_strategy
def test_it_trains_in_bf16(name: str) -> None:
    found = []
    for amp in ("none", "bf16"):
        model, data = tiny.trainer(tiny.config(**changes(name), train__amp=amp))
        step = tiny.step_of(model)
        losses = [step(data.batches[t], t) for t in range(5, 7)]
        found.append([{key: float(value) for key, value in each.items()} for each in losses])
    for plain, mixed in zip(*found, strict=True):
        assert mixed == pytest.approx(plain, rel=0.05, abs=0.01)


@every_strategy
def test_chunks_of_a_batch_give_the_gradient_of_the_whole(name: str) -> None:
    """In float64 and from the middle of the run on, where schedules have begun."""
    found = []
    for parts in (1, 2):
        model, data = tiny.trainer(tiny.config(**changes(name), train__accumulate=parts))
        model.double()
        step = tiny.step_of(model)
        seen = []
        for t in range(5, 7):
            lower = [
                {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
                for batch in data.batches[t]["lower"]
            ]
            seen.append(step({"lower": lower}, t))
        found.append((seen, model.state_dict()))
    (whole, weights), (chunks, others) = found
    for a, b in zip(whole, chunks, strict=True):
        assert {k: float(v) for k, v in a.items()} == pytest.approx({k: float(v) for k, v in b.items()}, rel=1e-6)
    for key, value in weights.items():
        torch.testing.assert_close(others[key], value, rtol=0, atol=1e-6)
