"""One JSON file per run: what was run, on what, from which commit, and what came out. Written once, never edited.

Records travel between machines, so nothing in them names a folder or a host.
"""

import datetime
import hashlib
import itertools
import json
import math
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from mlomae.common.atomic import write_text
from mlomae.common.errors import DataError
from mlomae.common.system import MM_DISTRIBUTIONS, PACKAGES, cpu_model, installed, usable_cores

Record = dict[str, Any]
SCHEMA = 1
NUMERICS_FILE = "numerics.json"
PREDICTIONS = "predictions"  # folder beside records, with files of their names
RANDOM = "random initialisation"  # the method, in records and tables, of a backbone without pretraining
Number = (int, float)
# field -> accepted types; a tuple of names is a dict that must have those keys
FIELDS: dict[str, Any] = {
    "schema": int,
    "name": str,
    "method": str,
    "task": str,
    "dataset": str,
    "demo": bool,
    "seed": int,
    "config": dict,
    "config_hash": str,
    "git_commit": (str, type(None)),
    "git_dirty": (bool, type(None)),
    "versions": dict,
    "hardware": ("cpu", "cores", "threads", "gpu"),
    "images_seen": ("lower", "head", "upper"),
    "outer_iterations": int,
    "wall_clock_s": Number,
    "cpu_s": Number,
    "split_hash": (str, type(None)),
    "train_source": str,
    "eval_source": str,
    "metrics": dict,
    "finished_at": str,
}
# not part of a configuration's identity: the seed, names, and where and with how many workers it ran
_RUN_KEYS = {"name", "seed"}
_NO_EFFECT = {"num_workers", "title"}
_FOLDER_KEY = re.compile(r"(?:.*_)?(?:root|dir|folder)$")
_ABSOLUTE = re.compile(r"""(?:^|[\s:=,;'"(\[])(?:/[\w.]|~\w*/|[A-Za-z]:[\\/]|\\\\\w)""")


def strip_paths(config: Any, key: str = "") -> Any:
    """``config`` as plain JSON values, folders and absolute paths cut down to their last component.

    Raises DataError for a value that JSON cannot hold.
    """
    if config is None or isinstance(config, bool | int | float):
        return config
    if isinstance(config, dict | Mapping):  # in this order: asking for the abstract class is slow
        return {str(k): strip_paths(v, str(k)) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [strip_paths(v, key) for v in config]
    if isinstance(config, str | PurePath):
        text = str(config)
        last = PureWindowsPath(text).name or text  # splits at both kinds of slash
        return last if _FOLDER_KEY.match(key) or _ABSOLUTE.match(text) else text
    raise DataError(f"config value '{key}' is a {type(config).__name__}; records hold only plain values")


def _identity(config: Any) -> Any:
    if isinstance(config, dict):
        return {k: _identity(v) for k, v in config.items() if k not in _NO_EFFECT and not _FOLDER_KEY.match(k)}
    return [_identity(v) for v in config] if isinstance(config, list) else config


def config_hash(config: Mapping[str, Any]) -> str:
    """16 hexadecimal digits: the SHA-256 of the config as canonical JSON.

    Equal for runs that differ only by top-level ``name`` and ``seed``, by folders or by ``num_workers``, so that the
    seeds of one configuration share a hash.
    """
    kept = {k: v for k, v in config.items() if k not in _RUN_KEYS}
    try:
        text = json.dumps(kept, sort_keys=True)
    except TypeError:  # a path, say
        text = json.dumps(strip_paths(kept), sort_keys=True)
    return _hash_of(text)


@lru_cache(maxsize=65_536)  # the seeds of a configuration ask again
def _hash_of(text: str) -> str:
    plain = _identity(strip_paths(json.loads(text)))
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def contents_of(kept: Mapping[str, Any]) -> dict[str, str]:
    """The digest ``content`` of each source of a record, or of the ``meta`` of a checkpoint; {} if it has none."""
    return {part: known["content"] for part, known in (kept.get("data") or {}).items()}


def run_phrase(method: str, name: str, seed: int) -> str:
    """How a file of predictions names a run."""
    return f"{method}, {name}, seed {seed}"


def slug(text: str) -> str:
    """A method's name in file names: letters and digits, joined by hyphens."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def git_state(folder: str | Path) -> tuple[str | None, bool | None]:
    """(commit, whether the working tree differs from it) of the checkout that ``folder`` is part of; Nones without one.

    A package that is installed below somebody's repository is no part of it: git does not track its files.
    """
    answers = []
    for command in ("ls-files --error-unmatch .", "rev-parse HEAD", "status --porcelain"):
        try:
            done = subprocess.run(["git", *command.split()], cwd=folder, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None, None
        answers.append(done.stdout.strip())
    return answers[1], bool(answers[2])


def hardware() -> dict[str, Any]:
    """{"cpu": name, "cores": usable, "threads": of torch, "gpu": name or None}; never the host's name."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": cpu_model(), "cores": usable_cores(), "threads": torch.get_num_threads(), "gpu": gpu}


def hardware_phrase(record: Record) -> str:
    """The hardware of a record, as tables name it."""
    h = record["hardware"]
    return h["gpu"] or f"{h['cpu']}, {h['threads']} of {h['cores']} cores"


def versions() -> dict[str, str]:
    """Python and the installed packages that can change a number."""
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, "scikit-learn", "mlomae"):
        version = next((v for name in MM_DISTRIBUTIONS.get(package, (package,)) if (v := installed(name))), None)
        if version:
            found[package] = version
    return found


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


