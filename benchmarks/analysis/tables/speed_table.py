"""The table of speed runs, one row per record that `benchmarks.cost.speed` has written.

Rows of one run share ``finished_at``; a ratio belongs to the run it was measured in and is never formed between runs.
"""

import itertools

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.tables.table import OWN, SOURCES, Column, Row, Table
from mlomae.common.errors import DataError

_ORDER = (
    *("mae", "one_step", "authors", "pooled", "mae_compiled", "one_step_compiled", "mae_graphs"),
    *("mae_lightly", "mae_reference"),
    *("mae_bf16", "mae_bf16_compiled", "mae_lightly_bf16", "mae_reference_bf16"),
    *("files", "files_lightly", "files_reference"),
)


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
            "rounds": str(r["config"].get("rounds", r["outer_iterations"])),
            "precision": "bf16" if r["config"].get("amp", r["config"]["setting"]["amp"]) == "bf16" else "fp32",
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


def _interval(name: str, title: str, spec: str = ".3f") -> list[Column]:
    """A number with its interval, one cell of the page."""

    def show(row: Row) -> str:
        return f"{row[name]} [{row[f'{name}_low']}, {row[f'{name}_high']}]" if row[name] else ""

    return [Column(name, spec, title, show), *(Column(f"{name}_{end}", spec, hidden=True) for end in ("low", "high"))]


TABLE = Table(
    title="Speed of an outer iteration",
    columns=[
        Column("setting", key=True),
        Column("finished_at", title="run", key=True),
        Column("row", key=True),
        Column("precision"),
        Column("hardware", title="hardware, threads", show=lambda row: f"{row['hardware']}, {row['threads']}"),
        *(Column(name, hidden=True) for name in ("threads", "commit", "rounds")),
        Column("seconds", ".4f", "s"),
        Column("cpu_seconds", ".4f", "CPU s"),
        *_interval("images_per_s", "images/s", ".1f"),
        *_interval("seconds_to_authors", "s / authors"),
        *_interval("cpu_seconds_to_authors", "CPU s / authors"),
        *_interval("seconds_to_mae", "s / MAE"),
        *_interval("seconds_to_mae_bf16", "s / MAE in bf16"),
        *_interval("seconds_to_files", "s / MAE from files"),
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
        "in its own process, without a loader's workers. Share of matmul: relative to the rate of a large square "
        "matrix product in the row's precision, in the same rounds. Data are random tensors, loading is not timed; "
        "from files each tool reads JPEG images with its own loader and one worker. In the CSV, + marks a commit with "
        "uncommitted changes."
    ),
    order=["setting", "finished_at"],  # within a run as the rows come
    source="the records of `make bench-speed`",
)
