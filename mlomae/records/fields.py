"""What a record holds: its fields, what is wrong with one, what identifies its configuration and its content."""

import datetime
import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import PurePath, PureWindowsPath
from reprlib import repr as short
from typing import Any

from mlomae.common.errors import DataError
from mlomae.common.files import LARGEST, canonical_json, leaves

Record = dict[str, Any]
SCHEMA = 1
DIGEST = "digest"
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
_DATA = ("name", "classes", "pixels", "content")  # of a source, see `mlomae.data.content`
_VERSION = re.compile(r"[\w.+!-]+")
REMEDY = "restore it from a copy, or move it away and run it again"
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


def may_hold_paths(text: str) -> bool:
    """Whether absolute paths are worth looking for in the text of a record: quick, for thousands of them."""
    ends = {part[-1:] for part in text.split("/")[:-1]}
    return "\\" in text or "~" in text or not ends.isdisjoint(_BEFORE_PATHS)


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


def are_numerics(numerics: Any) -> bool:
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
                    f"record '{source}': field 'metrics.{where}' holds {short(part)}, not a number; {REMEDY}"
                )


def _check_parts(record: Record, source: str) -> None:
    """Raise DataError for the contents of fields that are objects of one kind of value each."""
    counts = lambda n: type(n) is int and 0 <= n < 2**63  # noqa: E731
    compared = lambda c: isinstance(c, dict) and all(counts(c.get(k)) for k in ("equal", "near", "compared"))  # noqa: E731
    version = lambda text: isinstance(text, str) and _VERSION.fullmatch(text)  # noqa: E731
    texts = lambda d: all(isinstance(d.get(k), str) for k in _DATA)  # noqa: E731
    source_of_images = lambda d: isinstance(d, dict) and counts(d.get("images")) and texts(d)  # noqa: E731
    kinds: dict[str, Callable[[Any], Any]] = {
        "images_seen": counts,
        "versions": version,
        "plugins": version,
        "lowered": counts,
        "copies": lambda c: c == "unknown" or compared(c),
        "data": source_of_images,
    }
    parts = {key: record.get(key, {}) for key in kinds}
    parts["pretrained.data"], kinds["pretrained.data"] = record.get("pretrained", {}).get("data", {}), source_of_images
    for key, fits in kinds.items():
        if not isinstance(parts[key], dict):
            raise DataError(f"record '{source}': field '{key}' holds {short(parts[key])}, which does not fit; {REMEDY}")
        for name, value in parts[key].items():
            if not fits(value):
                raise DataError(
                    f"record '{source}': field '{key}.{name}' holds {short(value)}, which does not fit; {REMEDY}"
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
        raise DataError(f"record '{source}': field '{key}' must be {kind}; {REMEDY}")


def validate_record(record: Record, source: str, canonical: str | None = None, paths: bool = True) -> None:
    """Raise DataError, naming ``source``, for a missing or mistyped field, another schema, a path, a false hash, or a
    digest that is not that of the content. ``canonical``: all but the digest as `canonical_json`, ``paths``: whether
    they are worth looking for, where these are known.

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
    if not are_numerics(record.get("numerics", {})):
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
        raise DataError(f"record '{source}': field 'finished_at' holds no date ({error}); {REMEDY}") from error
    if config_hash(record["config"]) != record["config_hash"]:
        raise DataError(f"record '{source}': config_hash does not belong to its config; {REMEDY}")
    if DIGEST in record and record[DIGEST] != (_sha256(canonical) if canonical else record_digest(record)):
        raise DataError(f"record '{source}' was edited: its digest is not that of its content; {REMEDY}")


def record_digest(record: Record) -> str:
    """The SHA-256 of the content of a record, without the field that holds it."""
    return _sha256(canonical_json({key: value for key, value in record.items() if key != DIGEST}))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
