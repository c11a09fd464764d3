"""Whether what a file holds has the fields and types that it must have, said in one line that names the field.

A format is described by type hints: a ``TypedDict`` for fields by name (others may stand beside them), ``dict[str,
X]``, ``list[X]``, a tensor, plain values, choices, numbers with an interval (``Annotated[int, "[0, inf)"]``), unions.
"""

import functools
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, is_typeddict

import torch
from torch import Tensor

from mlomae.common.errors import CheckpointError, ConfigError
from mlomae.common.registry import check_value

Number = Annotated[int, "[0, inf)"]
"""A whole number that is not negative."""


class Plain:
    """As a hint: None, a truth value, a number, a text, or a list or dict of such."""


_fields = functools.cache(typing.get_type_hints)  # of a TypedDict; they stay the same
REMEDY = "use another file, or write it again"


def check_structure(value: Any, hint: Any, what: str, remedy: str = REMEDY) -> None:
    """Raise CheckpointError, one line that begins with ``what`` and names the field, unless ``value`` fits ``hint``."""
    if (fault := fault_of(value, hint, "")) is not None:
        raise CheckpointError(f"{what} {fault}; {remedy}")


def fault_of(value: Any, hint: Any, field: str) -> str | None:
    """What is wrong with the ``field``, or None."""
    if hint is Any:
        return None
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        faults = [fault_of(value, option, field) for option in typing.get_args(hint)]
        return None if None in faults else faults[0]
    kind, items = typing.get_origin(hint) or hint, typing.get_args(hint)
    if is_typeddict(hint):
        return _fault_of_fields(value, hint, field)
    if kind is dict:
        return _fault_of_items(value, items[0], items[1], field)
    if kind is list and items:
        if not isinstance(value, list | tuple):
            return _said(field, value, "a list")
        found = (fault_of(item, items[0], f"{field}[{n}]") for n, item in enumerate(value))
        return next((fault for fault in found if fault is not None), None)
    if kind is Plain:
        if isinstance(value, dict | list | tuple):
            return fault_of(value, dict[str, Plain] if isinstance(value, dict) else list[Plain], field)
        plain = value is None or type(value) in (bool, int, float, str)
        return None if plain else _said(field, value, "a plain value")
    if kind is Tensor:
        return None if is_plain(value) else _said(field, value, "an ordinary tensor in memory")
    try:
        check_value(value, hint, "")
    except ConfigError as error:
        return _said(field, value, str(error).partition("; got ")[0].strip().removeprefix("must be "))
    return None


def _fault_of_fields(value: Any, hint: Any, field: str) -> str | None:
    if not isinstance(value, Mapping):
        return _said(field, value, "a dict")
    for key, inner in _fields(hint, include_extras=True).items():
        name = f"{field}.{key}" if field else key
        if key not in value:
            if key in hint.__required_keys__:
                return f"lacks '{name}'"
        elif (fault := fault_of(value[key], inner, name)) is not None:
            return fault
    return None


def _fault_of_items(value: Any, of_keys: Any, of_values: Any, field: str) -> str | None:
    if not isinstance(value, Mapping):
        return _said(field, value, "a dict")
    for key, inner in value.items():
        if type(key) is not of_keys:
            return _said(field, key, f"a dict whose keys are {of_keys.__name__}", "has the key")
        if (fault := fault_of(inner, of_values, f"{field}.{key}")) is not None:
            return fault
    return None


def _said(field: str, value: Any, wanted: str, verb: str = "holds") -> str:
    given = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.60}"
    where = f"in '{field}'" if field else "as a whole"
    return f"{verb} {given} {where}, which must be {wanted}"


def is_plain(value: Any) -> bool:
    """Whether ``value`` is a dense tensor with its numbers in memory, on the CPU."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )
