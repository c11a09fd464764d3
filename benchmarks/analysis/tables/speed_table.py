"""The table of speed runs, one row per record that `benchmarks.cost.speed` has written.

Rows of one run share ``finished_at``; a ratio belongs to the run it was measured in and is never formed between runs.
"""

import itertools

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.tables.table import OWN, SOURCES, Column, Row, Table
from mlomae.common.errors import DataError

_ORDER = ("mae", "one_step", "authors", "mae_compiled", "one_step_compiled", "mae_lightly", "mae_reference")


def _rows(evidence: Evidence) -> list[Row]:
    """Raises DataError for a row that a run has twice."""
    order = ("setting", "finished_at", "rank", "row")
    rows: list[Row] = [
        {
            "setting": r["config"]["setting"]["name"],
            "finished_at": r["finished_at"],
            "row": r["method"],
            "rank": _ORDER.index(r["method"]) if r["method"] in _ORDER else len(_ORDER),
            "hardware": r["hardware"]["gpu"] or r["hardware"]["cpu"],
            "threads": str(r["hardware"]["threads"]),
            "commit": (r["git_commit"] or "")[:7] + ("+" if r["git_dirty"] else ""),
            "rounds": str(r["outer_iterations"]),
            **r["metrics"],
            SOURCES: {"": [(OWN, [r])]},
        }
        for r in evidence.of_task("speed")
    ]
    rows.sort(key=lambda row: [row[key] for key in order])
    for one, other in itertools.pairwise(rows):
        if all(one[key] == other[key] for key in order):
            raise DataError(
                f"two records hold the row '{one['row']}' of the speed run of {one['finished_at']}; remove one"
            )
    return rows


def _ratio(name: str, title: str) -> list[Column]:
    """A ratio with its interval, one cell of the page."""

    def show(row: Row) -> str:
        return f"{row[name]} [{row[f'{name}_low']}, {row[f'{name}_high']}]" if row[name] else ""

    return [Column(name, ".3f", title, show), *(Column(f"{name}_{end}", ".3f", hidden=True) for end in ("low", "high"))]


TABLE = Table(
    title="Speed of an outer iteration",
    columns=[
        Column("setting", key=True),
        Column("finished_at", title="run", key=True),
        Column("row", key=True),
        Column("hardware", title="hardware, threads", show=lambda row: f"{row['hardware']}, {row['threads']}"),
        *(Column(name, hidden=True) for name in ("threads", "commit", "rounds")),
        Column("seconds", ".4f", "s"),
        Column("cpu_seconds", ".4f", "CPU s"),
        *_ratio("seconds_to_authors", "s / authors"),
        *_ratio("cpu_seconds_to_authors", "CPU s / authors"),
        *_ratio("seconds_to_mae", "s / MAE"),
        Column("peak_mib", ".0f", "peak MiB"),
        Column("gflop", ".1f", hidden=True),
        Column("gflop_per_s", ".1f", "GFLOP/s"),
        Column("share_of_matmul", ".3f", "share of matmul"),
        Column("matmul_square", ".1f", hidden=True),
        Column("compile_s", ".1f", "compile s"),
    ],
    rows=_rows,
    note=(
        "Seconds are medians over rounds in which the rows took turns; a ratio is the median of the ratios within a "
        "round, with a 95 % interval of the median. Peak memory: model, optimizers, data and one iteration, each row "
        "in its own process. Share of matmul: relative to the rate of a large square matrix product in the same "
        "rounds. Data are random tensors, loading is not timed. In the CSV, + marks a commit with uncommitted changes."
    ),
    order=["setting", "finished_at"],  # within a run as the rows come
    source="the records of `make bench-speed`",
)
