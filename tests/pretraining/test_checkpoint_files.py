"""Checkpoint files: whole or absent, read without running code, and never a state that cannot be resumed."""

import errno
import io
import os
import pickle
import resource
import zipfile
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from mlomae.common import checkpoint
from mlomae.common.errors import CheckpointError, TrainingError
from mlomae.models import MAE
from mlomae.models.weights import read_weights
from mlomae.multilevel.step import OuterStep
from mlomae.pretraining.run import run_pretraining

OLD = {
    "format": checkpoint.FORMAT,
    "iteration": 1,
    "modules": {"mae": {"w": torch.arange(3.0)}},
    "config": {},
    "meta": {},
}
OLD |= {"clock": {"wall": 1.0, "cpu": 1.0}, "optimizers": {}, "logged": {}, "rng": checkpoint.rng_state()}
NEW = {**OLD, "iteration": 2, "modules": {"mae": {"w": torch.zeros(100_000)}}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "iter_1.pth"
    checkpoint.save_atomically(OLD, path)
    return path


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def half_then_full_disk(content: Any, file: Any) -> None:
    buffer = io.BytesIO()
    SAVE(content, buffer)
    file.write(buffer.getvalue()[: buffer.tell() // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


SAVE = torch.save


def test_what_is_saved_is_loaded(path: Path) -> None:
    assert tiny.differences(checkpoint.load_checkpoint(path), OLD) == []
    checkpoint.save_atomically(NEW, path)
    assert tiny.differences(checkpoint.load_checkpoint(path), NEW) == []
    assert [p.name for p in path.parent.iterdir()] == ["iter_1.pth"]


def test_a_full_disk_leaves_the_old_file_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", half_then_full_disk)
    with pytest.raises(CheckpointError) as error:
        checkpoint.save_atomically(NEW, path)
    text = one_line(error)
    assert str(path) in text
    assert "No space left on device" in text
    assert "free disk space, then resume" in text
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["iter_1.pth"], "the half file stayed"


def test_a_write_that_the_system_cuts_short_leaves_the_old_file_alone(path: Path) -> None:
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(CheckpointError, match="cannot be written") as error:
            checkpoint.save_atomically(NEW, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(path) in one_line(error)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["iter_1.pth"]


def test_a_failed_sync_is_a_failed_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CheckpointError, match="Input/output error"):
        checkpoint.save_atomically(NEW, path)
    assert tiny.differences(checkpoint.load_checkpoint(path), OLD) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match="cannot be written") as error:
        checkpoint.save_atomically(OLD, tmp_path / "checkpoints" / "iter_1.pth")
    one_line(error)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_not_run(container: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / "iter_1.pth"
    content = {**OLD, "meta": Malicious(marker)}
    if container == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="damaged or holds code, and was not loaded") as error:
        checkpoint.load_checkpoint(path)
    assert str(path) in one_line(error)
    assert not marker.exists()
    if container == "torch":
        torch.load(path, weights_only=False)
        assert marker.exists(), "the file is harmless, the test proves nothing"


def test_a_file_cut_anywhere_is_refused(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    for length in [0, 1, 2, 10, *range(50, len(content), 97), len(content) - 1]:
        cut = tmp_path / "cut.pth"
        cut.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            checkpoint.load_checkpoint(cut)


def test_a_bit_that_flips_anywhere_is_found(path: Path, tmp_path: Path) -> None:
    content, flipped = path.read_bytes(), tmp_path / "flipped.pth"
    for at in (*range(0, len(content) - 64, 3), *range(len(content) - 64, len(content))):
        flipped.write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
        with pytest.raises(checkpoint.DamagedCheckpoint) as error:
            checkpoint.load_checkpoint(flipped)
        assert str(flipped) in one_line(error)


def test_flipped_weights_are_found_by_all_readers(tmp_path: Path) -> None:
    path, weights = tmp_path / "iter_1.pth", torch.arange(3.0)
    checkpoint.save_atomically({**OLD, "modules": {"mae": {"encoder.w": weights}}}, path)
    content = path.read_bytes()
    assert content.count(weights.numpy().tobytes()) == 1
    path.write_bytes(content.replace(weights.numpy().tobytes(), (weights + 1).numpy().tobytes()))
    assert torch.load(path)["modules"]["mae"]["encoder.w"].tolist() == [1, 2, 3], "torch does not see it"
    for read in (checkpoint.load_checkpoint, read_weights):
        with pytest.raises(CheckpointError, match="is damaged"):
            read(path)


def test_files_are_those_that_torch_reads_and_older_ones_stay_readable(path: Path) -> None:
    for mmap in (False, True):
        assert tiny.differences(torch.load(path, mmap=mmap), OLD) == []
    assert zipfile.ZipFile(path).testzip() is None
    torch.save(OLD, path)  # as version 0.1 did
    assert tiny.differences(checkpoint.load_checkpoint(path), OLD) == []


def test_file_and_folder_are_on_the_disk_when_a_checkpoint_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: calls.append(os.readlink(f"/proc/self/fd/{d}")) or sync(d))
    monkeypatch.setattr(os, "replace", lambda *names: calls.append("rename") or replace(*names))
    checkpoint.save_atomically(NEW, path)
    assert calls == [str(path.with_name(".iter_1.pth.tmp")), "rename", str(path.parent)]


GARBAGE = [b"", b"hello", b"\x80\x02}q\x00.", b"\x80\x02N.", b"PK\x03\x04", b"\x80\x04", b"c"]


@pytest.mark.parametrize("content", GARBAGE)
def test_garbage_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "iter_1.pth").write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        checkpoint.load_checkpoint(tmp_path / "iter_1.pth")
    one_line(error)


@pytest.mark.parametrize("content", [{"state_dict": {}}, {"format": "mlomae-pretrain/0"}, [1, 2], torch.zeros(2)])
def test_a_checkpoint_of_something_else_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth' is not a training checkpoint of this project"):
        checkpoint.load_checkpoint(tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["iter_9.pth", "checkpoints"])
def test_a_missing_file_is_named(name: str, path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not exist; give the path of an iter_N\.pth file") as error:
        checkpoint.load_checkpoint(path.parents[1] / name)
    assert name in one_line(error)


def test_checkpoints_are_listed_by_number_and_pruned_from_the_oldest(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("iter_900.pth", "iter_1000.pth", "iter_20.pth", ".iter_1100.pth.tmp", "notes.txt", "iter_x.pth"):
        (folder / name).touch()
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == ["iter_20.pth", "iter_900.pth", "iter_1000.pth"]
    checkpoint.prune(tmp_path, 2)
    left = sorted(p.name for p in folder.iterdir())
    assert left == ["iter_1000.pth", "iter_900.pth", "iter_x.pth", "notes.txt"]
    checkpoint.prune(tmp_path, 5)
    assert len(checkpoint.list_checkpoints(tmp_path)) == 2
    assert checkpoint.list_checkpoints(tmp_path / "nowhere") == []


def test_a_run_keeps_the_newest_checkpoints_only(tmp_path: Path) -> None:
    changes = {"data__eval": None, "train__keep_checkpoints": 2, "train__checkpoint_interval": 1}
    run_pretraining(tiny.config(name="prune", **changes, **tiny.RANDOM), tmp_path)
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == ["iter_9.pth", "iter_10.pth"]


def test_generator_states_survive_a_checkpoint(tmp_path: Path) -> None:
    import random

    import numpy as np

    draw = lambda: (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), random.gauss(0, 1))  # noqa: E731, NPY002
    random.gauss(0, 1)  # leaves a second number for the next call
    checkpoint.save_atomically({**OLD, "rng": checkpoint.rng_state()}, tmp_path / "iter_1.pth")
    first = draw()
    assert draw() != first
    checkpoint.set_rng_state(checkpoint.load_checkpoint(tmp_path / "iter_1.pth")["rng"])
    assert draw() == first


def test_nan_in_a_loss_stops_before_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, error_of = iter(range(100)), MAE.error_of
    monkeypatch.setattr(MAE, "error_of", lambda *given: error_of(*given) * (torch.nan if next(calls) > 8 else 1.0))
    with pytest.raises(
        TrainingError,
        match=r"loss_lower is not finite \(nan\).*6; start again in another --work-dir with a lower optim",
    ) as error:
        run_pretraining(tiny.config(name="nan", **tiny.RANDOM, train__checkpoint_interval=3), tmp_path)
    one_line(error)
    (last,) = checkpoint.list_checkpoints(tmp_path)
    state = checkpoint.load_checkpoint(last)
    assert state["iteration"] == 3
    assert all(torch.isfinite(t).all() for t in state["modules"]["mae"].values())


@pytest.mark.parametrize("level", ["theta", "phi"])
def test_nan_in_an_update_is_not_checkpointed(level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses of the iteration are those before the update, so they are still finite."""
    apply, calls = OuterStep._apply, iter(range(100))

    def poisoned(self: OuterStep, which: str, params: dict, g: dict) -> None:
        if which == level and next(calls) == {"theta": 7, "phi": 3}[level]:  # the last step of iteration 4
            g = {k: t * torch.nan for k, t in g.items()}
        apply(self, which, params, g)

    monkeypatch.setattr(OuterStep, "_apply", poisoned)
    # the upper losses would notice a poisoned theta within the same iteration: random masks have none
    changes = tiny.RANDOM if level == "theta" else {}
    with pytest.raises(TrainingError, match=r"weights are not finite after iteration 4") as error:
        run_pretraining(tiny.config(name=f"poison {level}", **changes), tmp_path)
    one_line(error)
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == ["iter_2.pth"]
