"""One JSON file per run: what was run, on what, from which commit, and what came out. Written once, never edited.

Records travel between machines, so nothing in them names a folder or a host. A record holds the digest of its content;
those of earlier versions have one in the file `NUMERICS_FILE` beside their folder (`seal_records`).
"""

import codecs
import datetime
import hashlib
import itertools
import json
import math
import re
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path, PurePath, PureWindowsPath
from reprlib import repr as short
from typing import Any

from mlomae.common.atomic import write_text
from mlomae.common.errors import DataError, first_names, reason_of
from mlomae.common.files import (
    LARGEST,
    canonical_json,
    check_values,
    is_hidden,
    leaves,
    parse_object,
    read_json,
    read_text,
)
from mlomae.common.system import hardware, versions

Record = dict[str, Any]
SCHEMA = 1
NUMERICS_FILE = "numerics.json"
PREDICTIONS = "predictions"  # folder beside records, with files of their names
DIGEST = "digest"
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
_ENDS = ("Cc", "Zl", "Zp")
_VERSION = re.compile(r"[\w.+!-]+")
_REMEDY = "restore it from a copy, or move it away and run it again"
OPTIONAL: dict[str, Any] = {"classes": int}
OPTIONAL |= dict.fromkeys(("copies", "data", "lowered", "plugins", "pretrained"), dict)
_LINES = {"name", "method", "task", "dataset", "train_source", "eval_source"}
# not part of a configuration's identity: the seed, names, and where and with how many workers it ran
_RUN_KEYS = {"name", "seed"}
_NO_EFFECT = {"num_workers", "title"}
_FOLDER_KEY = re.compile(r"(?:.*_)?(?:root|dir|folder)$")
_BEFORE_PATHS = set(" \n\t:=,;'\"([")
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
        if _FOLDER_KEY.match(key) or _ABSOLUTE.match(text):
            return _last(text)
        inner = _ABSOLUTE.search(text)  # as in timm:local-dir:/models/vit
        return text if inner is None else text[: inner.start() + 1] + _last(text[inner.start() + 1 :])
    raise DataError(f"config value '{key}' is a {type(config).__name__}; records hold only plain values")


def _last(path: str) -> str:
    return PureWindowsPath(path).name or path.strip("/\\")  # splits at both kinds of slash


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


def _are_numerics(numerics: Any) -> bool:
    return isinstance(numerics, dict) and all(type(number) is int for number in numerics.values())


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
                raise DataError(
                    f"record '{source}': field 'curves.{name}' holds {short(value)}, not a number; run it again"
                )


def _check_metrics(metrics: dict[str, Any], source: str) -> None:
    """Raise DataError unless these are numbers, or numbers of classes and the like, where None is none."""
    for name, value in metrics.items():
        for where, part in leaves(value, name) if isinstance(value, dict) else [(name, value)]:
            none = (part is None and isinstance(value, dict)) or part == {}
            if not none and (not isinstance(part, Number) or isinstance(part, bool) or not abs(part) < LARGEST):
                raise DataError(
                    f"record '{source}': field 'metrics.{where}' holds {short(part)}, not a number; {_REMEDY}"
                )


def _check_parts(record: Record, source: str) -> None:
    """Raise DataError for the contents of fields that are objects of one kind of value each."""
    counts = lambda n: type(n) is int and 0 <= n < 2**63  # noqa: E731
    compared = lambda c: isinstance(c, dict) and all(counts(c.get(k)) for k in ("equal", "near", "compared"))  # noqa: E731
    version = lambda text: isinstance(text, str) and _VERSION.fullmatch(text)  # noqa: E731
    kinds: dict[str, Callable[[Any], Any]] = {
        "images_seen": counts,
        "versions": version,
        "plugins": version,
        "lowered": counts,
        "copies": lambda c: c == "unknown" or compared(c),
    }
    for key, fits in kinds.items():
        for name, value in record.get(key, {}).items():
            if not fits(value):
                raise DataError(
                    f"record '{source}': field '{key}.{name}' holds {short(value)}, which does not fit; {_REMEDY}"
                )


