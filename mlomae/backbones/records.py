"""What a record says of configuration and data, the folder it is written into, and the clock of a transfer's parts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Protocol

from mlomae import records
from mlomae.backbones.config import TransferConfig
from mlomae.backbones.provenance import Provenance
from mlomae.backbones.training import TASK
from mlomae.common.checkpoint import list_checkpoints
from mlomae.common.errors import CheckpointError, ConfigError
from mlomae.pretraining.trainer import check_same_config


class Images(Protocol):
    """A data source as a record describes it."""

    name: str
    root: str

    def __len__(self) -> int: ...

    def describe(self) -> str: ...


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(started: tuple[float, float]) -> dict[str, float]:
    return {kind: now - then for kind, now, then in zip(("wall", "cpu"), now(), started, strict=True)}


def described(config: TransferConfig, origin: Provenance) -> dict[str, Any]:
    """The configuration as a record keeps it: what the backbone is, not the path, under which anything may lie."""
    plain = config.to_dict()
    plain["backbone"]["weights"] = origin.identity
    return dict(records.strip_paths(plain))


def check_folder(work_dir: Path, resume: bool, portable: dict[str, Any]) -> None:
    """Raise ConfigError if ``work_dir`` holds a run, finished or not, that ``resume`` does not ask for, CheckpointError
    if it holds a finished run of another configuration: its results would be replaced."""
    path = work_dir / "record.json"
    if (list_checkpoints(work_dir) or path.exists()) and not resume:
        raise ConfigError(
            f"'{work_dir}' already holds a run; add --resume to go on with it, or choose another --work-dir"
        )
    if not path.exists():
        return
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))["config"]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"'{path}' is damaged; remove it, or choose another work dir") from error
    check_same_config(saved, portable, path, TASK.free_to_change)


def describe_images(source: Images) -> str:
    """A source in words and numbers, without the path it lies under."""
    return f"{source.describe()}, {len(source)} images".replace(source.root, Path(source.root).name)