def _paths_in(value: Any, where: str = "") -> list[str]:
    """Names of fields whose text contains an absolute path."""
    if isinstance(value, dict):
        return [hit for k, v in value.items() for hit in _paths_in(v, f"{where}.{k}" if where else k)]
    if isinstance(value, list):
        return [hit for v in value for hit in _paths_in(v, where)]
    return [where] if isinstance(value, str) and _ABSOLUTE.search(value) else []


def _check_numerics(numerics: Any, source: str) -> None:
    if not isinstance(numerics, dict) or not all(type(number) is int for number in numerics.values()):
        raise DataError(f"record '{source}': field 'numerics' must hold a whole number for each part; run it again")


def _check_curves(curves: Any, source: str) -> None:
    """Raise DataError unless these are lists of equal lengths, increasing ``iteration`` and finite numbers or None."""
    lists = list(curves.values()) if isinstance(curves, dict) else []
    steps = curves.get("iteration") if lists else None
    if not isinstance(steps, list) or not all(isinstance(c, list) and len(c) == len(steps) for c in lists):
        raise DataError(f"record '{source}': field 'curves' must hold lists as long as its 'iteration'; run it again")
    if not all(type(t) is int for t in steps) or any(b <= a for a, b in zip([0, *steps], steps, strict=False)):
        raise DataError(f"record '{source}': field 'curves.iteration' must hold increasing integers; run it again")
    for name, values in curves.items():
        for value in values:
            number = isinstance(value, Number) and not isinstance(value, bool)
            if value is not None and not (number and math.isfinite(value)):
                raise DataError(f"record '{source}': field 'curves.{name}' holds {value!r}, not a number; run it again")


def validate_record(record: Record, source: str, slashes: bool = True) -> None:
    """Raise DataError, naming ``source``, for a missing or mistyped field, another schema, a path, or a false hash.

    ``slashes``: whether there is one in its text, so that paths are worth looking for. Fields that may be
    missing: ``curves``, a pretraining's losses by outer iterations (`mlomae.pretraining.curves`), and ``numerics``, the
    version numbers of what it computed (`mlomae.common.numerics`).
    """
    for key, expected in FIELDS.items():
        if key not in record:
            raise DataError(f"record '{source}' lacks the field '{key}'; run it again, records are not edited")
        value, keys = record[key], expected if isinstance(expected, tuple) and isinstance(expected[0], str) else ()
        kinds = dict if keys else expected
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds in (int, Number)):
            raise DataError(f"record '{source}': field '{key}' has the wrong type ({type(value).__name__})")
        if missing := [k for k in keys if k not in value]:
            raise DataError(f"record '{source}' lacks the field '{key}.{missing[0]}'; run it again")
    if record["schema"] != SCHEMA:
        raise DataError(f"record '{source}' has schema {record['schema']}, this code reads {SCHEMA}; use its version")
    if "curves" in record:
        _check_curves(record["curves"], source)
    if "numerics" in record:
        _check_numerics(record["numerics"], source)
    if slashes and (hits := _paths_in(record)):
        raise DataError(f"record '{source}': field '{hits[0]}' holds an absolute path; describe it in words instead")
    if config_hash(record["config"]) != record["config_hash"]:
        raise DataError(f"record '{source}': config_hash does not belong to its config; run it again")


def write_record(record: Record, path: str | Path) -> None:
    """Write ``record`` as JSON (config made portable), all of it or nothing.

    Writing the same record again does nothing. Raises DataError if a field is missing or wrong, a number is not
    finite, or another record is already at ``path``.
    """
    path = Path(path)
    record = {**record, "config": strip_paths(record.get("config", {}))}
    try:
        text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise DataError(
            f"record '{path.name}' does not fit JSON ({error}); metrics must be plain finite numbers"
        ) from error
    validate_record(json.loads(text), path.name)
    try:
        write_text(path, text, new=True)
    except FileExistsError as error:
        if path.read_text(encoding="utf-8") != text:
            raise DataError(
                f"record '{path.name}' exists and differs; records are never edited, choose another name"
            ) from error


def read_record(path: Path, name: str) -> Record:
    """The validated record at ``path``; DataError that calls it ``name``."""
    try:
        text = path.read_text(encoding="utf-8")
        record = json.loads(text)
    except ValueError as error:
        raise DataError(f"record '{name}' is not valid JSON ({error}); remove it and run it again") from error
    if not isinstance(record, dict):
        raise DataError(f"record '{name}' is not a JSON object; remove it and run it again")
    validate_record(record, name, slashes="/" in text or "\\" in text)
    return record


def read_named_records(folder: str | Path) -> dict[str, Record]:
    """All ``*.json`` under ``folder``, validated, by relative path and sorted by it; DataError names a bad file.

    Records of version 0.1 do not hold their NUMERICS: the file `NUMERICS_FILE` next to the folder does, with the
    ``sha256`` of each record's file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"records folder '{folder}' does not exist; run a benchmark first or name another folder")
    names = sorted(path.as_posix().removeprefix(f"{folder.as_posix()}/") for path in folder.rglob("*.json"))
    found = {name: read_record(folder / name, name) for name in names}
    path = folder.parent / NUMERICS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for name, kept in content.items():
            numerics, digest = kept["numerics"], kept["sha256"]
            _check_numerics(numerics, name)
            if name in found:
                if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                    raise DataError(f"record '{name}' is not the one that '{NUMERICS_FILE}' is about; restore the file")
                found[name]["numerics"] = numerics
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"'{path}' is damaged ({error}); restore it") from error
    return found


def read_records(folder: str | Path) -> list[Record]:
    """`read_named_records` without the names."""
    return list(read_named_records(folder).values())


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
    return {name: list(found) for name, found in itertools.groupby(sorted(records, key=key), key)}
