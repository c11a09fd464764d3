"""Transforms of mmseg and mmdet, built from the plain values of a checked configuration."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import Compose
from mmengine.registry import DefaultScope, Registry

from mlomae.common.errors import ConfigError, reason_of


def _tuples(value: Any) -> Any:
    """Lists of numbers as tuples: what mmcv's transforms insist on, and what a checked configuration has not."""
    if isinstance(value, dict):
        return {key: _tuples(v) for key, v in value.items()}
    if isinstance(value, list):
        numbers = bool(value) and all(isinstance(v, int | float) for v in value)
        return tuple(value) if numbers else [_tuples(v) for v in value]
    return value


def build_pipeline(registry: Registry, steps: list[dict[str, Any]], section: str) -> Compose:
    """The transforms of ``registry`` by name; raises ConfigError, naming the section of the configuration, for one that
    it does not have or that refuses its options."""
    scope = registry.scope
    try:
        with DefaultScope.overwrite_default_scope(scope):  # an earlier run of this process leaves "mmengine"
            return Compose([registry.build(_tuples(step)) for step in steps])
    except Exception as error:  # constructors assert, and raise anything
        raise ConfigError(f"config section '{section}' is refused by {scope} ({reason_of(error)})") from error
