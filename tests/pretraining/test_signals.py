"""SIGTERM and SIGUSR1 write a checkpoint after the step and end the run; resumed, it has the same bits."""

import json
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cls_runs
import pytest
import tiny
import torch
from on_two_ranks import in_two_forks
from run_samples import one_line

from mlomae.backbones import training
from mlomae.cli import main
from mlomae.common.checkpoint import TRANSFER_FORMAT, checkpoint_path, list_checkpoints, load_checkpoint
from mlomae.pretraining import stopping
from mlomae.pretraining.run import run_pretraining
from mlomae.pretraining.step import PretrainStep
from mlomae.pretraining.stopping import Stopped

LAST = 10
VALUES: dict[str, Any] = {  # logs and checkpoints are at other iterations than signals
    "name": "signals",
    "data__eval": None,
    "feedback": {"type": "nca"},
    "train__log_interval": 5,
    "train__checkpoint_interval": 10,
    "train__picture_interval": 99,
}


@pytest.fixture(scope="module")
def undisturbed(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("undisturbed")
    run_pretraining(tiny.config(**VALUES), work)
    return work


def signalled(
    monkeypatch: pytest.MonkeyPatch, *signals: tuple[int, str], after: Callable[[], None] = lambda: None
) -> None:
    """Signals arrive within outer iterations, counted from 0."""
    call = PretrainStep.__call__

    def step(self: PretrainStep, data: dict, t: int) -> dict[str, torch.Tensor]:
        for at, name in signals:
            if at == t:
                os.kill(os.getpid(), getattr(signal, name))
                after()
        return call(self, data, t)

    monkeypatch.setattr(PretrainStep, "__call__", step)


def test_signals_at_any_iteration_leave_the_bits_as_they_are(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny.write_config(tmp_path / "config.py", **VALUES)
    work = tmp_path / "work"
    command = ["pretrain", str(config), "--work-dir", str(work), "--resume"]
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    for t, name in ((2, "SIGTERM"), (4, "SIGTERM"), (6, "SIGUSR1")):  # the second before a log, without a checkpoint
        with monkeypatch.context() as patch:
            signalled(patch, (t, name))
            assert main(command) == 75
        path = checkpoint_path(work, t + 1)
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"stopped by {name} after {t + 1} iterations, which '{path}' holds; go on with --resume"
        assert list_checkpoints(work)[-1] == path
        assert ("interval" in load_checkpoint(path)) == (t != 4)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before
    assert main(command) == 0
    states = [load_checkpoint(checkpoint_path(folder, LAST)) for folder in (work, undisturbed)]
    assert tiny.state_differences(*states) == []
    resumed, straight = (json.loads((folder / "record.json").read_text()) for folder in (work, undisturbed))
    assert resumed["metrics"] == straight["metrics"]
    assert resumed["curves"] == straight["curves"]


@pytest.mark.parametrize("lost", ["sums", "curves", "iteration"])
def test_a_part_of_the_interval_that_is_lost_is_noticed(
    lost: str, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        signalled(patch, (6, "SIGUSR1"))
        with pytest.raises(Stopped):
            run_pretraining(tiny.config(**VALUES), tmp_path)
    state = load_checkpoint(path := checkpoint_path(tmp_path, 7))
    if lost == "sums":
        state["interval"][0] |= {"sums": {}, "terms": {}}
    elif lost == "curves":
        state["interval"][0]["parts"]["curves"] = {}
    else:
        state["iteration"] = 6
        path.unlink()
    torch.save(state, checkpoint_path(tmp_path, state["iteration"]))
    run_pretraining(tiny.config(**VALUES), tmp_path, resume=True)
    states = [load_checkpoint(checkpoint_path(folder, LAST)) for folder in (tmp_path, undisturbed)]
    assert tiny.state_differences(*states)


def test_a_signal_to_one_rank_stops_all_after_the_same_step(tmp_path: Path) -> None:
    def runs(rank: int) -> None:
        config = tiny.config(**VALUES)
        run_pretraining(config, tmp_path / "straight")
        for t in (2, 6):
            with pytest.MonkeyPatch.context() as patch:
                if rank == 1:
                    signalled(patch, (t, "SIGTERM"))
                with pytest.raises(Stopped, match=f"after {t + 2} iterations"):
                    run_pretraining(config, tmp_path / "work", resume=True)
            assert list_checkpoints(tmp_path / "work")[-1] == checkpoint_path(tmp_path / "work", t + 2)
        run_pretraining(config, tmp_path / "work", resume=True)

    in_two_forks(runs, seconds=120)
    states = [load_checkpoint(checkpoint_path(tmp_path / work, LAST)) for work in ("straight", "work")]
    assert states[0]["processes"] == 2
    assert tiny.state_differences(*states) == []


def test_a_transfer_whose_workers_are_signalled_too_is_resumed_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = cls_runs.config(data__num_workers=1)
    cls_runs.run_transfer(config, tmp_path / "straight")
    average, calls = training.mean_over_ranks, iter(range(99))

    def signalling(gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if next(calls) == 4:
            workers = [child.pid for child in multiprocessing.active_children() if child.pid]
            assert workers
            # by another process, as schedulers do: torch's workers end quietly if their parent asks for it
            subprocess.run(["kill", "-TERM", *map(str, workers), str(os.getpid())], check=True)
            time.sleep(0.5)
        return average(gradients)

    with monkeypatch.context() as patch:
        patch.setattr(training, "mean_over_ranks", signalling)
        with pytest.raises(Stopped, match="after 5 iterations"):
            cls_runs.run_transfer(config, tmp_path / "work")
    cls_runs.run_transfer(config, tmp_path / "work", resume=True)
    found = [load_checkpoint(checkpoint_path(tmp_path / w, 12), TRANSFER_FORMAT) for w in ("work", "straight")]
    assert tiny.state_differences(*found) == []


def test_a_second_sigterm_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless it is the first one, passed on by a launcher."""
    config = tiny.write_config(tmp_path / "config.py", **VALUES | tiny.RANDOM)
    monkeypatch.setattr(stopping, "SAME", 0.2)
    with monkeypatch.context() as patch:
        signalled(patch, (2, "SIGTERM"), (2, "SIGTERM"))
        assert main(["pretrain", str(config), "--work-dir", str(tmp_path / "same")]) == 75
    signalled(monkeypatch, (2, "SIGTERM"), (2, "SIGTERM"), after=lambda: time.sleep(0.3))
    capsys.readouterr()
    assert main(["pretrain", str(config), "--work-dir", str(tmp_path / "second")]) == 130
    assert "interrupted" in one_line(capsys.readouterr().err)
    assert not list_checkpoints(tmp_path / "second")


def test_outside_training_a_signal_ends_the_run_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny.write_config(tmp_path / "config.py", **VALUES | tiny.RANDOM)
    monkeypatch.setattr("mlomae.pretraining.run.keep_digests", lambda *args: os.kill(os.getpid(), signal.SIGUSR1))
    assert main(["pretrain", str(config), "--work-dir", str(tmp_path / "work")]) == 75
    assert one_line(capsys.readouterr().err).startswith("stopped by SIGUSR1; ")


def test_signals_are_left_alone_in_other_threads_and_where_a_program_handles_them() -> None:
    def other(number: int, frame: Any) -> None: ...

    before = signal.signal(signal.SIGUSR1, other)
    try:
        with stopping.stoppable():
            assert signal.getsignal(signal.SIGUSR1) is other
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)
    found: list[Any] = []

    def inside() -> None:
        with stopping.stoppable():
            found.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [before]
