"""The table of a task's transfers: the metrics of every backbone, and what it gains, seed by seed.

Two methods are compared only if data, recipe and protocol are the same: everything in the configuration but the
backbone's weights.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from typing import Any

import pandas as pd

from benchmarks.analysis.comparable import BASELINE, by_config
from benchmarks.analysis.statistics import paired_interval
from benchmarks.analysis.tables.difference_table import seed_pairs
from benchmarks.analysis.tables.markdown import difference_cell, markdown_page
from benchmarks.analysis.tables.table import BEHIND, OWN, RIVAL, formatted, make_frame
from mlomae.backbones.task import Task
from mlomae.common.errors import DataError
from mlomae.records import RANDOM, Record, config_hash, grouped, hardware_phrase

REFERENCES = {"mae": BASELINE, "random": RANDOM}  # column suffix -> method
_COSTS = ["pretraining_images_seen", "pretraining_cpu_s", "transfer_cpu_s"]
KEYS = ["dataset", "recipe", "protocol", "method", "config_hash"]
_SUFFIXES = ("", "_low", "_high", "_seeds")


def difference_columns(task: Task, reference: str) -> list[str]:
    """The columns of the difference to a reference: mean, interval, seeds in common."""
    return [f"{task.headline.name}_vs_{reference}{suffix}" for suffix in _SUFFIXES]


def columns_of(task: Task) -> list[str]:
    """The columns of a task's CSV."""
    spreads = [f"{metric.name}{suffix}" for metric in task.metrics for suffix in ("", "_sd")]
    differences = [column for name in REFERENCES for column in difference_columns(task, name)]
    return [*KEYS, "seeds", *_COSTS, "hardware", *spreads, *differences]


def setting_of(record: Record) -> str:
    """What compared runs agree on: sources and the whole recipe, protocol included; not the backbone."""
    config = record["config"]
    backbone = {k: v for k, v in config.get("backbone", {}).items() if k not in ("weights", "model")}
    parts = [record["dataset"], record["name"], record["train_source"], record["eval_source"]]
    return json.dumps([*parts, config_hash({**config, "backbone": backbone})], sort_keys=True)


def _check_unique(records: list[Record]) -> None:
    keys = [(r["dataset"], r["name"], r["config"].get("protocol"), r["method"], r["seed"]) for r in records]
    twice = sorted((key for key, count in Counter(keys).items() if count > 1), key=str)
    if twice:
        dataset, name, protocol, method, seed = twice[0]
        raise DataError(
            f"two records hold seed {seed} of {method} on {dataset} with recipe '{name}' ({protocol}); remove one, or "
            "give what differs a name of its own"
        )


def known_of_pretraining(runs: list[Record], *path: str) -> float:
    """Mean over ``runs`` of a number of the pretraining; NaN unless every run has it. No pretraining has cost 0."""
    values = []
    for r in runs:
        found: Any = r.get("pretrained") or {}
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        values.append(0.0 if r["method"] == RANDOM else found)
    return statistics.fmean(values) if all(isinstance(v, int | float) for v in values) else math.nan


def _pairs(runs: list[Record], rivals: list[list[Record]]) -> list[tuple[Record, Record]]:
    """Runs of the same seed, with the rival that has most seeds in common; none without one."""
    pairs: list[tuple[Record, Record]] = []
    for rival in rivals:
        pairs = max(pairs, seed_pairs(runs, rival), key=len)
    return pairs


def _difference(metric: str, pairs: list[tuple[Record, Record]]) -> tuple[float, float, float, int]:
    """(mean, low, high, seeds in common); NaN without any."""
    if not pairs:
        return math.nan, math.nan, math.nan, 0
    return *paired_interval([a["metrics"][metric] - b["metrics"][metric] for a, b in pairs]), len(pairs)


