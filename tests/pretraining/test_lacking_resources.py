"""What the system does not give, workers, memory or open files: one line, a status that is not 0, a run to resume."""

import os
import resource
import signal
from multiprocessing import Pipe
from pathlib import Path

import layouts
import pytest
import tiny
from run_samples import one_line
from torch.utils.data import get_worker_info

from mlomae.cli import main
from mlomae.common import checkpoint
from mlomae.common.errors import ConfigError, TrainingError, lack_of
from mlomae.common.workers import check_open_files
from mlomae.data import Stream
from mlomae.pretraining.trainer import Trainer


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for n in range(40):
        layouts.write_image(tmp_path / "data" / "train" / "ab"[n % 2] / f"{n}.jpg")
    train = {"type": "imagefolder", "root": str(tmp_path / "data"), "split": "train"}
    data = {"train": train, "eval": None, "batch_size": 4, "num_workers": 1}
    return tiny.write_config(tmp_path / "config.py", data=data, **tiny.RANDOM)


def test_a_worker_that_is_killed_ends_the_run_which_resumes(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work, read = tmp_path / "work", Stream.read

    def killed(self: Stream, start: int, size: int) -> object:
        if start >= 40 and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, start, size)

    monkeypatch.setattr(Stream, "read", killed)
    assert main(["pretrain", str(config), "--work-dir", str(work)]) == 2
    assert "a worker that reads images (process " in one_line(capsys.readouterr().err)
    assert checkpoint.list_checkpoints(work)
    monkeypatch.setattr(Stream, "read", read)
    assert main(["pretrain", str(config), "--work-dir", str(work), "--resume"]) == 0
    assert (work / "record.json").is_file()


def hung_up() -> EOFError:
    """What a connection raises whose other end is gone."""
    ours, theirs = Pipe()
    theirs.close()
    with pytest.raises(EOFError) as error:
        ours.recv()
    return error.value


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
        OSError(24, "Too many open files"),
        ConnectionResetError(104, "Connection reset by peer"),
        hung_up(),
        RuntimeError(
            "Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback (most\nMemoryError: allocate"
        ),
    ],
)
def test_what_is_lacking_is_said_in_one_line(
    error: Exception,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(self: Trainer) -> None:
        raise error

    monkeypatch.setattr(Trainer, "train", fail)
    assert main(["pretrain", str(config), "--work-dir", str(tmp_path / "work")]) == 2
    text = one_line(capsys.readouterr().err)
    assert "; " in text
    assert sum(words in text for words in ("out of memory", "too many files", "(process unknown) was ended")) == 1
    assert isinstance(lack_of(error), TrainingError)
    for error in (RuntimeError("a bug"), EOFError("a bug")):
        with pytest.raises(type(error), match="a bug"):  # which keeps its traceback
            main(["pretrain", str(config), "--work-dir", str(tmp_path / "bug")])


def test_workers_have_the_files_that_they_need_or_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (30, hard))
        check_open_files(0)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 30
        check_open_files(2)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 48  # with 32 a run of two workers fails
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (32, 32))
    with pytest.raises(ConfigError, match=r"32 are allowed; raise the limit with `ulimit -n 4096`"):
        check_open_files(2)
