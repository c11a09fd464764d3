"""Configuration files checked strictly against dataclasses: MMEngine Python files in, typed values out.

An unknown key, a missing key or a value of the wrong type is a `ConfigError`; nothing is silently ignored.
"""

import ast
import dataclasses
import difflib
import inspect
import re
import threading
import typing
import unicodedata
from pathlib import Path
from typing import Any, TypeVar

import yaml
from mmengine.config import Config
from mmengine.fileio import register_handler
from mmengine.fileio.handlers import YamlHandler

from mlomae.common.console import say
from mlomae.common.errors import ConfigError
from mlomae.common.files import is_hidden
from mlomae.common.registry import check_value
from mlomae.config.merging import types_drop_options
from mlomae.config.plugins import check_imported, import_plugins, imports_of

T = TypeVar("T")
_LONGEST = 120  # bytes of a name; method and seed come after it, and file systems allow 255
_PACKAGE = Path(__file__).parents[1]
_HOMES = (_PACKAGE / "configs", _PACKAGE.parent / "configs")  # of the configs that ship: in a wheel, in a checkout


@register_handler(["yaml", "yml"])
class _PlainYaml(YamlHandler):
    """Reads values alone: with mmengine's own reader a tag ``!!python`` calls whatever it names."""

    def load_from_fileobj(self, file: Any, **options: Any) -> Any:
        return yaml.load(file, yaml.SafeLoader)


ADDED = {"added": True}
"""Metadata of a field that older configurations lack: `plain` leaves it out at its default, so that hashes hold."""


def plain(value: Any) -> Any:
    """Dicts for dataclasses, lists for tuples, text keys: the form in checkpoints and records."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if dataclasses.is_dataclass(value):
        values = {field: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {f.name: plain(v) for f, v in values.items() if not ("added" in f.metadata and v == f.default)}
    return value


@dataclasses.dataclass
class Configuration:
    """The dataclass of a whole run's configuration derives from this one.

    ``custom_imports``: dict(imports=[module, ...]) outside mlomae that register what the run uses. Raises ConfigError
    for one that has not been imported (`mlomae.config.plugins`).
    """

    custom_imports: dict | None = dataclasses.field(default=None, kw_only=True, metadata=ADDED)

    def __post_init__(self) -> None:
        modules = imports_of(self.custom_imports)
        check_imported(modules)
        self.custom_imports = {"imports": modules} if modules else None

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, the form in checkpoints and records."""
        return dict(plain(self))


def check_name(name: str) -> None:
    """Raise ConfigError unless files and folders on every system can be called ``name``, before or after other text."""
    problem = None
    if odd := [c for c in name if c in '/\\:*?"<>|' or unicodedata.category(c)[0] == "C"]:
        problem = f"it holds {odd[0]!a}"
    elif not name or is_hidden(name) or name != name.strip(" ") or name.endswith("."):
        problem = "it is empty, a hidden file's, or has a space or a dot at its end"
    elif re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name, re.IGNORECASE):
        problem = "Windows keeps it for a device"
    elif len(name.encode()) > _LONGEST:
        problem = f"it is longer than {_LONGEST} bytes"
    if problem:
        raise ConfigError(f"config key 'name' is a part of file names, and cannot be {name!a}: {problem}")


def build_dataclass(cls: type[T], values: Any, where: str = "") -> T:
    """Instantiate a config dataclass from a mapping; every key must be known and every type right.

    Fields may be dataclasses and dicts of dataclasses, choices (``Literal``), and numbers with an interval,
    ``Annotated[float, "[0, 1)"]``. Raises ConfigError that names the key, ``where`` before it.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"config section '{where}' must be a dict; got {values!r}")
    hints = typing.get_type_hints(cls, include_extras=True)
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
            built[key] = check_value(value, hints[key], f"config key '{name}'")
    parameters = inspect.signature(cls).parameters
    if missing := [key for key, p in parameters.items() if p.default is p.empty and key not in built]:
        raise ConfigError(f"config key '{f'{where}.' if where else ''}{missing[0]}' is missing; add it")
    return cls(**built)


def _find(path: Path, examples: str) -> Path:
    """``path``, or the file that comes with mlomae if it begins with ``configs/`` and is not in the current folder."""
    if path.is_file():
        return path
    home = next((folder for folder in _HOMES if folder.is_dir()), Path())
    if path.parts[:1] == ("configs",) and (shipped := home.joinpath(*path.parts[1:])).is_file():
        return shipped
    folder = examples if Path(examples).is_dir() else home.joinpath(*Path(examples).parts[1:])
    raise ConfigError(f"config file '{path}' does not exist; see {folder} for the ones that ship")


# MMEngine's reader, and what `types_drop_options` changes in it, are for one thread at a time
_READING = threading.RLock()


def read_config(path: str | Path, overrides: dict[str, Any] | None, examples: str) -> dict[str, Any]:
    """Plain values of an MMEngine Python config after ``--cfg-options`` overrides ("data.batch_size": 64).

    Its ``custom_imports`` are imported. Raises ConfigError if the file is missing (``examples`` is the folder to look
    in), does not run, names a module that does not, or gives the run a name that `check_name` refuses.
    """
    file = _find(Path(path), examples)
    try:
        with _READING, types_drop_options(say):
            config = Config.fromfile(str(file), import_custom_modules=False)
            if overrides:
                config.merge_from_dict(overrides)
    except Exception as error:  # a config file is code, which can raise anything
        raise ConfigError(f"config file '{path}' cannot be read: {error}") from error
    given = {key.partition(".")[0] for key in overrides or {}}
    variables = file.suffix == ".py"  # of the file itself, if they begin with an underscore
    values = {k: v for k, v in config.to_dict().items() if not (k.startswith("_") and variables and k not in given)}
    if isinstance(values.get("name"), str):
        check_name(values["name"])
    import_plugins(imports_of(values.get("custom_imports")))
    return values


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``values`` of a configuration after ``changes`` by dotted keys, {"data.batch_size": 64}. Raises ConfigError."""
    try:
        config = Config(values)
        with types_drop_options(say):
            config.merge_from_dict(changes)
    except Exception as error:  # MMEngine raises TypeError, KeyError, ...
        raise ConfigError(f"--cfg-options cannot be applied: {error}") from error
    return dict(config.to_dict())


def overrides(pairs: list[str], what: str = "--cfg-options") -> dict[str, Any]:
    """``KEY=VALUE`` pairs; values are Python literals or ``dict(key=...)`` where they parse as such, true and false in
    any case, else text.

    Raises ConfigError, beginning with ``what``, for a text without ``=``.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"{what} takes KEY=VALUE; got '{pair}'")
        try:
            values[key] = _value_of(ast.parse(text, mode="eval").body)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            values[key] = {"true": True, "false": False}.get(text.lower(), text)
    return values


def _value_of(node: ast.expr) -> Any:
    """A literal, in which ``dict(key=value)`` stands for a dict as in config files. Raises ValueError for others."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        if any(pair.arg is None for pair in node.keywords):
            raise ValueError("** is no literal")
        return {pair.arg: _value_of(pair.value) for pair in node.keywords}
    if isinstance(node, ast.List | ast.Tuple):
        parts = [_value_of(part) for part in node.elts]
        return parts if isinstance(node, ast.List) else tuple(parts)
    return ast.literal_eval(node)
