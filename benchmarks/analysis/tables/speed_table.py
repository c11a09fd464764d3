"""The table of speed runs, one row a record: `benchmarks.cost.speed` writes them, `make tables` puts them together.

Rows of one run share ``finished_at``; a ratio belongs to the run it was measured in and is never formed between runs.
"""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd

from benchmarks.analysis.tables.markdown import markdown_page
from benchmarks.analysis.tables.table import BEHIND, OWN
from mlomae.common.errors import DataError
from mlomae.records import Record

# metric -> digits; the key is the column of the CSV
_DIGITS = {
    "seconds": 4,
    "cpu_seconds": 4,
    "seconds_to_authors": 3,
    "seconds_to_authors_low": 3,
    "seconds_to_authors_high": 3,
    "cpu_seconds_to_authors": 3,
    "cpu_seconds_to_authors_low": 3,
    "cpu_seconds_to_authors_high": 3,
    "seconds_to_mae": 3,
    "seconds_to_mae_low": 3,
    "seconds_to_mae_high": 3,
    "peak_mib": 0,
    "gflop": 1,
    "gflop_per_s": 1,
    "share_of_matmul": 3,
    "matmul_square": 1,
    "compile_s": 1,
}
KEYS = ["setting", "finished_at", "row"]
COLUMNS = [*KEYS, "hardware", "threads", "commit", "rounds", *_DIGITS]
_ORDER = ("mae", "one_step", "authors", "mae_compiled", "one_step_compiled", "mae_lightly", "mae_reference")
_TITLES = (
    "setting",
    "run",
    "row",
    "hardware, threads",
    "s",
    "CPU s",
    "s / authors",
    "CPU s / authors",
    "s / MAE",
    "peak MiB",
    "GFLOP/s",
    "share of matmul",
    "compile s",
)


def _row(record: Record) -> dict[str, Any]:
    hardware, metrics = record["hardware"], record["metrics"]
    row = {
        "setting": record["config"]["setting"]["name"],
        "finished_at": record["finished_at"],
        "row": record["method"],
        "hardware": hardware["gpu"] or hardware["cpu"],
        "threads": str(hardware["threads"]),
        "commit": (record["git_commit"] or "")[:7] + ("+" if record["git_dirty"] else ""),
        "rounds": str(record["outer_iterations"]),
    }
    row |= {k: f"{metrics[k]:.{digits}f}" if k in metrics else "" for k, digits in _DIGITS.items()}
    return row | {BEHIND: {"": [(OWN, [record])]}}


def _key(row: dict[str, Any]) -> tuple[str, str, int, str]:
    known = row["row"] in _ORDER
    return row["setting"], row["finished_at"], _ORDER.index(row["row"]) if known else len(_ORDER), row["row"]


def _interval(row: dict[Any, Any], key: str) -> str:
    return f"{row[key]} [{row[f'{key}_low']}, {row[f'{key}_high']}]" if row[key] else ""


def speed_frame(records: list[Record]) -> pd.DataFrame:
    """The speed runs as text. Raises DataError for a row that a run has twice."""
    rows = sorted((_row(r) for r in records), key=_key)
    for one, other in itertools.pairwise(rows):
        if _key(one) == _key(other):
            raise DataError(
                f"two records hold the row '{one['row']}' of the speed run of {one['finished_at']}; remove one"
            )
    return pd.DataFrame(rows, columns=[*COLUMNS, BEHIND])


def speed_page(frame: pd.DataFrame) -> str:
    """The Markdown of `speed_frame`."""
    shown = []
    for row in frame.to_dict("records"):
        cells = [row[k] for k in KEYS]
        cells += [f"{row['hardware']}, {row['threads']}", row["seconds"], row["cpu_seconds"]]
        cells += [_interval(row, k) for k in ("seconds_to_authors", "cpu_seconds_to_authors", "seconds_to_mae")]
        cells += [row[k] for k in ("peak_mib", "gflop_per_s", "share_of_matmul", "compile_s")]
        shown.append(cells)
    footnote = (
        "Seconds are medians over rounds in which the rows took turns; a ratio is the median of the ratios within a "
        "round, with an interval that covers the median 95 times in 100. Peak memory: model, optimizers, data and one "
        "iteration, each row in a process of its own. Share of matmul: of the rate of a large square product in the "
        "same rounds. Data are random tensors, loading is not timed. A commit with + had changes not committed."
    )
    source = "the records of `make bench-speed`"
    return markdown_page("Speed of an outer iteration", _TITLES, shown, footnote, source)
