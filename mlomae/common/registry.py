"""One registry for everything a configuration names: masking strategies, feedback losses, solvers, data sources, ...

MMEngine's registries are kept for what MMEngine users register there (transfer models, heads, transforms). These check
names and options before anything runs, and say in one line what is wrong.
"""

import contextlib
import difflib
import functools
import importlib
import importlib.metadata
import inspect
import math
import pkgutil
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from mlomae.common.errors import ConfigError, reason_of

T = TypeVar("T")
B = TypeVar("B", bound=Callable[..., Any])

Count = Annotated[int, "[1, inf)"]
NotNegative = Annotated[float, "[0, inf)"]
Positive = Annotated[float, "(0, inf)"]
Share = Annotated[float, "[0, 1]"]
ENTRY_POINTS = "mlomae.plugins"
_PLAIN = (bool, int, float, str, list, tuple, dict, types.NoneType)
_LARGEST = 2**53  # libraries take integers of 64 bits, and floats hold larger ones inexactly
_REGISTRIES: list["Registry[Any]"] = []


@functools.cache
def load_entry_points() -> None:
    """Import what installed packages list under the entry point group ``mlomae.plugins``; importing registers it.

    Called when a name is looked up that is not registered yet, and when all names are listed, so that other runs do not
    wait for plug-ins. Raises ConfigError that names the package whose module cannot be imported.
    """
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:  # a foreign module can raise anything
            package = entry.dist.name if entry.dist else "an unknown package"
            raise ConfigError(
                f"plug-in '{entry.value}' of {package} cannot be imported ({type(error).__name__}: "
                f"{reason_of(error)}); fix or uninstall that package"
            ) from error


def modules_registering(name: str) -> set[str]:
    """The modules whose classes or functions are registered under ``name``, in any registry of this process."""
    builders = [r._builders[name] for r in _REGISTRIES if name in r._builders]
    return {(b.func if isinstance(b, functools.partial) else b).__module__ for b in builders}


def options_of(name: object) -> set[str] | None:
    """The options of what is registered under ``name``, in all registries of this process; None if nothing is."""
    found = [set(registry.options(name)) for registry in _REGISTRIES if name in registry._builders]
    return set[str]().union(*found) if found else None


class Registry(Generic[T]):
    """Builders of ``T`` by name; ``kind`` is what messages call them, e.g. "masking strategy"."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._builders: dict[str, Callable[..., T]] = {}
        _REGISTRIES.append(self)

    def register(self, name: str) -> Callable[[B], B]:
        """Decorator: make a class or function buildable under ``name``.

        Defining the same class again, as rerunning a notebook cell does, replaces it. ValueError if the name is taken.
        """

        def wrap(builder: B) -> B:
            other = self._builders.get(name)
            if other is not None and _definition(other) != _definition(builder):
                raise ValueError(f"{self.kind} '{name}' is registered twice, by {other.__module__} as well")
            self._builders[name] = builder
            return builder

        return wrap

    @contextlib.contextmanager
    def registered(self, name: str, builder: Callable[..., T]) -> Iterator[None]:
        """Register ``builder`` for the duration of a ``with`` block. Raises ConfigError if the name is taken."""
        if name in self._builders:
            raise ConfigError(f"{self.kind} '{name}' exists already; rename yours")
        self._builders[name] = builder
        try:
            yield
        finally:
            del self._builders[name]

    def names(self) -> list[str]:
        """All registered names, sorted."""
        load_entry_points()
        return sorted(self._builders)

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str) and name not in self._builders:
            load_entry_points()
        return isinstance(name, str) and name in self._builders

    def get(self, name: object) -> Callable[..., T]:
        """The builder; raises ConfigError, listing the valid names, if there is none."""
        if not isinstance(name, str) or name not in self:
            said = f"{self.kind} without a type" if name is None else f"unknown {self.kind} '{name}'"
            raise ConfigError(f"{said}; choose one of {', '.join(self.names())}")
        return self._builders[name]

    def has(self, flag: str, name: object) -> bool:
        """Whether the builder has a true attribute ``flag``, e.g. "trainable"; raises what `get` raises."""
        return bool(getattr(self.get(name), flag, False))

    def options(self, name: object, given: Collection[str] = ()) -> dict[str, inspect.Parameter]:
        """What the user can set: the builder's parameters except those that the program passes, ``given``.

        A class whose ``__init__`` passes ``**options`` on has those of its base class as well.
        """
        builder = self.get(name)
        parameters: dict[str, inspect.Parameter] = {}
        for owner in inspect.getmro(builder) if isinstance(builder, type) else (builder,):
            if isinstance(owner, type) and "__init__" not in vars(owner):
                continue
            own = inspect.signature(owner).parameters
            variadic = [k for k, p in own.items() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
            parameters |= {k: p for k, p in own.items() if k not in (*given, *parameters, *variadic)}
            if not variadic:
                break
        return parameters

    def check(self, name: object, options: Iterable[str], given: Collection[str] = ()) -> None:
        """Raise ConfigError for an unknown name, an unknown option, or a missing one."""
        parameters = self.options(name, given)
        known = ", ".join(parameters) or "none"
        for key in options:
            if key not in parameters:
                close = difflib.get_close_matches(str(key), parameters, n=1)
                hint = f" (did you mean '{close[0]}'?)" if close else ""
                raise ConfigError(f"{self.kind} '{name}' has no option '{key}'{hint}; it has {known}")
        for key, parameter in parameters.items():
            if parameter.default is inspect.Parameter.empty and key not in options:
                raise ConfigError(f"{self.kind} '{name}' needs the option '{key}'; it has {known}")

    def build(self, name: object, options: Mapping[str, Any], **given: Any) -> T:
        """Call the builder with ``given`` (the program's arguments) and ``options`` (the user's).

        Raises what `check` raises, ConfigError for a value that does not fit its annotation (`check_value`) where that
        names choices, an interval, a flag or a list, and what the builder raises.
        """
        self.check(name, options, given)
        for key, parameter in self.options(name, given).items():
            hint = parameter.annotation
            hints = typing.get_args(hint) or (hint,)
            constrained = any(typing.get_origin(h) in (Annotated, Literal) for h in (hint, *hints))
            kinds = [typing.get_origin(h) or h for h in hints]  # a text for a flag or a list would pass for one
            plain = all(kind in _PLAIN for kind in kinds)
            if key in options and (constrained or plain):
                check_value(options[key], hint, f"option '{key}' of {self.kind} '{name}'")
        return self.get(name)(**given, **options)


def _definition(builder: Callable[..., Any]) -> tuple[str, str]:
    return builder.__module__, getattr(builder, "__qualname__", repr(builder))


def import_modules(package: str) -> None:
    """Import every module of a package, so that whatever registers itself there is registered."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")


