"""The record of a transfer, the folder it is written into, and the clock of its parts."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path
from typing import Any, Protocol

from benchmarks import records
from benchmarks.transfer.origin import Origin
from benchmarks.transfer.runner import TransferRunner
from mlomae.engine.checkpoint import list_checkpoints
from mlomae.engine.exact_runner import check_same_config
from mlomae.errors import CheckpointError, ConfigError


class Settings(Protocol):
    """What every transfer's configuration has."""

    name: str
    seed: int
    demo: bool

    def to_dict(self) -> dict[str, Any]: ...


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


def described(config: Settings, origin: Origin) -> dict[str, Any]:
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
    check_same_config(saved, portable, path, TransferRunner.free_to_change)


def run_meta(config: Settings, origin: Origin, git: tuple[str | None, bool | None]) -> dict[str, Any]:
    """What the checkpoints of a run keep beside its configuration; ``origin`` is compared on resume."""
    weights = {**origin.identity, "sha256": origin.details.get("sha256")}
    return {"name": config.name, "seed": config.seed, "git_commit": git[0], "origin": weights}


def describe_images(source: Images) -> str:
    """A source in words and numbers, without the path it lies under."""
    return f"{source.describe()}, {len(source)} images".replace(source.root, Path(source.root).name)


def make_record(
    config: Settings,
    origin: Origin,
    *,
    task: str,
    train: Images,
    test: Images,
    iterations: int,
    images_seen: int,
    clock: dict[str, float],
    metrics: dict[str, Any],
    git: tuple[str | None, bool | None],
) -> dict[str, Any]:
    """Schema of `benchmarks.records`; ``pretrained`` says which backbone, its identity is part of the configuration.

    ``git``: commit and whether the checkout was dirty when the run began.
    """
    portable = described(config, origin)
    return {
        "schema": records.SCHEMA,
        "name": config.name,
        "method": origin.method,
        "task": task,
        "dataset": train.name,
        "demo": config.demo,
        "seed": config.seed,
        "config": portable,
        "config_hash": records.config_hash(portable),
        "versions": records.versions(),
        "hardware": records.hardware(),
        "images_seen": {"lower": images_seen, "head": 0, "upper": 0},
        "outer_iterations": iterations,
        "wall_clock_s": round(clock["wall"], 2),
        "cpu_s": round(clock["cpu"], 2),
        "split_hash": None,
        "train_source": describe_images(train),
        "eval_source": describe_images(test),
        "pretrained": origin.details,
        "metrics": metrics,
        "git_commit": git[0],
        "git_dirty": git[1],
        "finished_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def write_records(record: dict[str, Any], work_dir: Path, records_dir: Path | None) -> None:
    """Into the run's folder, replacing the same run's, and into ``records_dir``, where nothing is ever replaced."""
    path = work_dir / "record.json"
    path.unlink(missing_ok=True)
    records.write_record(record, path)
    if records_dir is not None:
        name = f"{record['name']}_{records.slug(record['method'])}_seed{record['seed']}.json"
        records.write_record(record, records_dir / name)
