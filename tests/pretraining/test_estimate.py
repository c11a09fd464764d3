"""What a step costs, without taking it: memory against that of a real one, shares of processes, chunks."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import peak_memory
import pytest
import tiny
import torch

from mlomae.config.schema import PretrainConfig
from mlomae.pretraining.estimate import estimate

WIDE = {"embed_dim": 384, "depth": 4, "num_heads": 6, "decoder_embed_dim": 64, "decoder_num_heads": 2}
SIZES = {"model": {**tiny.values()["model"], **WIDE, "img_size": 32}}
POOLED = {"lower_steps": 1, "mask_pooling": True, "solver": "explicit", "upper_every": 5}
CASES: dict[str, dict[str, Any]] = {
    "MAE": {**tiny.RANDOM, "levels__lower_steps": 1, "data__batch_size": 96},
    "learned": {"levels": {"lower_steps": 1}, "data__batch_size": 48, "data__feedback_batch_size": 16},
    "pooled, in bf16": {
        "train__amp": "bf16",
        "feedback": {"type": "nca"},
        "levels": POOLED,
        "data__batch_size": 144,
        "data__feedback_batch_size": 72,
    },
}


def config(case: str) -> PretrainConfig:
    found = tiny.config(**SIZES, **CASES[case])
    found.data.train["type"] = "cifar10"  # textures have a mask of the object
    return found


@pytest.mark.slow
@pytest.mark.skipif(not peak_memory.can_measure(), reason="resets the high-water mark of a process in /proc")
def test_memory_is_that_of_a_real_step(tmp_path: Path) -> None:
    """Within 15 %, and none of its parts could be left out."""
    paths = [tmp_path / f"{number}.json" for number in range(len(CASES))]
    for path, case in zip(paths, CASES, strict=True):
        path.write_text(json.dumps(config(case).to_dict()), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "peak_memory", *map(str, paths)],
        env={**tiny.environment(), **peak_memory.ENVIRONMENT},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    for case, line in zip(CASES, done.stdout.split(), strict=True):
        found, true = estimate(config(case), peak_memory.CLASSES), int(line)
        assert true > 200e6, f"{case}: too small to tell"
        assert found.peak == pytest.approx(true, rel=0.15), case
        for part in (found.states, found.activations):
            assert found.peak - part != pytest.approx(true, rel=0.15), f"{case}: too blunt"
        assert found.peak == found.weights + found.states + found.batches + found.activations


def test_optimizers_hold_two_numbers_for_each_parameter_that_moves() -> None:
    found = estimate(tiny.config(), tiny.CLASSES)
    moving = sum(found.parameters.values())  # but for the positions, which are few
    assert found.states == pytest.approx(2 * 4 * moving, rel=0.1)
    assert found.weights >= 4 * moving


def test_a_process_has_its_share() -> None:
    one, two = (estimate(tiny.config(data__batch_size=64, data__feedback_batch_size=64), 4, n) for n in (1, 2))
    assert (one.weights, one.states, one.batches) == (two.weights, two.states, 2 * two.batches)
    assert two.total == pytest.approx(one.total / 2, rel=0.01)
    assert two.activations < 0.7 * one.activations


def test_chunks_save_activations() -> None:
    whole, chunks = (estimate(tiny.config(data__batch_size=64, train__accumulate=n), 4) for n in (1, 4))
    assert chunks.activations < 0.6 * whole.activations
    assert chunks.operations["upper"] > whole.operations["upper"]  # the encoder's pass is repeated


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    estimate(tiny.config(), 4)
    assert torch.equal(before, torch.get_rng_state())
