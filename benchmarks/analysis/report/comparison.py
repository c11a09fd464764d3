"""The comparison on the page: the wide tables of `comparison_table`, each number with its records."""

from __future__ import annotations

from html import escape

import pandas as pd

from benchmarks.analysis.published import EVIDENCE
from benchmarks.analysis.report.markup import Part, Section, button, cell, grouped_digits, html_table, inline, lines
from benchmarks.analysis.report.provenance import Provenance
from benchmarks.analysis.tables.comparison_table import (
    COSTS,
    MARKS,
    Row,
    columns_of,
    cost_row,
    legend,
    marked,
    methods_of,
    section_note,
    section_title,
    sections,
    spread,
)


def comparison_section(frame: pd.DataFrame, provenance: Provenance) -> Section:
    """A table a pretraining setting: a line a method, a column a task, data set and metric, published ones beside."""
    rows = frame.to_dict("records")
    parts = []
    for found in sections(rows):
        first = found[0]
        name = "-".join(filter(None, ["compared", first["pretraining_dataset"], first["pretraining_setting"]]))
        name = "".join(c if c.isalnum() else "-" for c in name)
        table = _table(f"table-{name}", found, provenance)
        parts.append(Part(name, section_title(first), f'<p class="note">{inline(section_note(found))}</p>\n{table}'))
    return Section("comparison", "Comparison", legend(rows), parts=parts)


def _table(name: str, rows: list[Row], provenance: Provenance) -> str:
    titles = ["method", *(escape(title) for title in COSTS.values())]
    columns = []
    for title, by_method in columns_of(rows):
        titles.append(lines(title))
        columns.append({key: _measured(row, provenance) for key, row in by_method.items()})
        for kind in EVIDENCE:
            published = {key: row for key, row in by_method.items() if row[f"published_{kind}"]}
            if published:
                titles.append(f"{lines(title)}<br>published ({kind})")
                columns.append({key: _published(row, kind, provenance) for key, row in published.items()})
    shown = []
    for key, found in methods_of(rows).items():
        costs = [_cost(found, cost, provenance) for cost in COSTS]
        shown.append(
            (key[0], [*costs, *(column.get(key, cell("")) for column in columns), cell(escape(key[1]), kind="code")])
        )
    return html_table(name, section_title(rows[0]), [*titles, "config"], shown)


def _cost(rows: list[Row], cost: str, provenance: Provenance) -> str:
    column, row = f"pretraining_{cost}", cost_row(rows, cost)
    text = row[column]
    title = f"{row['method']}: {COSTS[cost]} of the pretraining"
    return cell(button(grouped_digits(text), provenance.of_cell(row, column), title), text)


def _measured(row: Row, provenance: Provenance) -> str:
    """Mean, spread and count; beneath, the difference to MAE with its interval, and the share of the headroom."""
    name = f"{row['method']}: {row['metric']} on {row['dataset']}"
    shown = [button(spread(row), provenance.of_cell(row, "mean"), name)]
    if row["difference"]:
        interval = f" [{row['low']}, {row['high']}]" if row["low"] else ""
        text = f"{row['difference']}{'†' if marked(row) else ''}{interval}"
        asked = button(text, provenance.of_cell(row, "difference"), f"{name}, vs MAE")
        shown.append(f'<span class="beneath">{asked}{MARKS[row["interval"]] if interval else ""}</span>')
    if row["share_of_headroom"]:
        entry = provenance.of_cell(row, "share_of_headroom")
        asked = button(f"share {row['share_of_headroom']}", entry, f"{name}, share of the headroom")
        shown.append(f'<span class="beneath">{asked}</span>')
    return cell("".join(shown), row["mean"])


def _published(row: Row, kind: str, provenance: Provenance) -> str:
    column = f"published_{kind}"
    return cell(
        button(row[column], provenance.of_cell(row, column), f"{row['method']}: published, {kind}"), kind="text"
    )
