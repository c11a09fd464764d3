"""Masks as COCO files write them, in three forms: checks of their format, and all masks of a data set in one array.

- polygons: a list of polygons, each the list x, y, x, y, ... of its corners in pixels.
- run lengths: {"size": [H, W], "counts": [...]}, lengths of alternating runs of 0 and 1, column by column, of 0 first.
- compressed run lengths: the same with ``counts`` as text. A run is written as its difference to the run two before it
  (the first three as they are), five bits per character, low bits first: character 48 + bits, + 32 if another character
  follows; the highest bit of the last one is the sign.

pycocotools, which turns masks into pixels, crashes or writes out of bounds on some malformed ones: check first.

Shape suffixes: H height, W width.
"""

import math
import pickle
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from mlomae.common.errors import BackendError
from mlomae.common.installing import install_command

FORMS = ("polygons", "run lengths", "compressed run lengths")

LARGEST = 1e6
"""Largest absolute value of a coordinate, in pixels."""

LEAST_CORNERS = 6
"""Numbers of a polygon with three corners. Shorter ones, which have no area, are left out: pycocotools reads four
numbers as a box."""


def are_numbers(values: Sequence[Any], most: float = LARGEST) -> bool:
    """Whether all are integers or floats, not NaN, and at most ``most`` from 0."""
    if not set(map(type, values)) <= {int, float}:
        return False
    if not values:
        return True
    return bool(-most <= min(values) and max(values) <= most) and not math.isnan(sum(values))


def mask_fault(mask: Any, height: int, width: int) -> str | None:
    """What is wrong with the mask of an object in an image of this size, to follow "a mask that", or None."""
    if isinstance(mask, list):
        return _polygons_fault(mask)
    if not isinstance(mask, dict) or not mask.keys() >= {"size", "counts"}:
        return "is neither a list of polygons nor run lengths with size and counts"
    size, counts, pixels = mask["size"], mask["counts"], height * width
    if size != [height, width]:
        return f"has size {size!r:.60}, its image [{height}, {width}] (height, width)"
    if isinstance(counts, str):
        try:
            counts = expand(counts)
        except ValueError:
            return "has compressed run lengths that are damaged"
    if not isinstance(counts, list) or not set(map(type, counts)) <= {int}:
        return "has run lengths that are not whole numbers"
    if min(counts, default=0) < 0:
        return "has a negative run length"
    if sum(counts) != pixels:
        return f"has run lengths that do not add up to the {pixels:,} pixels of its image"
    return None


def _polygons_fault(polygons: list[Any]) -> str | None:
    if not polygons:
        return "is empty"
    for corners in polygons:
        if not isinstance(corners, list):
            return "is not a list of polygons, each a list of x, y, x, y, ..."
        if len(corners) % 2:
            return f"has a polygon of {len(corners):,} numbers, the last an x without y"
        if not are_numbers(corners):
            return "has a polygon with a corner that is not a pixel position"
    return None


def expand(counts: str) -> list[int]:
    """Expand compressed run lengths. Raises ValueError for other text."""
    runs: list[int] = []
    value = shift = 0
    for code in counts.encode("ascii"):
        bits = code - 48
        if not 0 <= bits < 64 or shift > 30:  # a run fits into 32 bits
            raise ValueError("not compressed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("compressed run lengths end within a number")
    return runs


def has_outline(mask: Any) -> bool:
    """False for polygons none of which has three corners."""
    return not isinstance(mask, list) or any(len(corners) >= LEAST_CORNERS for corners in mask)


class Masks:
    """The masks of N objects as in their file, without polygons that have no area; ``forms`` (N,) indexes FORMS.

    Stored as one array of bytes: a million lists would be copied by every worker, because reading changes reference
    counts.

    Args:
        masks: ones that passed `mask_fault`.
    """

    def __init__(self, masks: Iterable[Any]) -> None:
        pickled, forms = [], bytearray()
        for mask in masks:
            if isinstance(mask, list):
                mask = [corners for corners in mask if len(corners) >= LEAST_CORNERS]
            forms.append(0 if isinstance(mask, list) else 1 if isinstance(mask["counts"], list) else 2)
            pickled.append(pickle.dumps(mask))
        self.forms = np.frombuffer(bytes(forms), dtype=np.uint8)
        self._bytes = np.frombuffer(b"".join(pickled), dtype=np.uint8)
        self._ends = np.cumsum([0, *map(len, pickled)])

    def __getitem__(self, n: int) -> Any:
        """The mask of object ``n`` as in the file."""
        return pickle.loads(self._bytes[self._ends[n] : self._ends[n + 1]].tobytes())

    def content(self, first: int, last: int) -> bytes:
        """Bytes that identify the masks of objects ``first`` to ``last - 1``."""
        masks = [_numbers(self[n]) for n in range(first, last)]
        parts = [part for mask in masks for part in mask]
        counts = np.array([*map(len, masks), *map(len, parts)], dtype="<i8")
        numbers = np.array([number for part in parts for number in part], dtype="<f8")
        return self.forms[first:last].tobytes() + counts.tobytes() + numbers.tobytes()


def _numbers(mask: Any) -> list[Sequence[float]]:
    """The corners of each polygon, or the runs, or the characters of compressed runs."""
    if isinstance(mask, list):
        return mask
    return [mask["counts"] if isinstance(mask["counts"], list) else list(mask["counts"].encode("ascii"))]


def mask_tools() -> ModuleType:
    """`pycocotools.mask`. Raises BackendError, one line, if it is not installed."""
    try:
        from pycocotools import mask as tools
    except ImportError as error:
        raise BackendError(f"pycocotools is not installed; {install_command('benchmarks')}") from error
    return tools


def encode(mask: Any, height: int, width: int) -> dict[str, Any]:
    """A mask that passed `mask_fault` as run lengths for pycocotools; polygons are rasterised and merged."""
    tools = mask_tools()
    if isinstance(mask, list):
        return tools.merge(tools.frPyObjects(mask, height, width))
    return mask if isinstance(mask["counts"], str) else tools.frPyObjects(mask, height, width)
