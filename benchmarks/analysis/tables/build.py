"""All result tables as files, and the comparison in docs/results.md beside them.

The same records give the same bytes: rows are sorted, numbers formatted here, lines end in LF. Predictions, FLOPs and
published numbers are read from the folder around the records, and never written.
"""

from pathlib import Path

from benchmarks.analysis.evidence import Evidence, read_evidence
from benchmarks.analysis.tables import aggregate_table, comparison_table, parts_table, pretrain_tables, speed_table
from benchmarks.analysis.tables.comparison_table import BEGIN, filled, short_table
from benchmarks.analysis.tables.table import Table, csv_of
from benchmarks.analysis.tables.transfer_table import transfer_table
from benchmarks.tasks import all_tasks
from mlomae.common.atomic import write_text
from mlomae.common.errors import DataError

TASKS: dict[str, Table] = {
    "pretrain": pretrain_tables.PRETRAIN,
    "speed": speed_table.TABLE,
    **{task.name: transfer_table(task) for task in all_tasks()},
}
TABLES: dict[str, Table] = {
    **TASKS,
    "headroom": pretrain_tables.HEADROOM,
    "headroom_parts": parts_table.TABLE,
    "differences": pretrain_tables.DIFFERENCES,
    "aggregate": aggregate_table.TABLE,
    "comparison": comparison_table.TABLE,
}


def read_results(records_folder: Path) -> Evidence:
    """`read_evidence`; DataError for a record whose task has no table."""
    evidence = read_evidence(records_folder)
    for r in evidence.records.values():
        if r["task"] not in TASKS:
            raise DataError(f"record '{r['name']}' is of task '{r['task']}'; tables exist for {', '.join(TASKS)}")
    return evidence


def render_tables(records_folder: Path, out: Path) -> dict[Path, str]:
    """File -> content: ``<table>.csv`` and ``<table>.md`` of every table in ``out`` (of a task only if it has records),
    and docs/results.md beside it if that has the marks of the comparison.

    Raises DataError for a demo record, an unknown task, a seed recorded twice, a record that cannot be read, or
    predictions that are not those of their record.
    """
    evidence = read_results(records_folder)
    contents: dict[Path, str] = {}
    frames = {}
    without = {task.name for task in all_tasks() if not evidence.of_task(task.name)}
    for name, table in TABLES.items():
        if name in without:
            continue
        frames[name], markdown = table.build(evidence)
        contents |= {out / f"{name}.csv": csv_of(frames[name]), out / f"{name}.md": markdown}
    page = out.absolute().parent / "docs" / "results.md"
    if page.is_file() and BEGIN in (text := page.read_text(encoding="utf-8")):
        contents[page] = filled(text, short_table(frames["comparison"]), str(page))
    return contents


def build_tables(records_folder: Path, out: Path) -> list[Path]:
    """Write the tables once all of them are rendered; returns the files written. Errors as `render_tables`."""
    contents = render_tables(records_folder, out)
    for path, text in contents.items():
        write_text(path, text)
    return list(contents)


def check_tables(records_folder: Path, out: Path) -> None:
    """Raise DataError if a table on disk is not what its records give: edited by hand, or not regenerated."""
    for path, text in render_tables(records_folder, out).items():
        if not path.is_file() or path.read_bytes() != text.encode():
            raise DataError(f"table '{path}' is not what the records give; run `make tables` and do not edit tables")
