"""A configuration as the text of a Python config file, which reads back to the same values."""

import keyword
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG = "config.py"  # in the folder of a run: what was chosen for it
WIDTH = 100


def config_text(values: Mapping[str, Any], about: str = "") -> str:
    """A config file of plain ``values`` (numbers, texts, lists, dicts); ``about`` is its docstring."""
    head = f'"""{_quoted(about)}\n"""\n\n' if about else ""
    return head + "".join(f"{key} = {_literal(value, len(key) + 3)}\n" for key, value in values.items())


def is_another(path: Path, about: str) -> bool:
    """Whether there is a file at ``path`` that is no `config_text` whose docstring begins with ``about``."""
    return path.is_file() and not path.read_text(encoding="utf-8", errors="replace").startswith(f'"""{about} ')


def _literal(value: Any, used: int = 0, indent: str = "") -> str:
    """``value`` in one line if it fits beside ``used`` characters, else a dict in a line for each of its keys."""
    if not isinstance(value, dict):
        return _plain(value)
    named = all(
        isinstance(key, str) and key.isascii() and key.isidentifier() and not keyword.iskeyword(key) for key in value
    )
    opening, closing = ("dict(", ")") if named else ("{", "}")
    inner = f"{indent}    "
    labels = [f"{key}=" if named else f"{_plain(key)}: " for key in value]
    line = ", ".join(f"{label}{_literal(part)}" for label, part in zip(labels, value.values(), strict=True))
    if "\n" not in line and used + len(line) + len(opening) + 1 <= WIDTH:
        return f"{opening}{line}{closing}"
    pairs = zip(labels, value.values(), strict=True)
    lines = [f"{inner}{label}{_literal(part, len(inner + label), inner)},\n" for label, part in pairs]
    return f"{opening}\n{''.join(lines)}{indent}{closing}"


def _plain(value: Any) -> str:
    """``repr``, without {{ }} in its texts, for which MMEngine would put names of files and of the environment."""
    return repr(value).replace("{{", "{\\x7b")


def _quoted(text: str) -> str:
    """``text``, which may name any file, inside triple quotes."""
    escaped = text.replace("\\", "\\\\").replace('"""', "'''")
    escaped = re.sub(r"\{(?=\{)", "{ ", escaped)  # as in `_plain`
    return escaped.encode("utf-8", "backslashreplace").decode()
