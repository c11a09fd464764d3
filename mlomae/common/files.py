"""Files that people and other programs may have touched: which are hidden, and JSON whose odd content is found."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FOREIGN = ("__macosx", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini")
DEEPEST = 50  # levels of lists and objects
LARGEST = 1e60  # more than any measurement or setting, and sums of squares are finite
_MANY = 150  # lists and objects; fewer cannot be within each other so deeply that it matters
_DIGITS = 1000  # converting more takes long


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's: ``.name``, ``@eaDir``, ``__MACOSX``, ..."""
    return name.startswith((".", "@")) or name.lower() in _FOREIGN


def read_json(path: Path) -> Any:
    """The content of a JSON file, in UTF-8 with or without a byte order mark.

    Raises ValueError, one line, for what is no file (a pipe would be waited for), cannot be read, is no JSON, repeats a
    key, or holds what programs that use it stumble over (`check_values`).
    """
    return parse_json(read_text(path))


def read_text(path: Path) -> str:
    """The text of a file; errors as `read_json`."""
    if not path.is_file():
        raise ValueError("it is not a file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror or type(error).__name__}") from error


def parse_json(text: str) -> Any:
    """Plain values; errors as `read_json`."""
    try:
        content = json.loads(text, object_pairs_hook=_unique, parse_int=_whole)
        check_values(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return content


def parse_object(text: str, apart: str) -> tuple[dict[str, Any], str]:
    """`parse_json` in a third of the time, for an object that may hold large whole numbers, and what it holds besides
    the key ``apart`` as `canonical_json`."""
    odd = any(mark in text for mark in ("NaN", "Infinity", "\\u")) or text.count("[") + text.count("{") > _MANY
    content = parse_json(text) if odd else json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    canonical = canonical_json({key: value for key, value in content.items() if key != apart})
    if "e+" in canonical or "Infinity" in canonical or text.count('":') != canonical.count('":') + (apart in content):
        parse_json(text)  # large numbers; a key that is there twice
    return content, canonical


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"it holds a number of {len(text):,} digits")
    return int(text)


def leaves(value: Any, where: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """(its keys, joined by dots, and the value) of everything in plain values that holds nothing else.

    Raises ValueError for more than `DEEPEST` levels.
    """
    if depth > DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from leaves(part, f"{where}.{key}" if where else key, depth + 1)
    elif isinstance(value, list) and value:
        for i, part in enumerate(value):
            yield from leaves(part, f"{where}[{i}]", depth + 1)
    else:
        yield where, value


def check_values(content: Any) -> None:
    """Raise ValueError, naming the keys, for a number that is not finite or huge, text that UTF-8 cannot hold, and
    values that are nested too deeply."""
    for where, value in leaves(content):
        texts = (where, value) if isinstance(value, str) else (where,)
        if any("\ud800" <= letter <= "\udfff" for text in texts if not text.isascii() for letter in text):
            raise ValueError(f"field {where!r} holds half of a letter")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"field {where!r} holds {value!r}, not a number")
        if isinstance(value, int | float) and not abs(value) < LARGEST:
            raise ValueError(f"field {where!r} holds a number that is too large")


def canonical_json(content: Any) -> str:
    """The same text for equal plain values, whatever the order of keys, spaces and line ends in their file."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
