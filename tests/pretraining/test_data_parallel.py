"""Two processes with half of each batch do what one does with the whole; forgetting one average does not, nor
does a loss that couples images and sees those of one process alone.

In float64: AdamW's first steps are g/(|g| + 1e-8) and would turn float32 rounding of zero gradients into real steps.
"""

import subprocess
import sys
from typing import Any
from unittest import mock

import pytest
import tiny
import torch
import two_ranks

from mlomae.common.errors import ConfigError
from mlomae.pretraining import step

Found = dict[str, Any]
TOLERANCE = 1e-10


@pytest.fixture(scope="module")
def ranks(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, Found, Found]:
    """What rank 0, rank 1 and one process alone found."""
    out = tmp_path_factory.mktemp("ranks")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "two_ranks", str(out)]
    done = subprocess.run(command, env=tiny.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    return first, second, two_ranks.variants(out)


def error(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest difference, relative to the norm of all of ``b``."""
    assert a.keys() == b.keys()
    scale = torch.stack([t.norm() for t in b.values()]).norm()
    return max(float((a[k] - b[k]).abs().max() / scale) for k in b)


def update(found: Found) -> dict[str, torch.Tensor]:
    return {k: v - found["start"][k] for k, v in found["parameters"].items()}


@pytest.mark.parametrize("variant", ["as it is", "normalised by weight"])
def test_two_ranks_equal_one_process(ranks: tuple[Found, Found, Found], variant: str) -> None:
    first, second, alone = (found[variant] for found in ranks)
    assert tiny.differences(first["start"], alone["start"]) == []
    assert tiny.differences(first["parameters"], second["parameters"]) == [], "the ranks drift apart"
    assert len(alone["losses"]) == 2
    assert len(alone["gradients"]) == 2 * 4  # K = 2 on theta, one on omega, one on phi
    for a, b, whole in zip(first["losses"], second["losses"], alone["losses"], strict=True):
        assert whole.keys() == {"loss_lower", "loss_head", "loss_upper"}
        for name in whole:  # reported losses are each rank's own
            assert float(a[name]) != float(b[name])
            assert float((a[name] + b[name]) / 2) == pytest.approx(float(whole[name]), rel=TOLERANCE)
    for mine, whole in zip(first["gradients"], alone["gradients"], strict=True):
        assert error(mine, whole) < TOLERANCE
    assert error(update(first), update(alone)) < 1e-7


@pytest.mark.parametrize("level", ["mask", "head"])
def test_forgetting_one_average_is_noticed(ranks: tuple[Found, Found, Found], level: str) -> None:
    variant = f"{level} gradient not averaged"
    first, second, alone = (found[variant] for found in ranks)
    assert tiny.differences(alone, ranks[2]["as it is"]) == [], "one process must not tell the difference"
    module = {"mask": "mask.", "head": "feedback."}[level]
    drifted = tiny.differences(first["parameters"], second["parameters"])
    assert any(module in key for key in drifted)
    assert error(update(first), update(alone)) > 1e-3
    assert any(error(mine, whole) > 1e-3 for mine, whole in zip(first["gradients"], alone["gradients"], strict=True))


@pytest.mark.parametrize("variant", two_ranks.COUPLED)
def test_a_loss_that_couples_images_is_that_of_the_global_batch(
    ranks: tuple[Found, Found, Found], variant: str
) -> None:
    first, second, alone = (found[variant] for found in ranks)
    assert tiny.differences(first["parameters"], second["parameters"]) == [], "the ranks drift apart"
    for a, b, whole in zip(first["losses"], second["losses"], alone["losses"], strict=True):
        for name in whole:
            assert float((a[name] + b[name]) / 2) == pytest.approx(float(whole[name]), rel=TOLERANCE)
    assert len(alone["gradients"]) == 2 * (2 + sum(name in alone["losses"][0] for name in ("loss_head", "loss_upper")))
    for mine, whole in zip(first["gradients"], alone["gradients"], strict=True):
        assert error(mine, whole) < TOLERANCE


@pytest.mark.parametrize("mutation", two_ranks.MUTATIONS)
def test_gathering_in_another_way_is_noticed(ranks: tuple[Found, Found, Found], mutation: str) -> None:
    variant = two_ranks.MUTATIONS[mutation][0]
    pairs = zip(ranks[0][mutation]["gradients"], ranks[2][variant]["gradients"], strict=True)
    assert max(error(mine, whole) for mine, whole in pairs) > 1e-3


@pytest.mark.parametrize("variant", ["uniformity", "cl_mae"])
def test_chunks_that_are_compared_within_are_refused(variant: str) -> None:
    model, _ = tiny.trainer(tiny.config(**two_ranks.COUPLED[variant], train__accumulate=2))
    tiny.step_of(model)
    with mock.patch.object(step, "get_world_size", return_value=2), pytest.raises(ConfigError, match="accumulate=1"):
        tiny.step_of(model)
