"""From a cell of a result table to the records it was made of: `mlomae table NAME --trace "WORD|...|COLUMN"`.

COLUMN is a column of the table's CSV. The words before it name the row: values of its key columns, in any order, as
many as needed to tell the row from others.
"""

from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.tables.build import TABLES, read_results
from benchmarks.analysis.tables.comparison import COSTS
from benchmarks.analysis.tables.table import SOURCES, Row, Sources, Table, aligned
from mlomae.common.errors import ConfigError, counted
from mlomae.records import Record, hardware_phrase, predictions_of

SHOWN = 20  # cells listed where none or several match
_OWN = {"seeds": "seed", "transfer_cpu_s": "cpu_s", "rounds": "outer_iterations"}  # column -> field of a record


class CellError(ConfigError):
    """A cell that does not exist or is ambiguous. ``near``: similar cells as they can be typed, closest first."""

    def __init__(self, message: str, near: list[str]) -> None:
        super().__init__(message)
        self.near = near


def _alike(a: str, b: str) -> float:
    return SequenceMatcher(None, a.lower(), b.lower()).ratio()


def _row_name(row: Row, table: Table) -> str:
    return "|".join(str(row[key]) for key in table.keys if str(row[key]))


def find_cell(frame: pd.DataFrame, table: Table, cell: str) -> tuple[Row, str]:
    """(row, column) that ``cell`` names. Raises CellError if it names none, or several."""
    *words, column = [word.strip() for word in cell.split("|")]
    columns, rows = [c for c in frame.columns if c != SOURCES], frame.to_dict("records")
    matching = [row for row in rows if {w.lower() for w in words} <= {str(row[key]).lower() for key in table.keys}]
    if column in columns and len(matching) == 1:
        return matching[0], column
    to_rows = {
        _row_name(row, table): sum(max(_alike(word, str(row[key])) for key in table.keys) for word in words)
        for row in matching or rows
    }
    to_columns = {name: _alike(column, name) for name in columns}
    closest = sorted(to_columns, key=lambda name: -to_columns[name])[:SHOWN]
    cells = [(f"{name}|{c}", score + to_columns[c]) for name, score in to_rows.items() for c in closest]
    near = [name for name, _ in sorted(cells, key=lambda scored: -scored[1])[:SHOWN]]
    if column not in columns:
        raise CellError(f"the table has no column '{column}'; name one as 'WORD|...|COLUMN', like those listed", near)
    many = counted(len(matching), "row") if matching else "no row"
    raise CellError(f"'{cell}' names {many}; give the words of one, like those listed", near)


def sources_of(row: Row, column: str) -> list[tuple[str, list[Record]]]:
    """(role, records) that a cell is made of."""
    made_of: Sources = row[SOURCES]
    fitting = [key for key in made_of if key and (column == key or column.startswith(f"{key}_"))]
    return made_of[max(fitting, key=len, default="")]


def value_of(record: Record, row: Row, column: str, evidence: Evidence) -> Any:
    """What a record contributes to a cell: a metric, cost or field; "" where no number of a record enters the cell."""
    if column.startswith("pretraining_") and (cost := column.removeprefix("pretraining_")) in COSTS:
        return evidence.cost(record, cost)
    metrics = record["metrics"]
    named = [key for key in metrics if column == key or column.startswith(f"{key}_")]
    if named:
        return metrics[max(named, key=len)]
    field = _OWN.get(column, column)
    if field in record:
        found = record[field]
        return found["lower"] if field == "images_seen" else hardware_phrase(record) if field == "hardware" else found
    if column == "labelled_seen":
        return record["images_seen"]["head"] + record["images_seen"]["upper"]
    return metrics.get(row.get("metric"), "")


def line_of(record: Record, evidence: Evidence, **value: Any) -> dict[str, Any]:
    """What is shown of a record, by column; with ``value`` what it contributes to a cell."""
    file, commit = evidence.file_of(record), record["git_commit"]
    return {
        "record": file,
        "method": record["method"],
        "seed": record["seed"],
        **value,
        "commit": f"{commit[:12]}{' (dirty)' if record['git_dirty'] else ''}" if commit else "unknown",
        "hardware": hardware_phrase(record),
        "images seen": record["images_seen"]["lower"],
        "wall-clock (s)": record["wall_clock_s"],
        "config": record["config_hash"],
        "predictions": predictions_of(file, Path("runs")).as_posix() if evidence.tested_of(record) else "none",
    }


def trace(records_folder: Path, name: str, cell: str | None = None) -> str:
    """The value of a cell and every record it is made of, as text; without ``cell`` the Markdown of the whole table.

    Raises ConfigError for an unknown table, CellError for an unknown cell, and what `read_results` raises.
    """
    if name not in TABLES:
        raise ConfigError(f"there is no table '{name}'; choose one of {', '.join(TABLES)}")
    table, evidence = TABLES[name], read_results(records_folder)
    frame, page = table.build(evidence)
    if not cell:
        return page.rstrip("\n")
    row, column = find_cell(frame, table, cell)
    lines = [f"{name}.csv: {_row_name(row, table)}|{column} = {row[column] if str(row[column]) else '(empty)'}"]
    parts = sources_of(row, column)
    lines += [role for role, records in parts if not records]
    made_of = [(role, r) for role, records in parts for r in records]
    shown = [{"role": role} | line_of(r, evidence, value=value_of(r, row, column, evidence)) for role, r in made_of]
    if column == "p_holm":
        lines.append("Corrected for all p values of the table; the p value of this row is from:")
    if shown:
        lines += aligned([list(shown[0]), *([str(v) for v in line.values()] for line in shown)])
    return "\n".join(lines)
