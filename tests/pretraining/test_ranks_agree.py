"""Ranks that are not to compute the same, are refused, are killed or stopped: all end, with one line and in time."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from on_two_ranks import in_two_forks, two_processes
from run_samples import one_line

from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.common.errors import CheckpointError, ConfigError
from mlomae.pretraining.run import run_pretraining

SHORT: dict[str, Any] = {"data__eval": None, "train__outer_iterations": 2, **tiny.RANDOM}
REFUSED = str(Path(__file__).parents[1] / "helpers" / "refused_ranks.py")


def textures(count: int) -> dict[str, Any]:
    return {**tiny.values()["data"]["train"], "count": count}


@pytest.mark.parametrize(
    ("others", "named"),
    [
        ({"seed": 1}, r"config\.seed is 0 on rank 0 and 1 on rank 1"),
        ({"data__train": textures(80)}, r"count is 96 on rank 0 and 80 on rank 1; split_hash is \w+"),
        ({"train__outer_iterations": 3}, r"config\.train\.outer_iterations is 2 on rank 0 and 3 on rank 1"),
        ({"train__log_interval": 1}, r"log_interval is 2 on rank 0 and 1 on rank 1"),
    ],
)
def test_ranks_that_differ_stop_before_the_first_step(others: dict[str, Any], named: str, tmp_path: Path) -> None:
    def refused(rank: int) -> None:
        config = tiny.config(**SHORT | (others if rank else {}))
        with pytest.raises(ConfigError, match=named) as error:
            run_pretraining(config, tmp_path)
        one_line(error.value)
        assert not list(tmp_path.rglob("*.pth"))

    in_two_forks(refused, seconds=60)


def test_initial_weights_that_differ_are_noticed(tmp_path: Path) -> None:
    """Whatever they were read from: two files may have one name on two machines."""
    weights = [checkpoint_path(tmp_path / str(seed), 2) for seed in (5, 6)]
    for seed in (5, 6):
        run_pretraining(tiny.config(**SHORT | {"seed": seed}), tmp_path / str(seed))

    def refused(rank: int) -> None:
        config = tiny.config(**SHORT, init_from=str(weights[rank]))
        with pytest.raises(ConfigError, match=r"weights is '\w+' on rank 0 and '\w+' on rank 1"):
            run_pretraining(config, tmp_path / "run")

    in_two_forks(refused, seconds=60)


@pytest.mark.parametrize(("before", "remedy"), [(1, "without torchrun"), (4, "--nproc-per-node 4"), (None, "")])
def test_a_checkpoint_of_another_number_of_processes_is_refused(
    before: int | None, remedy: str, tmp_path: Path
) -> None:
    """Those of version 0.1 do not have it."""
    config, alone = tiny.config(**SHORT), tmp_path / "alone"
    run_pretraining(config, alone)
    state = load_checkpoint(checkpoint_path(alone, 2))
    assert state["processes"] == 1
    state = {**state, "processes": before} if before else {k: v for k, v in state.items() if k != "processes"}
    torch.save(state, checkpoint_path(alone, 2))

    def resumed(rank: int) -> None:
        if before is None:
            run_pretraining(config, alone, resume=True)
            return
        with pytest.raises(CheckpointError, match=f"made by {before} process.* this run has 2; .*{remedy}") as error:
            run_pretraining(config, alone, resume=True)
        one_line(error.value)

    in_two_forks(resumed, seconds=60)


def ended(processes: list[subprocess.Popen[str]], errors: Path, seconds: float) -> list[tuple[int, list[str]]]:
    """Status and lines of error of each process, all of which end within that time."""
    deadline = time.monotonic() + seconds
    try:
        found = [process.wait(max(0.1, deadline - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            process.kill()
    said = [(errors / f"rank{rank}").read_text() for rank in range(2)]
    return [
        (status, [line for line in text.splitlines() if not line.startswith("[") and "arn" not in line])
        for status, text in zip(found, said, strict=True)
    ]


@pytest.mark.parametrize("refusal", ["", "test images are training images; remove them"])
def test_rank_0_may_work_alone_and_its_refusal_ends_the_others(refusal: str, tmp_path: Path) -> None:
    config = tiny.write_config(tmp_path / "config.py", train__outer_iterations=2, **tiny.RANDOM)
    program = (REFUSED, str(config), str(tmp_path / "work"), *([refusal] if refusal else []))
    first, second = ended(two_processes(*program, errors=tmp_path), tmp_path, 120)
    if refusal:
        assert first == (2, [f"error: {refusal}"])
        assert second == (2, [f"error: rank 0 has ended this run: {refusal}"])
    else:
        assert first == second == (0, [])


@pytest.mark.slow  # a rank is given 40 seconds
@pytest.mark.parametrize(("rank", "how"), [(1, "SIGKILL"), (1, "SIGSTOP"), (0, "SIGKILL"), (0, "SIGSTOP")])
def test_a_lost_rank_ends_the_others_within_a_minute(rank: int, how: str, tmp_path: Path) -> None:
    """Rank 0 has the store by which they met."""
    config = tiny.write_config(tmp_path / "config.py", **SHORT | {"train__outer_iterations": 100_000})
    work = tmp_path / "work"
    program = ("-m", "mlomae.cli", "pretrain", str(config), "--work-dir", str(work))
    processes = two_processes(*program, errors=tmp_path)
    lost, other = processes[rank], processes[1 - rank]
    try:
        deadline = time.monotonic() + 120
        while not list(work.glob("checkpoints/iter_*.pth")):
            assert time.monotonic() < deadline, [(tmp_path / f"rank{r}").read_text()[-2000:] for r in range(2)]
            time.sleep(0.1)
        lost.send_signal(getattr(signal, how))
        started = time.monotonic()
        assert other.wait(60) == 2
        assert time.monotonic() - started < 60
    finally:
        lost.kill()
    _, lines = ended(processes, tmp_path, 5)[1 - rank]
    assert lines == [f"error: rank {rank} of this run no longer answers; see its log, then go on with --resume"]
