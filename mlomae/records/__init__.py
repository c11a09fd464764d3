"""One JSON file per run: what was run, on what, from which commit, and what came out. Written once, never edited.

Records travel between machines, so nothing in them names a folder or a host. A record holds the digest of its content;
those of earlier versions have one in the file `NUMERICS_FILE` beside their folder (`seal_records`).
"""

import codecs
import datetime
import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mlomae.common.atomic import write_text
from mlomae.common.errors import DataError, first_names, reason_of
from mlomae.common.files import (
    check_values,
    is_hidden,
    parse_object,
    read_json,
    read_text,
)
from mlomae.common.system import hardware, versions
from mlomae.records.fields import (
    DIGEST,
    REMEDY,
    SCHEMA,
    Record,
    are_numerics,
    config_hash,
    may_hold_paths,
    record_digest,
    strip_paths,
    validate_record,
)

NUMERICS_FILE = "numerics.json"
PREDICTIONS = "predictions"  # folder beside records, with files of their names
RANDOM = "random initialisation"  # the method, in records and tables, of a backbone without pretraining


def contents_of(kept: Mapping[str, Any]) -> dict[str, str]:
    """The digest ``content`` of each source of a record, or of the ``meta`` of a checkpoint; {} if it has none."""
    return {part: known["content"] for part, known in (kept.get("data") or {}).items()}


def run_phrase(method: str, name: str, seed: int) -> str:
    """How a file of predictions names a run."""
    return f"{method}, {name}, seed {seed}"


