"""The table of a task's transfers: the metrics of every backbone, and what it gains, seed by seed.

Two methods are compared only if data, recipe and protocol are the same: everything in the configuration but the
backbone's weights.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.difference_table import paired_interval, seed_pairs
from benchmarks.headroom_table import BASELINE
from benchmarks.markdown import markdown_page
from benchmarks.records import Record, config_hash, hardware_phrase
from benchmarks.transfer import RANDOM
from mlomae.errors import DataError

REFERENCES = {"mae": BASELINE, "random": RANDOM}  # column suffix -> method
_COSTS = ["pretraining_images_seen", "pretraining_cpu_s", "transfer_cpu_s"]
_KEYS = ["dataset", "recipe", "protocol", "method", "config_hash"]
_SUFFIXES = ("", "_low", "_high", "_seeds")


@dataclass(frozen=True)
class TaskTable:
    """What a task's table shows. ``metrics``: of a record, in percent -> title; the first is the one compared.
    ``over``: what its numbers are means of, besides seeds."""

    title: str
    metrics: dict[str, str]
    over: str = "test images"

    @property
    def headline(self) -> str:
        return next(iter(self.metrics))

    @property
    def spreads(self) -> list[str]:
        return [f"{metric}{suffix}" for metric in self.metrics for suffix in ("", "_sd")]

    def difference(self, reference: str) -> list[str]:
        """The columns of the difference to a reference: mean, interval, seeds in common."""
        return [f"{self.headline}_vs_{reference}{suffix}" for suffix in _SUFFIXES]

    @property
    def differences(self) -> list[str]:
        return [column for name in REFERENCES for column in self.difference(name)]

    @property
    def columns(self) -> list[str]:
        return [*_KEYS, "seeds", *_COSTS, "hardware", *self.spreads, *self.differences]


CLASSIFICATION = TaskTable(
    "Transfer to classification", {"top1": "top-1", "top5": "top-5", "mean_per_class": "mean per class"}
)
DETECTION = TaskTable(
    "Transfer to object detection",
    {"box_AP": "box AP", "box_AP50": "box AP50", "mask_AP": "mask AP", "mask_AP50": "mask AP50"},
)
SEGMENTATION = TaskTable(
    "Transfer to semantic segmentation", {"mIoU": "mIoU", "mAcc": "mAcc", "aAcc": "aAcc"}, "pixels of all test images"
)


def setting_of(record: Record) -> str:
    """What compared runs agree on: sources and the whole recipe, protocol included; not the backbone."""
    config = record["config"]
    backbone = {k: v for k, v in config.get("backbone", {}).items() if k not in ("weights", "model")}
    parts = [record["dataset"], record["name"], record["train_source"], record["eval_source"]]
    return json.dumps([*parts, config_hash({**config, "backbone": backbone})], sort_keys=True)


def _row_key(record: Record) -> tuple[str, str]:
    """(method, configuration with the kind of backbone): the seeds of a row, within a setting, share it."""
    return record["method"], record["config_hash"]


def _check_unique(records: list[Record]) -> None:
    keys = [(r["dataset"], r["name"], r["config"].get("protocol"), r["method"], r["seed"]) for r in records]
    twice = sorted((key for key, count in Counter(keys).items() if count > 1), key=str)
    if twice:
        dataset, name, protocol, method, seed = twice[0]
        raise DataError(
            f"two records hold seed {seed} of {method} on {dataset} with recipe '{name}' ({protocol}); remove one, or "
            "give what differs a name of its own"
        )


def _known(runs: list[Record], *path: str) -> float:
    """Mean over ``runs`` of a number of the pretraining; NaN unless every run has it. No pretraining has cost 0."""
    values = []
    for r in runs:
        found: Any = r.get("pretrained") or {}
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        values.append(0.0 if r["method"] == RANDOM else found)
    return statistics.fmean(values) if all(isinstance(v, int | float) for v in values) else math.nan


def _difference(metric: str, runs: list[Record], rivals: list[list[Record]]) -> tuple[float, float, float, int]:
    """(mean, low, high, seeds in common) to the rival with the most seeds in common; NaN without one."""
    pairs: list[tuple[Record, Record]] = []
    for rival in rivals:
        pairs = max(pairs, seed_pairs(runs, rival), key=len)
    if not pairs:
        return math.nan, math.nan, math.nan, 0
    return *paired_interval([a["metrics"][metric] - b["metrics"][metric] for a, b in pairs]), len(pairs)


def transfer_rows(task: TaskTable, records: list[Record]) -> list[dict[str, Any]]:
    """One dict of ``task.columns`` a (setting, method, configuration); NaN where a number is not known.

    Raises DataError if a (data set, recipe, protocol, method, seed) is there twice, or a record lacks a metric.
    """
    _check_unique(records)
    settings: dict[str, dict[tuple[str, str], list[Record]]] = {}
    for r in sorted(records, key=lambda r: (setting_of(r), _row_key(r), r["seed"])):
        if missing := [metric for metric in task.metrics if metric not in r["metrics"]]:
            raise DataError(f"record '{r['name']}' of {r['method']} lacks the metric '{missing[0]}'; run it again")
        settings.setdefault(setting_of(r), {}).setdefault(_row_key(r), []).append(r)
    rows = []
    for groups in settings.values():
        for (method, digest), runs in groups.items():
            row: dict[str, Any] = {"dataset": runs[0]["dataset"], "recipe": runs[0]["name"], "method": method}
            row |= {"protocol": runs[0]["config"].get("protocol", "finetune")}
            row |= {"config_hash": digest, "seeds": len(runs)}
            row["pretraining_images_seen"] = _known(runs, "images_seen")
            row["pretraining_cpu_s"] = _known(runs, "clock", "cpu")
            row["transfer_cpu_s"] = statistics.fmean(r["cpu_s"] for r in runs)
            row["hardware"] = " / ".join(sorted({hardware_phrase(r) for r in runs}))
            for metric in task.metrics:
                values = [r["metrics"][metric] for r in runs]
                row[metric] = statistics.fmean(values)
                row[f"{metric}_sd"] = statistics.stdev(values) if len(values) > 1 else math.nan
            for name, reference in REFERENCES.items():
                rivals = [others for key, others in groups.items() if key[0] == reference != method]
                row |= dict(zip(task.difference(name), _difference(task.headline, runs, rivals), strict=True))
            rows.append(row)
    return rows


def _digits(column: str) -> str:
    if column.endswith("_images_seen"):
        return ".0f"
    if column.endswith("cpu_s"):
        return ".1f"
    return "+.2f" if "_vs_" in column else ".2f"


def _formatted(task: TaskTable, table: pd.DataFrame) -> pd.DataFrame:
    text = table.copy()
    for column in [*_COSTS, *task.spreads, *(c for c in task.differences if not c.endswith("_seeds"))]:
        text[column] = ["" if pd.isna(v) else format(v, _digits(column)) for v in table[column]]
    return text


def _cells(task: TaskTable, row: dict[Any, Any]) -> list[str]:
    """A formatted row in Markdown: means with their spread, differences with their interval."""
    cells = [str(row[c]) for c in (*_KEYS, "seeds", *_COSTS, "hardware")]
    for metric in task.metrics:
        cells.append(f"{row[metric]} (n=1)" if row["seeds"] == 1 else f"{row[metric]} ± {row[f'{metric}_sd']}")
    for name in REFERENCES:
        mean, low, high, seeds = (row[column] for column in task.difference(name))
        cells.append(f"{mean} [{low}, {high}] (n={seeds})" if low else f"{mean} (one seed)" if mean else "")
    return cells


def _titles(task: TaskTable) -> list[str]:
    costs = ["images seen (pretraining)", "pretraining CPU (s)", "transfer CPU (s)"]
    metrics = [f"{name} (%)" for name in task.metrics.values()]
    differences = [f"{task.metrics[task.headline]} vs {method}" for method in REFERENCES.values()]
    return ["dataset", "recipe", "protocol", "method", "config", "seeds", *costs, "hardware", *metrics, *differences]


def transfer_table(task: TaskTable, records: list[Record]) -> tuple[str, str]:
    """(CSV, Markdown) of a task's transfers; metrics in percent, differences in percentage points, times in seconds.

    The same bytes for any order of ``records``. Errors as `transfer_rows`.
    """
    table = pd.DataFrame(transfer_rows(task, records), columns=task.columns)
    text = _formatted(task, table.sort_values(_KEYS, kind="stable", ignore_index=True))
    footnote = (
        f"Mean ± sample standard deviation over seeds, of {task.over}. Differences: percentage points of "
        f"{task.metrics[task.headline]} between "
        "runs of the same seed, data, recipe and protocol; [low, high] is Student's 95 % interval of the mean over the "
        "n seeds in common, and one that holds 0 shows no difference. Images seen count repetitions, of the "
        "reconstruction level alone; the processor seconds of a pretraining are of all its levels. Empty: not known, "
        "or no such run to compare with."
    )
    rows = [_cells(task, row) for row in text.to_dict("records")]
    return text.to_csv(index=False, lineterminator="\n"), markdown_page(task.title, _titles(task), rows, footnote)