def transfer_rows(task: Task, records: list[Record]) -> list[dict[str, Any]]:
    """One dict of `columns_of` a (setting, method, configuration); NaN where a number is not known.

    Raises DataError if a (data set, recipe, protocol, method, seed) is there twice, or a record lacks a metric.
    """
    _check_unique(records)
    for r in records:
        if missing := [m.name for m in task.metrics if m.name not in r["metrics"]]:
            raise DataError(f"record '{r['name']}' of {r['method']} lacks the metric '{missing[0]}'; run it again")
    rows = []
    for alike in grouped(records, setting_of).values():
        groups = by_config(alike)
        for (method, digest), runs in groups.items():
            row: dict[str, Any] = {"dataset": runs[0]["dataset"], "recipe": runs[0]["name"], "method": method}
            row |= {"protocol": runs[0]["config"].get("protocol", "finetune")}
            row |= {"config_hash": digest, "seeds": len(runs)}
            row["pretraining_images_seen"] = known_of_pretraining(runs, "images_seen")
            row["pretraining_cpu_s"] = known_of_pretraining(runs, "clock", "cpu")
            row["transfer_cpu_s"] = statistics.fmean(r["cpu_s"] for r in runs)
            row["hardware"] = " / ".join(sorted({hardware_phrase(r) for r in runs}))
            for metric in (m.name for m in task.metrics):
                values = [r["metrics"][metric] for r in runs]
                row[metric] = statistics.fmean(values)
                row[f"{metric}_sd"] = statistics.stdev(values) if len(values) > 1 else math.nan
            behind = {"": [(OWN, runs)]}
            for name, reference in REFERENCES.items():
                rivals = [others for key, others in groups.items() if key[0] == reference != method]
                pairs = _pairs(runs, rivals)
                columns = difference_columns(task, name)
                row |= dict(zip(columns, _difference(task.headline.name, pairs), strict=True))
                own, other = [a for a, _ in pairs], [b for _, b in pairs]
                behind[columns[0]] = [(OWN, own), (RIVAL, other)]
            rows.append(row | {BEHIND: behind})
    return rows


def _digits(column: str) -> str:
    if column.endswith("_images_seen"):
        return ".0f"
    if column.endswith("cpu_s"):
        return ".1f"
    return "+.2f" if "_vs_" in column else ".2f"


def transfer_frame(task: Task, records: list[Record]) -> pd.DataFrame:
    """A task's transfers as text; metrics in percent, differences in percentage points, times in seconds.

    The same for any order of ``records``. Errors as `transfer_rows`.
    """
    columns = columns_of(task)
    text = make_frame(transfer_rows(task, records), columns, KEYS)
    for column in columns[len(KEYS) + 1 :]:
        if column != "hardware" and not column.endswith("_seeds"):
            text[column] = formatted(text[column], _digits(column))
    return text


def _cells(task: Task, row: dict[Any, Any]) -> list[str]:
    """A formatted row in Markdown: means with their spread, differences with their interval."""
    cells = [str(row[c]) for c in (*KEYS, "seeds", *_COSTS, "hardware")]
    for metric in (m.name for m in task.metrics):
        cells.append(f"{row[metric]} (n=1)" if row["seeds"] == 1 else f"{row[metric]} ± {row[f'{metric}_sd']}")
    for name in REFERENCES:
        cells.append(difference_cell(*(row[column] for column in difference_columns(task, name))))
    return cells


def _titles(task: Task) -> list[str]:
    costs = ["images seen (pretraining)", "pretraining CPU (s)", "transfer CPU (s)"]
    metrics = [f"{metric.title} ({metric.unit})" for metric in task.metrics]
    differences = [f"{task.headline.title} vs {method}" for method in REFERENCES.values()]
    return ["dataset", "recipe", "protocol", "method", "config", "seeds", *costs, "hardware", *metrics, *differences]


def transfer_page(task: Task, frame: pd.DataFrame) -> str:
    """The Markdown of `transfer_frame`."""
    footnote = (
        f"Mean ± sample standard deviation over seeds, of {task.averaged_over}. Differences: percentage points of "
        f"{task.headline.title} between runs of the same seed, data, recipe and protocol; [low, high] is Student's "
        "95 % interval of the mean over the n seeds in common, and one that holds 0 shows no difference. Images seen "
        "count repetitions, of the reconstruction level alone; the processor seconds of a pretraining are of all its "
        "levels. Empty: not known, or no such run to compare with."
    )
    rows = [_cells(task, row) for row in frame.to_dict("records")]
    return markdown_page(task.title, _titles(task), rows, footnote)
