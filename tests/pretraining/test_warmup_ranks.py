"""Two processes end the warm-up at the same iteration, which is the one that a single process finds."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import warmup_ranks


@pytest.mark.slow
def test_two_ranks_decide_together_and_as_one_process(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "warmup_ranks", str(tmp_path)]
    done = subprocess.run(command, env=tiny.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    alone = warmup_ranks.train(tmp_path / "alone")
    assert 1 <= alone["watch"]["begin"] < warmup_ranks.ITERATIONS, "a test that decides nothing"
    assert first["watch"] == second["watch"] == alone["watch"]
    assert first["own"] != second["own"], "each rank has judged its own images"
    for a, b, whole in zip(first["own"], second["own"], alone["own"], strict=True):
        assert a + b == whole
    assert first["rates"] == second["rates"] == pytest.approx(alone["rates"], rel=1e-12)
    assert tiny.differences(first["parameters"], second["parameters"]) == []
