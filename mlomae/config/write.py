"""A configuration as a Python file that `mlomae.config.strict.read_config` reads back to the same values."""

import pprint
from pathlib import Path
from typing import Any

from mlomae.common.atomic import write_text

_WIDTH = 118


def config_text(values: dict[str, Any], about: str) -> str:
    """``about`` as the docstring, then a line for each key, longer values on several."""
    lines = ['"""' + about.replace("\\", "\\\\").replace('"', '\\"') + '"""\n']
    for key, value in values.items():
        text = pprint.pformat(value, width=_WIDTH - len(key) - 3, sort_dicts=False)
        lines.append(f"{key} = " + text.replace("\n", "\n" + " " * (len(key) + 3)))
    return "\n".join(lines) + "\n"


def write_config(values: dict[str, Any], about: str, path: Path) -> None:
    """Write `config_text`, all of it or nothing."""
    write_text(path, config_text(values, about))
