"""Where the record of a run goes: checked before the run begins, written when it has ended.

`records_dir` holds the records of many runs and nothing in it is replaced; the run's own folder has a copy.
"""

import os
from pathlib import Path
from typing import Any

from mlomae.common.atomic import hidden_name, remove_leftovers
from mlomae.common.errors import ConfigError, DataError
from mlomae.config.strict import check_name
from mlomae.records import DIGEST, Record, claim_of, config_hash, read_record, sealed, write_record

OWN = "record.json"  # in the run's folder
# What may differ between records of one run: it is evaluated again if it is resumed after its end.
_OF_THE_END = {DIGEST, "finished_at", "wall_clock_s", "cpu_s", "git_commit", "git_dirty", "versions", "hardware"}


def same_run(a: Record, b: Record) -> bool:
    """Whether both are of one run, and of the same results."""
    return all(a.get(key) == b.get(key) for key in (a.keys() | b.keys()) - _OF_THE_END)


def owned_places(config: dict[str, Any], place: Path | None) -> list[tuple[Path, Path]]:
    """What a run of ``config``, made portable, owns besides its folder: its record at ``place``, as `owned` takes it.

    Raises what `check_name` raises.
    """
    check_name(config["name"])
    return [] if place is None else [claim_of(place, config_hash(config), config["seed"])]


def check_place(record: Record, work_dir: Path, place: Path | None, resume: bool) -> None:
    """Refuse, before its first step, a run whose record could not be kept.

    Args:
        record: of `mlomae.records.make_record` as at the end, but without results.
        place: where its record goes besides ``work_dir``.

    Raises what `sealed` raises, and ConfigError if another record is at ``place``.
    """
    sealed(record, (place or work_dir / OWN).name)
    if place is None or not os.path.lexists(place):
        return
    there, own = read_record(place, place.name), _read(work_dir / OWN) if resume else None
    if own is None or not same_run(there, own):
        same = all(there[key] == record[key] for key in ("config_hash", "seed"))
        which = "this configuration and seed, by another run," if same else "another configuration or seed"
        raise ConfigError(
            f"record '{place.name}' of {which} is in '{place.parent}' already; give this run another name, or no "
            "--records"
        )


def check_writable(folder: Path, name: str = "record") -> None:
    """Raise ConfigError unless a file called ``name`` can be written into ``folder``, which need not exist yet."""
    try:
        above = (folder, *folder.absolute().parents)
        nearest = next(place for place in above if os.path.lexists(place))
        remove_leftovers(nearest, name)
        trial = nearest / f"{hidden_name(name)}.tmp"
        trial.touch()
        trial.unlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"records folder '{folder}' cannot be written ({reason}); name another folder with --records"
        ) from error


def keep_record(record: Record, work_dir: Path, place: Path | None) -> Record:
    """Write the record of a finished run into ``work_dir``; one of an earlier evaluation that differs is replaced.

    Returns the record to keep: one that is there already with the same results stays. Raises DataError as `sealed`, and
    if another run's record is at ``place``.
    """
    name = (place or work_dir / OWN).name
    new, own = sealed(record, name), _read(work_dir / OWN)
    if place is not None and place.is_file() and not same_run(read_record(place, name), new):
        raise DataError(f"record '{name}' exists and differs; records are never edited, choose another name")
    if own is not None and same_run(own, new):
        return own
    return write_record(new, work_dir / OWN, replace=True)


def place_record(record: Record, place: Path) -> None:
    """Write the record that `keep_record` returned to ``place``, unless this run has done so before.

    Raises DataError as `write_record`.
    """
    if place.is_file() and same_run(read_record(place, place.name), record):
        print(f"{place} has the record of this run already: kept")
        return
    write_record(record, place)


def _read(path: Path) -> Record | None:
    """The record at ``path``, None if there is none that can be read."""
    try:
        return read_record(path, path.name) if path.is_file() else None
    except DataError:
        return None
