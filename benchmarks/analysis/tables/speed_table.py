"""The table of speed runs, one row a record: `benchmarks.cost.speed` writes them, `make tables` puts them together.

Rows of one run share ``finished_at``; a ratio belongs to the run it was measured in and is never formed between runs.
"""

import itertools
from collections.abc import Callable

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.tables.table import OWN, SOURCES, Row, Table
from mlomae.common.errors import DataError
from mlomae.records import Record

_RATIOS = ("seconds_to_authors", "cpu_seconds_to_authors", "seconds_to_mae")
KEYS = ["setting", "finished_at", "row"]
_ORDER = ("mae", "one_step", "authors", "mae_compiled", "one_step_compiled", "mae_lightly", "mae_reference")
_METRICS = (
    {"seconds": ".4f", "cpu_seconds": ".4f"}  # -> digits
    | {f"{ratio}{suffix}": ".3f" for ratio in _RATIOS for suffix in ("", "_low", "_high")}
    | {"peak_mib": ".0f", "gflop": ".1f", "gflop_per_s": ".1f", "share_of_matmul": ".3f"}
    | {"matmul_square": ".1f", "compile_s": ".1f"}
)


def _row(record: Record) -> Row:
    hardware = record["hardware"]
    return {
        "setting": record["config"]["setting"]["name"],
        "finished_at": record["finished_at"],
        "row": record["method"],
        "rank": _ORDER.index(record["method"]) if record["method"] in _ORDER else len(_ORDER),
        "hardware": hardware["gpu"] or hardware["cpu"],
        "threads": str(hardware["threads"]),
        "commit": (record["git_commit"] or "")[:7] + ("+" if record["git_dirty"] else ""),
        "rounds": str(record["outer_iterations"]),
        **{metric: record["metrics"].get(metric) for metric in _METRICS},
        SOURCES: {"": [(OWN, [record])]},
    }


def _rows(evidence: Evidence) -> list[Row]:
    """Raises DataError for a row that a run has twice."""
    order = ("setting", "finished_at", "rank", "row")
    rows = sorted(map(_row, evidence.of_task("speed")), key=lambda row: [row[key] for key in order])
    for one, other in itertools.pairwise(rows):
        if all(one[key] == other[key] for key in order):
            raise DataError(
                f"two records hold the row '{one['row']}' of the speed run of {one['finished_at']}; remove one"
            )
    return rows


def _ratio(column: str) -> Callable[[Row], str]:
    return lambda row: f"{row[column]} [{row[f'{column}_low']}, {row[f'{column}_high']}]" if row[column] else ""


TABLE = Table(
    title="Speed of an outer iteration",
    keys=KEYS,
    columns=dict.fromkeys([*KEYS, "hardware", "threads", "commit", "rounds"], "") | _METRICS,
    rows=_rows,
    cells=[
        "setting",
        ("run", "finished_at"),
        "row",
        ("hardware, threads", lambda row: f"{row['hardware']}, {row['threads']}"),
        ("s", "seconds"),
        ("CPU s", "cpu_seconds"),
        ("s / authors", _ratio("seconds_to_authors")),
        ("CPU s / authors", _ratio("cpu_seconds_to_authors")),
        ("s / MAE", _ratio("seconds_to_mae")),
        ("peak MiB", "peak_mib"),
        ("GFLOP/s", "gflop_per_s"),
        ("share of matmul", "share_of_matmul"),
        ("compile s", "compile_s"),
    ],
    note=(
        "Seconds are medians over rounds in which the rows took turns; a ratio is the median of the ratios within a "
        "round, with an interval that covers the median 95 times in 100. Peak memory: model, optimizers, data and one "
        "iteration, each row in a process of its own. Share of matmul: of the rate of a large square product in the "
        "same rounds. Data are random tensors, loading is not timed. A commit with + had changes not committed."
    ),
    order=KEYS[:2],  # within a run as the rows come
    source="the records of `make bench-speed`",
)
