"""The table of a task's transfers: the metrics of every backbone, and its differences to MAE and to random weights."""

from functools import partial
from typing import Any

from benchmarks.analysis.comparable import BASELINE, configurations, others_of, pool_key, seed_pairs
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.references import reference_of
from benchmarks.analysis.tables.table import (
    COPIES,
    SOURCES,
    VERDICTS,
    Column,
    Row,
    Table,
    difference_of,
    interval,
    keys,
    pair_sources,
    protocol_name,
    row_of,
    spread,
)
from mlomae.backbones.task import Task
from mlomae.common.errors import DataError
from mlomae.records import RANDOM, Record, grouped

REFERENCES = {"mae": BASELINE, "random": RANDOM}  # column suffix -> method


def _names(r: Record) -> tuple[Any, ...]:
    return r["dataset"], r["name"], str(r["config"].get("protocol")), r["method"], r["seed"], pool_key(r)


def _check(task: Task, records: list[Record]) -> None:
    """Raise DataError if a (data set, recipe, protocol, method, seed, NUMERICS) is there twice, or a record lacks a
    metric."""
    for one, *others in grouped(records, _names).values():
        if others:
            dataset, name, protocol, method, seed, _ = _names(one)
            raise DataError(
                f"two records hold seed {seed} of {method} on {dataset} with recipe '{name}' ({protocol}); remove one, "
                "or give what differs a name of its own"
            )
    for r in records:
        if missing := [metric.name for metric in task.metrics if metric.name not in r["metrics"]]:
            raise DataError(f"record '{r['name']}' of {r['method']} lacks the metric '{missing[0]}'; run it again")


def _rows(task: Task, evidence: Evidence) -> list[Row]:
    """One row per (setting, method, configuration); NaN where a number is not known."""
    records, headline, rows = evidence.of_task(task.name), task.headline.name, []
    _check(task, records)
    for runs, methods in configurations(records):
        row = row_of(runs, [metric.name for metric in task.metrics])
        row |= {f"pretraining_{cost}": evidence.mean_cost(runs, cost) for cost in ("images_seen", "cpu_s")}
        row["transfer_cpu_s"] = row["cpu_s"]
        known = row["pretraining_images_seen"] is not None  # weights from elsewhere are compared with any MAE
        for name, reference in REFERENCES.items():
            if name == "mae" and known:
                pairs = seed_pairs(runs, reference_of(runs, methods, evidence))
            else:
                rivals = (seed_pairs(runs, others) for others in others_of(methods, reference, runs))
                pairs = max(rivals, key=len, default=[])
            column = f"{headline}_vs_{name}"
            row |= difference_of(pairs, headline, column, evidence)
            row[SOURCES][column] = pair_sources(pairs)
        rows.append(row)
    return rows


def transfer_table(task: Task) -> Table:
    """The table of ``task``; metrics in their unit, differences of percentages in points, times in seconds."""
    headline = task.headline
    columns = [
        *keys("dataset", "recipe"),
        Column("protocol", show=protocol_name, key=True),
        *keys("method", "config_hash"),
        Column("seeds"),
        Column("pretraining_images_seen", ".0f"),
        Column("pretraining_cpu_s", ".1f"),
        Column("transfer_cpu_s", ".1f"),
        Column("hardware"),
        *(column for m in task.metrics for column in spread(m.name, f"{m.title} ({m.unit})")),
    ]
    for name, reference in REFERENCES.items():
        column = f"{headline.name}_vs_{name}"
        columns += interval(column, f"{headline.title} vs {reference}")
    columns.append(COPIES)
    return Table(
        title=task.title,
        columns=columns,
        rows=partial(_rows, task),
        note=(
            f"Mean ± sample standard deviation over seeds, of {task.averaged_over}. Differences: percentage points of "
            f"{headline.title} between runs of the same seed, data, recipe and protocol, to MAE of as many images seen "
            "(any, if that is not known); [low, high] is the 95 % interval of the mean over the n common seeds, for "
            "other seeds and other test images (images alone if n = 1), and one that contains 0 shows no difference. "
            "Images seen count repetitions, in the reconstruction level only; the processor seconds of a pretraining "
            f"are of all its levels. Empty: not known, or no such run to compare with. {VERDICTS}"
        ),
    )