def _check_values(record: Record, source: str) -> None:
    """Raise DataError for fields of the right type whose value no run writes."""
    hardware, kinds = record["hardware"], dict[str, str]()
    counts: dict[str, Any] = {k: record[k] for k in ("seed", "outer_iterations", "classes") if k in record}
    counts |= {f"hardware.{key}": hardware[key] for key in ("cores", "threads")}
    for key, number in counts.items():
        if type(number) is not int or not 0 <= number < 2**63:
            kinds[key] = "a whole number, at least 0"
    for key in ("wall_clock_s", "cpu_s"):
        if not 0 <= record[key] < 1e30:
            kinds[key] = "a number, at least 0"
    for key in _LINES:
        text = record[key]
        if not text or (not text.isprintable() and any(unicodedata.category(c) in _ENDS for c in text)):
            kinds[key] = "one line of text"
    for key in ("cpu", "gpu"):
        if not isinstance(hardware[key], str | None):
            kinds[f"hardware.{key}"] = "a name"
    if record["git_commit"] is not None and not _VERSION.fullmatch(record["git_commit"]):
        kinds["git_commit"] = "the name of a commit"
    for key, kind in kinds.items():
        raise DataError(f"record '{source}': field '{key}' must be {kind}; {_REMEDY}")


def validate_record(record: Record, source: str, canonical: str | None = None, paths: bool = True) -> None:
    """Raise DataError, naming ``source``, for a missing or mistyped field, another schema, a path, a false hash, or a
    digest that is not that of the content. ``canonical``: all but the digest as
    `canonical_json`, ``paths``: whether they are worth looking for, where these are known.

    Fields that may be missing: those of `OPTIONAL`, ``curves``, a pretraining's losses by outer iterations
    (`mlomae.pretraining.curves`), ``numerics``, the version numbers of what it computed (`mlomae.common.numerics`), and
    ``digest``.
    """
    for key, expected in (FIELDS | {k: kind for k, kind in OPTIONAL.items() if k in record}).items():
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
    if not _are_numerics(record.get("numerics", {})):
        raise DataError(f"record '{source}': field 'numerics' must hold a whole number for each part; run it again")
    for where, value in leaves(record) if paths else ():
        if isinstance(value, str) and _ABSOLUTE.search(value):
            raise DataError(f"record '{source}': field '{where}' holds an absolute path; describe it in words instead")
    _check_values(record, source)
    _check_metrics(record["metrics"], source)
    _check_parts(record, source)
    try:
        datetime.datetime.fromisoformat(record["finished_at"])
    except ValueError as error:
        raise DataError(f"record '{source}': field 'finished_at' holds no date ({error}); {_REMEDY}") from error
    if config_hash(record["config"]) != record["config_hash"]:
        raise DataError(f"record '{source}': config_hash does not belong to its config; {_REMEDY}")
    if DIGEST in record and record[DIGEST] != (_sha256(canonical) if canonical else record_digest(record)):
        raise DataError(f"record '{source}' was edited: its digest is not that of its content; {_REMEDY}")


def record_digest(record: Record) -> str:
    """The SHA-256 of the content of a record, without the field that holds it."""
    return _sha256(canonical_json({key: value for key, value in record.items() if key != DIGEST}))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
        raise DataError(f"record '{name}' is not usable ({reason_of(error)}); {_REMEDY}") from error
    ends = {part[-1:] for part in text.split("/")[:-1]}
    validate_record(record, name, canonical, paths="\\" in text or "~" in text or not ends.isdisjoint(_BEFORE_PATHS))
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
            if not isinstance(kept["sha256"], str) or not _are_numerics(kept.get("numerics", {})):
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


def predictions_folder(records_folder: Path) -> Path:
    """The folder of predictions, next to that of the records."""
    return records_folder.parent / "predictions"


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
