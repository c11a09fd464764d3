"""Training checkpoints: written to a temporary name and renamed, with a checksum; loaded without running code.

A checkpoint is a dict of tensors and plain Python values, a `State`. Of a pretraining ``modules`` are mae, mask,
feedback, and average and auxiliary if there are any, ``optimizers`` one for each level; it has ``watch`` (the feedback
gate: when φ began, and the evidence so far) and ``curves`` (sums of the losses so far), too. Version 0.1 wrote
``schedulers``, which nothing reads: rates are functions of the iteration. One that a signal asked for between two logs
also has ``interval``: every rank's sums of losses since the last log.

The file is a zip archive, as torch writes it. Its comment is the checksum of all bytes before, since torch does not
look at the archive's own ones; files of earlier versions have no comment.
"""

import hashlib
import random
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mlomae.common.atomic import replacing
from mlomae.common.errors import CheckpointError, is_out_of_memory, reason_of
from mlomae.common.registry import NotNegative
from mlomae.common.structure import Number, Plain, check_structure

FORMAT = "mlomae-pretrain/1"
TRANSFER_FORMAT = "mlomae-transfer/1"
KINDS = {
    FORMAT: "a pretraining's",
    TRANSFER_FORMAT: "a transfer's, of `mlomae classify` or `bench`",
}
"""How messages call the checkpoints of a format."""
WRITTEN = "use one as a run has written it"
_SEAL = b"blake2b:"
_DIGEST = 16  # bytes
_END = b"PK\x05\x06"  # how the last record of a zip archive begins; with its comment it ends the file
_END_SIZE = 22  # of that record without a comment, whose length is its last two bytes
_NAME = re.compile(r"iter_(\d+)\.pth$")


class OtherCheckpoint(CheckpointError):
    """A checkpoint of a run of another kind than the one that is needed."""


class Content(TypedDict):
    """A source of images, as `mlomae.data.content` describes it."""

    name: str
    images: Number
    classes: str
    pixels: str
    content: str


class Meta(TypedDict, total=False):
    """What a checkpoint says of its run besides the configuration; a transfer has the last six, but those of
    early versions no ``task`` and no ``classes``."""

    name: str
    seed: int
    split_hash: str | None
    git_commit: str | None
    numerics: dict[str, Number]
    data: dict[str, Content]
    lowered: dict[str, Number]
    origin: dict[str, Any]
    pretrained: dict[str, Any]
    labelled: list[dict[str, Any]]
    model: dict[str, NotNegative | bool]
    task: str
    classes: list[str]


class Weights(TypedDict):
    """What everything that reads a checkpoint needs; ``iteration``: how many are done."""

    format: str
    iteration: Number
    config: dict[str, Plain]
    meta: Meta
    modules: dict[str, dict[str, Tensor]]


class Clock(TypedDict):
    """Seconds of training so far."""

    wall: NotNegative
    cpu: NotNegative


class Group(TypedDict):
    """Parameters of an optimizer, by number, and their learning rate."""

    params: list[Number]
    lr: NotNegative


class OptimizerState(TypedDict):
    """``state``: by the number of a parameter."""

    state: dict[int, dict[str, Tensor | None]]
    param_groups: list[Group]


class Rng(TypedDict):
    """States of the global generators, see `rng_state`."""

    torch: Tensor
    numpy: list
    python: list


class State(Weights):
    """What a run goes on from; ``logged``: the last values of the log."""

    clock: Clock
    optimizers: dict[str, OptimizerState]
    rng: Rng
    logged: dict[str, float]


class DamagedCheckpoint(CheckpointError):
    """The file is not what was written, or never was a checkpoint."""


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """Write ``content`` so that ``path`` is either the old file or the complete new one, never half of one.

    Raises CheckpointError if the disk is full or not writable; an existing file stays as it was.
    """
    try:
        with replacing(path, alone=True) as temporary, open(temporary, "w+b") as file:
            torch.save(content, file)
            size = file.seek(-2, 2) + 2
            file.write((len(_SEAL) + _DIGEST).to_bytes(2, "little"))
            digest = _digest(file, size)
            file.write(_SEAL + digest)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise CheckpointError(
            f"checkpoint '{path}' cannot be written ({reason}); free disk space, then resume: "
            "earlier checkpoints are intact"
        ) from error


def _digest(file: BinaryIO, size: int) -> bytes:
    """Of the first ``size`` bytes, which are read."""
    digest, block = hashlib.blake2b(digest_size=_DIGEST), 1 << 20
    file.seek(0)
    for start in range(0, size, block):
        digest.update(file.read(min(block, size - start)))
    return digest.digest()


def check_intact(path: Path) -> None:
    """Raise DamagedCheckpoint unless the file has the bytes that were written, as far as its version can tell."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END_SIZE - len(_SEAL) - _DIGEST))
        tail = file.read()
        end, seal = tail[:_END_SIZE], tail[_END_SIZE:]
        sealed = end.startswith(_END) and seal == _SEAL + _digest(file, size - len(seal))
    if not sealed and not (tail[-_END_SIZE:].startswith(_END) and tail.endswith(b"\0\0")):  # of an earlier version
        raise DamagedCheckpoint(f"checkpoint '{path}' is damaged: its checksum is another one; use another checkpoint")


def load_checkpoint(path: str | Path, fmt: str = FORMAT, schema: Any = State) -> dict[str, Any]:
    """Read a checkpoint of format ``fmt`` onto the CPU; tensors and plain values only (``weights_only``).

    ``schema``: the fields that it must have, `State` or `Weights`. Raises CheckpointError if the file is missing,
    cannot be read, is not one of ours or lacks a field, DamagedCheckpoint if it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint '{path}' does not exist; give the path of an iter_N.pth file")
    try:
        check_intact(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler raise KeyError, IndexError, ... too
        if isinstance(error, OSError) or is_out_of_memory(error):  # the file may well be good
            raise CheckpointError(
                f"checkpoint '{path}' cannot be read ({reason_of(error)}); free memory or fix the path, then try again"
            ) from error
        raise DamagedCheckpoint(
            f"checkpoint '{path}' is damaged or holds code, and was not loaded; use another one"
        ) from error
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, str) and found != fmt and found in KINDS:
        raise OtherCheckpoint(f"checkpoint '{path}' is {KINDS[found]}; give {KINDS[fmt]}")
    if found != fmt:
        raise CheckpointError(f"checkpoint '{path}' is not a training checkpoint of this project ({fmt})")
    check_structure(content, schema, f"checkpoint '{path}'", WRITTEN)
    return content


