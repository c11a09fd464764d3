"""What the tests of whole transfers share: changed configurations, comparison to the bit, one-line messages."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy; ``train__amp="bf16"`` sets a nested key, a plain key replaces a section."""
    result = copy.deepcopy(values)
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = copy.deepcopy(value)
    return result


GONE = object()
"""In place of a value: that there is none."""


def with_value(content: Any, place: Sequence[Any], value: Any) -> Any:
    """A copy of nested dicts and lists with ``value`` where the keys of ``place`` lead, or without it for GONE; what is
    not on the way is shared."""
    result = inner = copy.copy(content)
    for key in place[:-1]:
        inner[key] = copy.copy(inner[key])
        inner = inner[key]
    if value is GONE:
        del inner[place[-1]]
    else:
        inner[place[-1]] = copy.deepcopy(value)
    return result


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two nests of tensors, arrays and plain values differ in a bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [where]
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return [] if a.dtype == b.dtype and np.array_equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{where}: keys {a.keys() ^ b.keys()}"]
        return [hit for k in a for hit in differences(a[k], b[k], f"{where}.{k}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return [f"{where}: lengths"]
        return [hit for i, (x, y) in enumerate(zip(a, b, strict=True)) for hit in differences(x, y, f"{where}.{i}")]
    return [] if a == b else [where]


def one_line(error: BaseException | str) -> str:
    """The message, which must be one line that says what to do: a thing and, after a semicolon, often a remedy."""
    text = str(error).strip()
    assert text, "no message"
    assert "\n" not in text, text
    assert "Traceback" not in text, text
    return text
