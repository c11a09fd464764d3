"""The tables of the tasks, as their CSV has them: the method first, means with spread and interval in one cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from typing import Any

import pandas as pd

from benchmarks.analysis.published import COLUMNS as PUBLISHED
from benchmarks.analysis.published import PublishedNumber
from benchmarks.analysis.report.markup import Section, button, cell, grouped_digits, html_table, number_of, wrapping
from benchmarks.analysis.report.provenance import Provenance
from benchmarks.analysis.report.words import column_words
from benchmarks.analysis.tables.table import BEHIND, Table
from benchmarks.tasks import all_tasks

TITLES = {
    "pretrain": "Pretraining: probes of the frozen encoder",
    "headroom": "Share of the oracle's headroom",
    "differences": "Differences between methods",
    **{task.name: task.title for task in all_tasks()},
    "speed": "Speed of an outer iteration",
}
_FIRST = ("method", "row")  # columns that may stand first, where they stay in sight
_BESIDE = ("_sd", "_low", "_high", "_seeds")  # of columns that stand in the cell of another
_CODES = ("config_hash", "commit")  # stand last: nobody reads them first
Row = dict[Any, Any]


def task_section(name: str, table: Table, frame: pd.DataFrame, markdown: str, provenance: Provenance) -> Section:
    """A table under its title and the note that ends its Markdown."""
    columns = [str(c) for c in frame.columns if c != BEHIND]
    first = next((c for c in _FIRST if c in columns), columns[0])
    beside = {f"{c}{suffix}" for c in columns for suffix in _BESIDE}
    others = sorted((c for c in columns if c != first and c not in beside), key=lambda c: c in _CODES)
    rows = []
    for row in frame.to_dict("records"):
        asked = {c: None if c in table.keys else provenance.of_cell(row, c) for c in others}
        rows.append((str(row[first]), [_cell(name, row, c, str(row[first]), asked[c]) for c in others]))
    titles = [escape(column_words(c, name)) for c in (first, *others)]
    note = markdown.rstrip().rsplit("\n\n", 1)[-1]
    return Section(name, TITLES[name], note, html_table(f"table-{name}", TITLES[name], titles, rows))


def _cell(table: str, row: Row, column: str, method: str, entry: int | None) -> str:
    value = str(row[column])
    if entry is None or column in _CODES or number_of(value) is None:
        return cell(escape(value), kind="code" if column in _CODES else wrapping(value))
    signed = f"+{value}" if "_vs_" in column and value[0] not in "+-" else value
    spread, low, high, seeds = (str(row.get(f"{column}{suffix}", "")) for suffix in _BESIDE)
    shown = grouped_digits(signed) + (f" ± {spread}" if spread else "") + (f" [{low}, {high}]" if low else "")
    shown += f" ({seeds})" if seeds else ""
    return cell(button(shown, entry, f"{method}: {column_words(column, table)}"), value)


def published_section(numbers: Sequence[PublishedNumber]) -> Section:
    """What others report: the source of each number stands beside it."""
    note = (
        "What others report and nothing here measures, as `published.csv` has it; a number that lines up with a run "
        "stands beside it in the comparison as well. Primary: said by the authors of the method or of a reproduction; "
        "secondary: by the table of another paper."
    )
    rows = []
    for number in numbers:
        values = {c: "" if v is None else str(v) for c, v in asdict(number).items()}
        rows.append((number.method, [cell(escape(values[c]), values[c], wrapping(values[c])) for c in PUBLISHED[1:]]))
    titles = [escape(column_words(c, "published")) for c in PUBLISHED]
    return Section(
        "published", "Published numbers", note, html_table("table-published", "Published numbers", titles, rows)
    )
