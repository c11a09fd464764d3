"""What every result table is: rows of cells as text, the records behind each cell, and its two files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.analysis.evidence import Evidence
from mlomae.records import Record

BEHIND = "_behind"
"""Column that is not written: {prefix of columns: [(role, records)]}. The longest prefix that fits a column says which
records its cell is made of; "" stands for the row's own."""
OWN, RIVAL, ORACLE = "row", "compared with", "best oracle"  # roles
Behind = dict[str, list[tuple[str, list[Record]]]]


@dataclass(frozen=True)
class Table:
    """``build``: (the rows as text, with a column `BEHIND`; their Markdown). ``keys``: the columns that name a row."""

    keys: Sequence[str]
    build: Callable[[Evidence], tuple[pd.DataFrame, str]]


def table_of(
    task: str, keys: Sequence[str], frame: Callable[[list[Record]], pd.DataFrame], page: Callable[[pd.DataFrame], str]
) -> Table:
    """The table that is made of the records of one task alone."""

    def build(evidence: Evidence) -> tuple[pd.DataFrame, str]:
        rows = frame(evidence.of_task(task))
        return rows, page(rows)

    return Table(keys, build)


def make_frame(rows: Sequence[dict[str, Any]], columns: Sequence[str], order: Sequence[str]) -> pd.DataFrame:
    """The rows with ``columns`` and `BEHIND`, sorted by ``order``; cells are not formatted yet."""
    frame = pd.DataFrame(rows, columns=[*columns, BEHIND])
    return frame.sort_values(list(order), kind="stable", ignore_index=True)


def formatted(values: Iterable[Any], spec: str) -> list[str]:
    """Numbers as text, NaN as nothing."""
    return ["" if pd.isna(v) else format(v, spec) for v in values]


def csv_of(frame: pd.DataFrame) -> str:
    return frame.drop(columns=BEHIND).to_csv(index=False, lineterminator="\n")
