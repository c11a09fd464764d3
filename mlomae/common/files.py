"""Files that people and other programs may have touched: which are hidden, and JSON whose odd content is found."""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FOREIGN = ("__macosx", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini")
DEEPEST = 50  # levels of lists and objects
_LARGEST = 1e30  # no cost in operations is larger, and sums of squares are finite
_DIGITS = 1000  # converting more takes long


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's: ``.name``, ``@eaDir``, ``__MACOSX``, ..."""
    return name.startswith((".", "@")) or name.lower() in _FOREIGN


def read_json(path: Path) -> Any:
    """The content of a JSON file, in UTF-8 with or without a byte order mark.

    Raises ValueError, one line, for what is no file (a pipe would be waited for), cannot be read, is no JSON, repeats a
    key, or holds what programs that use it stumble over (`check_values`).
    """
    if not path.is_file():
        raise ValueError("it is not a file")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique, parse_int=_whole)
        check_values(content)
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror or type(error).__name__}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return content


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
        if isinstance(value, int | float) and not abs(value) < _LARGEST:
            raise ValueError(f"field {where!r} holds a number that is too large")


def digest_of(content: Any) -> str:
    """The SHA-256 of plain values: equal for texts that differ only by the order of keys, spaces and line ends."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