def slug(text: str) -> str:
    """A method's name in file names: letters and digits, joined by hyphens."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def hardware_phrase(record: Record) -> str:
    """The hardware of a record, as tables name it."""
    h = record["hardware"]
    return h["gpu"] or f"{h['cpu']}, {h['threads']} of {h['cores']} cores"


def make_record(
    *, config: Mapping[str, Any], clock: Mapping[str, float], git: tuple[str | None, bool | None], **fields: Any
) -> Record:
    """The record of a run that has just finished on this machine; every kind of run makes its records here.

    ``config`` is made portable. ``clock``: {"wall", "cpu"} seconds. ``git``: `git_state` when the run began, for the
    checkout may have changed since. ``fields``: the other `FIELDS`, and those of this kind of run; they also replace
    what is filled in here.
    """
    portable = strip_paths(config)
    return {
        "schema": SCHEMA,
        "demo": False,
        "config": portable,
        "config_hash": config_hash(portable),
        "git_commit": git[0],
        "git_dirty": git[1],
        "versions": versions(),
        "hardware": hardware(),
        "wall_clock_s": clock["wall"],
        "cpu_s": clock["cpu"],
        "split_hash": None,
        "finished_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **fields,
    }


def sealed(record: Record, name: str) -> Record:
    """``record`` as its file will hold it: plain values, config made portable, with its digest.

    Raises DataError, which calls it ``name``, if a field is missing or wrong or a number is not finite.
    """
    try:
        plain = json.loads(json.dumps({**record, "config": strip_paths(record.get("config", {}))}, allow_nan=False))
        check_values(plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"record '{name}' does not fit JSON ({error}); metrics must be plain finite numbers") from error
    plain[DIGEST] = record_digest(plain)
    validate_record(plain, name)
    return dict(plain)


def write_record(record: Record, path: str | Path, replace: bool = False) -> Record:
    """Write ``record``, `sealed`, as JSON, all of it or nothing; returns what the file holds.

    Writing the same record again does nothing. Raises DataError as `sealed`, and unless ``replace`` if another record
    is already at ``path``.
    """
    path = Path(path)
    record = sealed(record, path.name)
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    try:
        write_text(path, text, new=not replace)
    except FileExistsError as error:
        if path.read_text(encoding="utf-8") != text:
            raise DataError(
                f"record '{path.name}' exists and differs; records are never edited, choose another name"
            ) from error
    return record


def read_record(path: Path, name: str) -> Record:
    """The validated record at ``path``; DataError that calls it ``name``.

    One that holds no digest, as of version 0.1, is taken as it is.
    """
    try:
        text = read_text(path)
        record, canonical = parse_object(text, DIGEST)
        check_values(record.get("pretrained"))
    except ValueError as error:
        raise DataError(f"record '{name}' is not usable ({reason_of(error)}); {REMEDY}") from error
    validate_record(record, name, canonical, paths=may_hold_paths(text))
    return record


def _names_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DataError(f"records folder '{folder}' does not exist; run a benchmark first or name another folder")
    names = (path.as_posix().removeprefix(f"{folder.as_posix()}/") for path in folder.rglob("*.json"))
    return sorted(name for name in names if not any(map(is_hidden, name.split("/"))))


def read_named_records(folder: str | Path) -> dict[str, Record]:
    """All ``*.json`` under ``folder``, validated, by relative path and sorted by it; DataError names a bad file.

    Hidden files are left out. What version 0.1 did not write into records, their NUMERICS and digest, is in the file
    `NUMERICS_FILE` next to the folder; a record that has no digest in either place is refused.
    """
    folder = Path(folder)
    names, kept = _names_in(folder), read_seals(folder)
    found = {}
    for name in names:
        found[name] = record = read_record(folder / name, name)
        if DIGEST in record:
            continue
        if name not in kept:
            raise DataError(
                f"record '{name}' has no digest, which records have since version 0.2; if it is as its run wrote it, "
                f"run: {_command(folder)}"
            )
        if _file_digest(folder / name) != kept[name]["sha256"]:
            raise DataError(f"record '{name}' is not the one that '{NUMERICS_FILE}' is about; restore the file")
        record |= {key: kept[name][key] for key in ("numerics",) if key in kept[name]}
    return found


def read_records(folder: str | Path) -> list[Record]:
    """`read_named_records` without the names."""
    return list(read_named_records(folder).values())


# --- the file beside records that hold no digest ----------------------------------------------------------------------


def seals_path(folder: Path) -> Path:
    return folder.absolute().parent / NUMERICS_FILE


def read_seals(folder: Path) -> dict[str, dict[str, Any]]:
    """Name of a record -> its ``sha256`` and, where known, its ``numerics``; {} without the file. DataError for another
    content."""
    path = seals_path(folder)
    if not path.exists():
        return {}
    try:
        content: dict[str, dict[str, Any]] = read_json(path)
        for name, kept in content.items():
            if not isinstance(kept["sha256"], str) or not are_numerics(kept.get("numerics", {})):
                raise ValueError(f"the entry of '{name}'")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"'{path}' is damaged ({reason_of(error)}); restore it") from error
    return content


def seal_records(folder: str | Path, again: Iterable[str] = ()) -> str:
    """Keep the digests of the records in ``folder`` that hold none, in the file beside it; says what was done.

    A digest that is there is not replaced, except of the records ``again``. Raises DataError, before anything is
    written, for a record that cannot be read, that is not the one whose digest is kept, or in ``again`` and not there.
    """
    folder = Path(folder)
    kept, old = read_seals(folder), [n for n in _names_in(folder) if DIGEST not in read_record(folder / n, n)]
    again = list(again)
    if unknown := [name for name in again if name not in old]:
        raise DataError(f"'{folder}' has no record '{unknown[0]}' without a digest of its own; name one of its files")
    digests, new = {name: _file_digest(folder / name) for name in old}, []
    for name, digest in digests.items():
        there = kept.get(name, {}).get("sha256")
        if there not in (None, digest) and name not in again:
            raise DataError(
                f"record '{name}' is not the one that '{NUMERICS_FILE}' is about; restore it, or if it is right as it "
                f"is, run: {_command(folder, name)}"
            )
        new += [name] if there != digest else []
    path = seals_path(folder)
    if new:
        kept |= {name: {**kept.get(name, {}), "sha256": digests[name]} for name in new}
        write_text(path, json.dumps(kept, indent=1, sort_keys=True) + "\n")
    names = f": {first_names(new)}" if new else ""
    return f"{path}: {len(new)} digests written{names}; {len(old) - len(new)} of records without their own were there"


def _command(folder: Path, *names: str) -> str:
    return shlex.join(["mlomae", "records", "seal", *names, "--records", str(folder)])


def _file_digest(path: Path) -> str:
    """The SHA-256 of a file without byte order mark and with LF line ends, which copying may change."""
    return hashlib.sha256(path.read_bytes().removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")).hexdigest()


# --- next to the records ----------------------------------------------------------------------------------------------


def predictions_of(name: str, records_folder: Path) -> Path:
    """Where the predictions of the record in the file ``name`` of ``records_folder`` lie, if it has any."""
    record = records_folder / name
    return record.parent / PREDICTIONS / f"{record.stem}.npz"


def claim_of(place: Path, digest: str, seed: int) -> tuple[Path, Path]:
    """``place``, where a run's record goes, and the lock beside it of the process that makes the run, for `owned`.

    Runs of one configuration and seed have one lock, whatever their names.
    """
    return place, place.with_name(f".{digest}_seed{seed}.lock")


def grouped(records: Iterable[Record], key: Callable[[Record], Any]) -> dict[Any, list[Record]]:
    """The records of each key, in their order; keys are sorted."""
    found: dict[Any, list[Record]] = {}
    for record in records:
        found.setdefault(key(record), []).append(record)
    return {name: found[name] for name in sorted(found)}