def check_interval(value: object, interval: str, what: str) -> None:
    """Raise ConfigError unless ``value``, which the message calls ``what``, is a number in ``interval``.

    "[0, 1)" includes 0 and excludes 1; "(0, inf)" is every finite positive number.
    """
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    outside = not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high
    if outside or (value == low and interval[0] == "(") or (value == high and interval[-1] == ")"):
        phrases = {"(0, inf)": "positive", "[0, inf)": "at least 0", "[1, inf)": "at least 1"}
        raise ConfigError(f"{what} must be {phrases.get(interval, f'inside {interval}')}; got {value!r}")


def check_value(value: Any, hint: Any, what: str) -> Any:
    """``value``, an int promoted where a float is wanted; ConfigError, which calls it ``what``, if it does not fit the
    annotation: a type, choices (``Literal``), an interval (``Annotated[float, "[0, 1)"]``) or a union of these."""
    names = []
    for option in typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,):
        kind, *intervals = typing.get_args(option) if typing.get_origin(option) is Annotated else (option,)
        base = typing.get_origin(kind) or kind
        if base is Literal:
            if value in typing.get_args(kind):
                return value
            names.append(f"one of {', '.join(typing.get_args(kind))}")
            continue
        names.append("None" if base is types.NoneType else base.__name__)
        if base is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST:
            value = float(value)
        elif base in (tuple, list) and isinstance(value, tuple | list):
            value = base(value)
        if isinstance(value, base) and not (base is int and isinstance(value, bool)):
            if base in (int, float) and not (math.isinf(value) or abs(value) <= _LARGEST):
                raise ConfigError(f"{what} must be a number, of at most 2^53 in size; got {value!r:.60}")
            for interval in intervals:
                check_interval(value, interval, what)
            return value
    raise ConfigError(f"{what} must be {' or '.join(names)}; got {value!r}")


def check_choice(owner: str, valid: Iterable[str], **options: object) -> None:
    """Raise ConfigError unless every option is one of ``valid``; ``owner`` as in `check_range`."""
    choices = list(valid)
    for name, value in options.items():
        if value not in choices:
            raise ConfigError(f"{_called(owner, name)} must be one of {', '.join(choices)}; got {value!r}")


def check_range(owner: str, interval: str, **options: object) -> None:
    """Raise ConfigError unless every option is a number in ``interval`` (`check_interval`).

    ``owner``: what has the options, e.g. "augmentation"; "" for the command line, whose options are flags.
    """
    for name, value in options.items():
        check_interval(value, interval, _called(owner, name))


def check_bounds(owner: str, interval: str, **options: Sequence[float]) -> None:
    """Raise ConfigError unless every option is a pair of numbers in ``interval``, the lower one first."""
    for name, bounds in options.items():
        if not isinstance(bounds, list | tuple) or len(bounds) != 2:
            raise ConfigError(f"{owner}: {name} must be a pair of numbers; got {bounds!r:.60}")
        low, high = bounds
        check_interval(low, interval, f"{owner}: the lower bound of {name}")
        check_interval(high, f"[{low},{interval.partition(',')[2]}", f"{owner}: the upper bound of {name}")


def _called(owner: str, name: str) -> str:
    return f"{owner}: {name}" if owner else f"--{name.replace('_', '-')}"
