"""Configuration files checked strictly against dataclasses: MMEngine Python files in, typed values out.

An unknown key, a missing key or a value of the wrong type is a `ConfigError`; nothing is silently ignored.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from mmengine.config import Config

from mlomae.common.errors import ConfigError

T = TypeVar("T")


def plain(value: Any) -> Any:
    """Lists for tuples, text keys: the form that checkpoints and records keep."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


@dataclasses.dataclass
class Configuration:
    """The dataclass of a whole run's configuration derives from this one."""

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, the form that checkpoints and records keep."""
        return dict(plain(dataclasses.asdict(self)))


def _check_type(value: Any, hint: Any, where: str) -> Any:
    """Return ``value``, an int promoted where a float is wanted; ConfigError if the type does not fit."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        base = typing.get_origin(option) or option
        if base is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if base is tuple and isinstance(value, list):
            return tuple(value)
        if isinstance(value, base) and not (base is int and isinstance(value, bool)):
            return value
    names = " or ".join("None" if o is types.NoneType else getattr(o, "__name__", str(o)) for o in options)
    raise ConfigError(f"config key '{where}' must be {names}; got {value!r}")


def build_dataclass(cls: type[T], values: Any, where: str = "") -> T:
    """Instantiate a config dataclass from a mapping; every key must be known and every type right.

    Fields may be dataclasses and dicts of dataclasses. Raises ConfigError that names the key, ``where`` before it.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"config section '{where}' must be a dict; got {values!r}")
    hints = typing.get_type_hints(cls)
    built: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}.{key}" if where else key
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(hints)}"
            raise ConfigError(f"unknown config key '{name}'; {hint}")
        inner = typing.get_args(hints[key])[-1:]
        if dataclasses.is_dataclass(hints[key]):
            built[key] = build_dataclass(typing.cast(type, hints[key]), value, name)
        elif inner and dataclasses.is_dataclass(inner[0]):  # dict[str, dataclass]
            if not isinstance(value, dict):
                raise ConfigError(f"config section '{name}' must be a dict; got {value!r}")
            built[key] = {k: build_dataclass(typing.cast(type, inner[0]), v, f"{name}.{k}") for k, v in value.items()}
        else:
            built[key] = _check_type(value, hints[key], name)
    missing = [
        f.name
        for f in dataclasses.fields(typing.cast(Any, cls))
        if f.name not in built and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"config key '{f'{where}.' if where else ''}{missing[0]}' is missing; add it")
    return cls(**built)


def read_config(path: str | Path, overrides: dict[str, Any] | None, examples: str) -> dict[str, Any]:
    """Plain values of an MMEngine Python config after ``--cfg-options`` overrides ("data.batch_size": 64).

    Raises ConfigError if the file is missing (``examples`` is the folder to look in) or does not run.
    """
    if not Path(path).is_file():
        raise ConfigError(f"config file '{path}' does not exist; see {examples} for the ones that ship")
    try:
        config = Config.fromfile(str(path))
        if overrides:
            config.merge_from_dict(overrides)
    except Exception as error:  # a config file is code, which can raise anything
        raise ConfigError(f"config file '{path}' cannot be read: {error}") from error
    return {k: v for k, v in config.to_dict().items() if not k.startswith("_")}


def overrides(pairs: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs; values are Python literals where they parse as such, else text."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"--cfg-options takes KEY=VALUE; got '{pair}'")
        try:
            values[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[key] = text
    return values
