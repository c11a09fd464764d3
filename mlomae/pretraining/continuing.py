"""Whether a run may go on with what its folder holds: the same configuration, data, version of the code and processes.

What is found is refused before anything is written, in one line that names the difference.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size

from mlomae import records
from mlomae.common import checkpoint
from mlomae.common.errors import CheckpointError, ConfigError, MlomaeError, counted
from mlomae.common.files import read_json
from mlomae.common.numerics import check_numerics
from mlomae.config.strict import build_dataclass, plain
from mlomae.data.content import check_same_data


def check_same_run(state: dict[str, Any], config: Any, meta: dict[str, Any], path: Path, free: frozenset[str]) -> None:
    """Raise CheckpointError if the run of ``config`` and ``meta`` is not the one that left ``state`` at ``path``.

    ``free``: as in `check_same_config`."""
    check_processes(state, path)
    try:
        saved = build_dataclass(type(config), plain(state["config"])).to_dict()  # newer keys at their defaults
    except ConfigError as error:
        raise CheckpointError(naming(path, error)) from error
    check_same_config(saved, config.to_dict(), path, free | _movable(state["meta"]))
    check_numerics(state["meta"], meta, path)
    check_same_data(state["meta"], meta, path)


def finished_record(work_dir: Path, resume: bool, portable: dict[str, Any], free: frozenset[str]) -> dict[str, Any]:
    """The record of the finished run in ``work_dir``, {} without one.

    Raises ConfigError if there is a run, finished or not, that ``resume`` does not ask for, or a pipe or device, which
    would be waited for; CheckpointError for a finished one of another configuration than ``portable``: its results
    would be replaced."""
    for path in (*work_dir.glob("*"), *work_dir.glob("checkpoints/*")):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ConfigError(f"'{path}' is neither a file nor a folder; remove it, or choose another --work-dir")
    path = work_dir / "record.json"
    if (checkpoint.list_checkpoints(work_dir) or path.exists()) and not resume:
        raise ConfigError(
            f"'{work_dir}' already holds a run; add --resume to continue it, or choose another --work-dir"
        )
    if not path.exists():
        return {}
    try:
        saved: dict[str, Any] = read_json(path)
        config = saved["config"]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"'{path}' is damaged; remove it, or choose another work dir") from error
    check_same_config(config, portable, path, free | _movable(saved))
    return saved


def _movable(kept: dict[str, Any]) -> set[str]:
    """The folders of images that are known by their content, which may be moved."""
    return {f"data.{part}.root" for part in records.contents_of(kept)}


def check_continues(
    work_dir: Path, finished: dict[str, Any], config: Any, meta: dict[str, Any], fmt: str, free: frozenset[str]
) -> None:
    """Raise CheckpointError, before anything is written, unless the run of ``config`` and ``meta`` continues what
    ``work_dir`` holds: its record ``finished`` and its newest checkpoint."""
    check_same_data(finished, meta, work_dir / "record.json")
    state, path, _ = checkpoint.load_newest(work_dir, fmt)
    if state is not None and path is not None:
        check_same_run(state, config, meta, path, free)


def naming(path: Path, error: MlomaeError) -> str:
    """The message of an error about a checkpoint, which names the file and a remedy."""
    said = str(error) if str(path) in str(error) or "work dir" in str(error) else f"checkpoint '{path}' {error}"
    return said if ";" in said else f"{said}; remove it to go on from an earlier one, or choose another work dir"


def check_processes(state: dict[str, Any], path: Path) -> None:
    """Raise CheckpointError for a checkpoint of another number of processes: sums over ranks are rounded in another
    order, and a transfer's draws differ, so that the run would have other bits than one that was not interrupted.

    Checkpoints of version 0.1 do not say how many there were."""
    before, now = state.get("processes") or get_world_size(), get_world_size()
    if before != now:
        how = f"torchrun --nproc-per-node {before}" if before > 1 else "one process, without torchrun"
        raise CheckpointError(
            f"'{path}' was made by {counted(before, 'process')}, and this run has {now}; resume it with as "
            f"many ({how}), or choose another work dir"
        )


def facts_of(config: Any, meta: Mapping[str, Any]) -> dict[str, Any]:
    """What all ranks of a run have to have in common, for `check_same_on_ranks`: the configuration but for folders,
    which machines may call otherwise, and what ``meta`` says of data, weights and versions.

    Not the commit, which git may find on some machines alone."""
    known = {name: value for name, value in meta.items() if name != "git_commit"}
    return flatten({"config": records.strip_paths(config.to_dict()), **known})


def check_same_config(saved: dict[str, Any], current: dict[str, Any], path: Path, free: frozenset[str]) -> None:
    """Raise CheckpointError if resuming would continue another experiment; names the first keys that differ.

    ``free``: keys that may differ because no number depends on them.
    """
    a, b = flatten(saved), flatten(current)
    different = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k) and k not in free)
    if different:
        shown = ", ".join(f"{k} ({a.get(k)!r} -> {b.get(k)!r})" for k in different[:3])
        raise CheckpointError(
            f"'{path}' was made with another configuration: {shown}; "
            "resume with the same one, or choose another work dir"
        )


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted keys; an empty one stays a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat
