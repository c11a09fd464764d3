"""The tables on the page, each number with its records: the comparison's wide ones, the others as their CSV."""

from collections.abc import Sequence
from html import escape

import pandas as pd

from benchmarks.analysis.comparable import PROBES
from benchmarks.analysis.published import COLUMNS, PublishedNumber
from benchmarks.analysis.report.markup import (
    Part,
    Section,
    button,
    cell,
    grouped_digits,
    html_table,
    inline,
    number_of,
    wrapping,
)
from benchmarks.analysis.report.provenance import Provenance
from benchmarks.analysis.tables.comparison_table import Shown, legend, section_note, section_title, sections, wide
from benchmarks.analysis.tables.table import SOURCES, Row, Table, heading, protocol_name
from benchmarks.tasks import all_tasks
from mlomae.backbones.task import Metric

_FIRST = ("method", "row")  # columns that come first, where they stay in view when the table scrolls
_JOINED = ("_sd", "_low", "_high", "_seeds", "_verdict")  # suffixes of columns that are shown in the cell of another
_CODES = ("config_hash", "commit")  # shown last
_METRICS = {key: Metric(key, name) for key, name in PROBES.items()}
_METRICS |= {metric.name: metric for task in all_tasks() for metric in task.metrics}
_COMPARED = {"_vs_mae": "vs MAE", "_vs_random": "vs random initialisation", "_share": "share of headroom"}


def column_title(column: str, table: Table) -> str:
    """The heading of a column of a table's CSV."""
    for suffix, text in _COMPARED.items():
        if column.endswith(suffix):
            return f"{_METRICS[column.removesuffix(suffix)].title}, {text}"
    (own,) = (c for c in table.columns if c.name == column)
    if column in _METRICS:
        metric = _METRICS[column]
        return f"{metric.title} ({'points' if own.spec.startswith('+') else metric.unit})"
    return heading(column) if own.show else own.title or heading(column)


def comparison_section(frame: pd.DataFrame, provenance: Provenance) -> Section:
    """One table for each pretraining setting: methods in rows; tasks, data sets and metrics in columns."""
    parts = []
    for rows in sections(frame.to_dict("records")):
        first, (titles, found) = rows[0], wide(rows)
        name = "-".join(filter(None, ["compared", first["pretraining_dataset"], first["pretraining_setting"]]))
        name = "".join(c if c.isalnum() else "-" for c in name)
        shown = [
            (method, [*(_wide_cell(cell_lines, provenance) for cell_lines in cells), cell(escape(config), kind="code")])
            for (method, config), cells in found.items()
        ]
        heads = ["method", *("<br>".join(map(escape, title.split("<br>"))) for title in titles), "config"]
        table = html_table(f"table-{name}", section_title(first), heads, shown)
        parts.append(Part(name, section_title(first), f'<p class="note">{inline(section_note(rows))}</p>\n{table}'))
    return Section("comparison", "Comparison", legend(frame.to_dict("records")), parts=parts)


def _wide_cell(shown: Sequence[Shown], provenance: Provenance) -> str:
    """The lines of a cell, those after the first beneath it; it sorts by its first number."""
    html = ""
    for i, line in enumerate(shown):
        title = f"{line.row['method']}: {_dialog_title(line)}"
        asked = button(grouped_digits(line.text), provenance.of_cell(line.row, line.column), title) + line.mark
        html += f'<span class="beneath">{asked}</span>' if i else asked
    text = bool(shown) and shown[0].column.startswith("published_")
    return cell(html, shown[0].row[shown[0].column] if shown and not text else "", kind="text" if text else "")


def _dialog_title(line: Shown) -> str:
    """The title of the dialog with the records of a line."""
    if line.column.startswith("published_"):
        return f"published, {line.column.removeprefix('published_')}"
    if line.column.startswith("pretraining_"):
        return f"{heading(line.column.removeprefix('pretraining_'))} of the pretraining"
    compared = {"mean": "", "difference": ", vs MAE", "share_of_headroom": ", share of the headroom"}
    compared["verdict"] = ", what the difference to MAE shows"
    return f"{line.row['metric']} on {line.row['dataset']}{compared[line.column]}"


def table_section(name: str, table: Table, frame: pd.DataFrame, provenance: Provenance) -> Section:
    """A table with the method first, means with spread and interval in one cell."""
    columns = [str(c) for c in frame.columns if c != SOURCES]
    first = next((c for c in _FIRST if c in columns), columns[0])
    joined = {f"{c}{suffix}" for c in columns for suffix in _JOINED}
    others = sorted((c for c in columns if c != first and c not in joined), key=lambda c: c in _CODES)
    rows = []
    for row in frame.to_dict("records"):
        cells = [_cell(table, row, c, str(row[first]), provenance) for c in others]
        rows.append((str(row[first]), cells))
    titles = [escape(column_title(c, table)) for c in (first, *others)]
    return Section(name, table.title, table.note, html_table(f"table-{name}", table.title, titles, rows))


def _cell(table: Table, row: Row, column: str, method: str, provenance: Provenance) -> str:
    value = protocol_name(row) if column == "protocol" else str(row[column])
    entry = None if column in table.keys else provenance.of_cell(row, column)
    if entry is None or column in _CODES or number_of(value) is None:
        return cell(escape(value), kind="code" if column in _CODES else wrapping(value))
    sign = "+" if "_vs_" in column and value[0] not in "+-" else ""
    spread, low, high, seeds, verdict = (str(row.get(f"{column}{suffix}", "")) for suffix in _JOINED)
    shown = sign + grouped_digits(value) + (f" ± {spread}" if spread else "") + (f" [{low}, {high}]" if low else "")
    shown += (f" ({seeds})" if seeds else "") + (f", {verdict}" if verdict else "")
    return cell(button(shown, entry, f"{method}: {column_title(column, table)}"), value)


def published_section(numbers: Sequence[PublishedNumber]) -> Section:
    """The numbers that others report, each with its source."""
    title = "Published numbers"
    note = (
        "Numbers that others report, from `published.csv`; none of them was measured here. One that is comparable with "
        "a run is also beside it in the comparison. Primary: from the authors of the method or of a reproduction; "
        "secondary: from a table of another paper."
    )
    rows = []
    for number in numbers:
        method, *others = number.cells
        rows.append((method, [cell(escape(text), text, wrapping(text)) for text in others]))
    return Section("published", title, note, html_table("table-published", title, [*map(heading, COLUMNS)], rows))