def trained_backbone(modules: dict[str, dict[str, Tensor]]) -> tuple[dict[str, Tensor], bool]:
    """The weights of a fine-tuning that were evaluated, and whether they are an average: of ``modules`` that have
    "backbone", its weights or their average, "ema"."""
    if "ema" not in modules:
        return dict(modules["backbone"]), False
    return {k.removeprefix("module."): t for k, t in modules["ema"].items() if k.startswith("module.")}, True


def format_of(path: Path) -> str | None:
    """The format that a checkpoint, or the newest one of a run's folder, says it has; None for anything else.

    Tensors are not read."""
    try:
        content = torch.load(newest_checkpoint(path), map_location="cpu", weights_only=True, mmap=True)
        return str(content["format"])
    except Exception:  # whoever reads it says what is wrong
        return None


def checkpoint_path(work_dir: Path, iteration: int) -> Path:
    return work_dir / "checkpoints" / f"iter_{iteration}.pth"


def best_path(work_dir: Path) -> Path:
    """Of the checkpoint that was chosen on a validation part, in a run that chooses."""
    return work_dir / "checkpoints" / "best.pth"


def list_checkpoints(work_dir: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [(int(m[1]), p) for p in (work_dir / "checkpoints").glob("iter_*.pth") if (m := _NAME.search(p.name))]
    return [path for _, path in sorted(found)]


def newest_checkpoint(path: Path) -> Path:
    """``path`` itself, or for the folder of a run the checkpoint that it chose, else its newest; CheckpointError for a
    folder without one."""
    if not path.is_dir():
        return path
    if best_path(path).is_file():
        return best_path(path)
    if not (checkpoints := list_checkpoints(path)):
        raise CheckpointError(f"folder '{path}' holds no checkpoint; give the folder of a run, or an iter_N.pth file")
    return checkpoints[-1]


def estimated_bytes(modules: Iterable[nn.Module], optimizers: Iterable[Optimizer]) -> int:
    """The size of a checkpoint: weights and buffers, and what an optimizer keeps of each parameter that is trained."""
    tensors = [t for module in modules for t in module.state_dict().values() if isinstance(t, torch.Tensor)]
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        kept = 2 if "betas" in group else 1 if group.get("momentum") else 0  # Adam's moments, or the momentum
        tensors += kept * [p for p in group["params"] if p.requires_grad]
    return sum(t.numel() * t.element_size() + 500 for t in tensors)  # torch.save writes about as many of each besides


def check_room(work_dir: Path, size: int, saves: int, keep: int) -> None:
    """Raise CheckpointError unless the disk has room for the checkpoints of a run: ``keep`` at a time, and one more
    while it is written. ``size``: of one in bytes; ``saves``: how many will be written."""
    present = len(list_checkpoints(work_dir))
    count = min(present + saves, keep + 1) - present
    free = shutil.disk_usage(next(path for path in (work_dir, *work_dir.absolute().parents) if path.is_dir())).free
    if count * size > free:
        raise CheckpointError(
            f"the disk of '{work_dir}' has {free / 1e6:,.1f} MB free, and {count} checkpoints at a time take "
            f"{size / 1e6:,.1f} MB each; free {(count * size - free) / 1e6:,.1f} MB, or name a folder on another disk "
            "with --work-dir"
        )


def load_newest(work_dir: Path, fmt: str) -> tuple[dict[str, Any] | None, Path | None, list[Path]]:
    """The newest checkpoint of a run that is not damaged, its path, and the damaged ones after it; Nones without any.

    Raises DamagedCheckpoint if all are damaged, and else as `load_checkpoint`.
    """
    found = list_checkpoints(work_dir)
    for at, path in reversed(list(enumerate(found))):
        try:
            return load_checkpoint(path, fmt), path, found[at + 1 :]
        except DamagedCheckpoint:
            if at == 0:
                raise
    return None, None, []


def prune(work_dir: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints, and temporary files a killed run left behind."""
    for path in list_checkpoints(work_dir)[:-keep]:
        path.unlink()
    for path in (work_dir / "checkpoints").glob(".iter_*.tmp"):
        path.unlink()


def rng_state() -> dict[str, Any]:
    """State of the global generators; training draws from counters, so this only protects users' own code."""
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "python": [random.getstate()[0], list(random.getstate()[1]), random.getstate()[2]],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Continue the generators from `rng_state`. Raises CheckpointError for a state that they refuse."""
    try:
        torch.set_rng_state(state["torch"])
        name, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"])
    except (RuntimeError, TypeError, ValueError, AttributeError, OverflowError) as error:  # each has its own checks
        raise CheckpointError(f"holds no state of the generators in 'rng' ({reason_of(error)})") from error
