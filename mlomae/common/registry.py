"""One registry for everything a configuration names: masking strategies, feedback losses, data sources, augmentations.

MMEngine's registries are kept for what MMEngine builds (hooks, loops, transfer models); these check the options' names
before anything runs, and say in one line what is wrong.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from mlomae.common.errors import ConfigError

T = TypeVar("T")
B = TypeVar("B", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Builders of ``T`` by name; ``kind`` is what messages call them, e.g. "masking strategy"."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._builders: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[B], B]:
        """Decorator: make a class or function buildable under ``name``. Raises ValueError if the name is taken."""

        def wrap(builder: B) -> B:
            if name in self._builders:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._builders[name] = builder
            return builder

        return wrap

    def names(self) -> list[str]:
        return sorted(self._builders)

    def get(self, name: object) -> Callable[..., T]:
        """The builder; raises ConfigError, listing the valid names, if there is none."""
        if not isinstance(name, str) or name not in self._builders:
            said = f"{self.kind} without a type" if name is None else f"unknown {self.kind} '{name}'"
            raise ConfigError(f"{said}; choose one of {', '.join(self.names())}")
        return self._builders[name]

    def build(self, name: object, options: Mapping[str, Any], **given: Any) -> T:
        """Call the builder with ``given`` (the program's arguments) and ``options`` (the user's).

        Raises ConfigError for an unknown name, an unknown option, or a missing one.
        """
        builder = self.get(name)
        parameters = {k: p for k, p in inspect.signature(builder).parameters.items() if k not in given}
        known = ", ".join(parameters) or "none"
        for key in options:
            if key not in parameters:
                close = difflib.get_close_matches(str(key), parameters, n=1)
                hint = f" (did you mean '{close[0]}'?)" if close else ""
                raise ConfigError(f"{self.kind} '{name}' has no option '{key}'{hint}; it has {known}")
        for key, parameter in parameters.items():
            if parameter.default is inspect.Parameter.empty and key not in options:
                raise ConfigError(f"{self.kind} '{name}' needs the option '{key}'; it has {known}")
        return builder(**given, **options)
