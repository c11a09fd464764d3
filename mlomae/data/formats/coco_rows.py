"""The lists of a COCO file by columns, with errors that name the entry at fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlomae.common.errors import DataError
from mlomae.data.formats.coco_masks import are_numbers

REMEDY = "correct the file or fetch it again"

MOST_ID = 2**62
MOST_AREA = 1e12


class Rows:
    """One list of the file, ``images``, ``categories`` or ``annotations``, by columns."""

    def __init__(self, where: str, content: Mapping[str, Any], kind: str) -> None:
        rows = content.get(kind)
        if not isinstance(rows, list) or not set(map(type, rows)) <= {dict}:
            keys = "images, annotations and categories, each a list of objects"
            raise DataError(f"{where} has no '{kind}' as COCO's instance annotations have; they need {keys}")
        self.where, self.kind = where, kind.removesuffix("s") if kind != "categories" else "category"
        if not rows:
            raise DataError(f"{where} lists no {self.kind}; {REMEDY}")
        self._rows: list[dict[str, Any]] = rows
        self.ids: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.ids = self.whole("id")
        self.refuse_twice("id", self.ids.tolist())

    def choose(self, order: NDArray[np.int64]) -> None:
        """Forget all rows but these."""
        self._rows, self.ids = [self._rows[i] for i in order.tolist()], self.ids[order]

    def fault(self, at: int, what: str) -> DataError:
        """The error for row ``at``; ``what`` follows on its name."""
        row = f"{self.kind} {self.ids[at]}" if len(self.ids) else f"{self.kind} number {at + 1} in its list"
        return DataError(f"{self.where}: {row} {what}; {REMEDY}")

    def column(self, key: str, kinds: set[type], default: Any = None) -> list[Any]:
        """The values under ``key``, all of one of ``kinds``."""
        values = [row.get(key, default) for row in self._rows]
        if not set(map(type, values)) <= kinds:
            at = next(i for i, value in enumerate(values) if type(value) not in kinds)
            raise self.fault(at, f"has {key} {values[at]!r:.40}" if key in self._rows[at] else f"has no {key}")
        return values

    def whole(self, key: str, least: int = 0) -> NDArray[np.int64]:
        """(rows,) whole numbers from ``least`` on."""
        values = self.column(key, {int})
        if not least <= min(values) <= max(values) < MOST_ID:
            at = next(i for i, value in enumerate(values) if not least <= value < MOST_ID)
            raise self.fault(at, f"has {key} {values[at]!r:.40}")
        return np.array(values, dtype=np.int64)

    def refer(self, key: str, ids: Sequence[int], what: str) -> NDArray[np.int64]:
        """(rows,) index into ``ids`` of the id under ``key``."""
        index = {id_: i for i, id_ in enumerate(ids)}
        wanted = self.whole(key).tolist()
        found = np.array([index.get(id_, -1) for id_ in wanted], dtype=np.int64)
        if found.min() < 0:
            at = int((found < 0).argmax())
            raise self.fault(at, f"has {key} {wanted[at]}, which is not among the {what}")
        return found

    def numbers(self, key: str) -> NDArray[np.float64]:
        """(rows,) finite numbers."""
        values = self.column(key, {int, float})
        if not are_numbers(values, MOST_AREA):
            at = next(i for i, value in enumerate(values) if not are_numbers([value], MOST_AREA))
            raise self.fault(at, f"has {key} {values[at]!r:.40}")
        return np.array(values, dtype=np.float64)

    def refuse_twice(self, key: str, values: Sequence[object]) -> None:
        """Raise DataError if a value, one of each row, is there twice."""
        if len(set(values)) == len(values):
            return
        seen: set[object] = set()
        for value in values:
            if value in seen:
                raise DataError(f"{self.where}: two entries have the {self.kind} {key} {value!r:.60}; {REMEDY}")
            seen.add(value)
