"""What every result table is: rows, the records that each cell is made of, a CSV and a Markdown page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.analysis.evidence import Evidence
from mlomae.records import Record

Row = dict[Any, Any]
SOURCES = "_sources"
"""Column that is not written: {prefix of columns: [(role, records)]}. The longest prefix that fits a column says which
records its cell is made of; "" stands for the row's own."""
OWN, RIVAL, ORACLE = "row", "compared with", "best oracle"  # roles
_HEADINGS = {
    "config_hash": "config",
    "schedule": "outer iterations",
    "reference": "against",
    "wall_clock_s": "wall-clock (s)",
    "cpu_s": "CPU (s)",
    "pretraining_images_seen": "images seen (pretraining)",
    "pretraining_cpu_s": "pretraining CPU (s)",
    "transfer_cpu_s": "transfer CPU (s)",
}
_NUMERICS_NOTE = (
    "Rows of one configuration that name their NUMERICS were made by versions of the code whose results may differ: "
    "they are neither pooled nor compared."
)
Sources = dict[str, list[tuple[str, list[Record]]]]


@dataclass(frozen=True)
class Table:
    """A result table.

    Attributes:
        title: its heading. note: what a reader must know, in Markdown. source: where its numbers come from.
        keys: the columns that name a row. order: those that rows are sorted by, the keys by default.
        columns: of the CSV -> the format of its numbers, "" for texts and for what is formatted already.
        rows: makes the rows, dicts of the columns and `SOURCES`.
        cells: of the page, each a column, or a heading and the column that it shows or what it shows of a row of text.
    """

    title: str
    keys: Sequence[str]
    columns: Mapping[str, str]
    rows: Callable[[Evidence], list[Row]]
    cells: Sequence[str | tuple[str, str | Callable[[Row], str]]]
    note: str
    order: Sequence[str] = ()
    source: str = "the run records"

    def build(self, evidence: Evidence) -> tuple[pd.DataFrame, str]:
        """(the rows as text, with a column `SOURCES`; their Markdown). The same for any order of the records."""
        rows = self.rows(evidence)
        if "config_hash" in self.keys:
            _tell_numerics_apart(rows, self.keys)
        frame = pd.DataFrame(rows, columns=[*self.columns, SOURCES])
        frame = frame.sort_values(list(self.order or self.keys), kind="stable", ignore_index=True)
        for column, spec in self.columns.items():
            if spec:
                frame[column] = ["" if pd.isna(value) else format(value, spec) for value in frame[column]]
        return frame, self.page(frame, evidence)

    def page(self, frame: pd.DataFrame, evidence: Evidence) -> str:
        """The Markdown of the rows."""
        cells = [(heading(cell), cell) if isinstance(cell, str) else cell for cell in self.cells]
        rows = [
            [str(row[show]) if isinstance(show, str) else show(row) for _, show in cells]
            for row in frame.to_dict("records")
        ]
        lines = markdown_table([title for title, _ in cells], rows)
        note = f"{self.note} {numerics_note(frame.to_dict('records'))}".rstrip()
        return "\n".join([*markdown_head(self.title, self.source), *lines, "", note]) + "\n"


def _tell_numerics_apart(rows: list[Row], keys: Sequence[str]) -> None:
    """Add to the configuration of rows that have the same keys the NUMERICS that tell them apart."""
    alike: dict[tuple[Any, ...], list[tuple[Row, Record]]] = {}
    for row in rows:
        named = tuple(row[key] for key in keys if not key.endswith("_setting"))  # which NUMERICS are part of
        alike.setdefault(named, []).append((row, row[SOURCES][""][0][1][0]))
    for found in alike.values():
        numbers = [record.get("numerics", {}) for _, record in found]
        parts = sorted({part for n in numbers for part in n if any(other.get(part) != n[part] for other in numbers)})
        for (row, _), n in zip(found, numbers, strict=True):
            told = f" (NUMERICS {', '.join(f'{part} {n[part]}' for part in parts if part in n) or 'unknown'})"
            for column in ("config_hash", "pretraining_config") if parts else ():
                row |= {column: f"{row[column]}{told}"} if column in row else {}


def numerics_note(rows: Iterable[Row]) -> str:
    """What a reader of ``rows`` must know if NUMERICS tell some of them apart; "" if not."""
    return _NUMERICS_NOTE if any(" (NUMERICS " in str(row.get("config_hash")) for row in rows) else ""


def heading(column: str) -> str:
    """What a column is called where it stands alone."""
    return _HEADINGS.get(column, column.replace("_", " "))


def csv_of(frame: pd.DataFrame) -> str:
    return frame.drop(columns=SOURCES).to_csv(index=False, lineterminator="\n")


def markdown_head(title: str, source: str = "the run records") -> list[str]:
    """The lines that every page begins with."""
    return [f"# {title}", "", f"Generated by `make tables` from {source}; not edited by hand.", ""]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; bars inside cells are escaped. ``rows`` hold one text a column."""
    lines = [columns, *rows]
    head, *body = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)
    return [head, "|" + "---|" * len(columns), *body]


def mean_and_sd(runs: list[Record], metric: str) -> dict[str, float]:
    """{metric: mean, metric_sd: sample standard deviation} of the runs that have it; NaN without any, or a second."""
    values = [r["metrics"][metric] for r in runs if metric in r["metrics"]]
    mean = statistics.fmean(values) if values else math.nan
    return {metric: mean, f"{metric}_sd": statistics.stdev(values) if values[1:] else math.nan}


def spread(column: str) -> Callable[[Row], str]:
    """Mean ± standard deviation; one seed has none and says so."""

    def show(row: Row) -> str:
        if not row[column]:
            return ""
        return f"{row[column]} (n=1)" if row["seeds"] == 1 else f"{row[column]} ± {row[f'{column}_sd']}"

    return show


def signed(column: str) -> Callable[[Row], str]:
    """A difference whose column has no plus sign, with one."""
    return lambda row: row[column] if row[column][:1] in ("", "-") else f"+{row[column]}"


def interval(column: str, seeds: str) -> Callable[[Row], str]:
    """A difference with its interval; without one, why: one pair of runs, or pairs that agree to the last digit."""

    def show(row: Row) -> str:
        mean, low, high, pairs = row[column], row[f"{column}_low"], row[f"{column}_high"], row[seeds]
        if low:
            return f"{mean} [{low}, {high}] (n={pairs})"
        return f"{mean} ({'one seed' if int(pairs) == 1 else f'n={pairs}, all the same: no interval'})" if mean else ""

    return show
