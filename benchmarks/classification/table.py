"""The table of transfers to classification: accuracy of every backbone, and what it gains, seed by seed.

Two methods are compared only if data, recipe and protocol are the same: everything in the configuration but the
backbone's weights.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from benchmarks.difference_table import paired_interval, seed_pairs
from benchmarks.headroom_table import BASELINE
from benchmarks.markdown import markdown_page
from benchmarks.records import Record, config_hash, hardware_phrase
from benchmarks.transfer import RANDOM
from mlomae.errors import DataError

METRICS = {"top1": "top-1", "top5": "top-5", "mean_per_class": "mean per class"}
REFERENCES = {"mae": BASELINE, "random": RANDOM}  # column suffix -> method
_COSTS = ["pretraining_images_seen", "pretraining_cpu_s", "transfer_cpu_s"]
_SPREADS = [f"{metric}{suffix}" for metric in METRICS for suffix in ("", "_sd")]
_DIFFERENCES = [f"top1_vs_{name}{suffix}" for name in REFERENCES for suffix in ("", "_low", "_high", "_seeds")]
_KEYS = ["dataset", "recipe", "protocol", "method", "config_hash"]
COLUMNS = [*_KEYS, "seeds", *_COSTS, "hardware", *_SPREADS, *_DIFFERENCES]


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


def _difference(runs: list[Record], rivals: list[list[Record]]) -> tuple[float, float, float, int]:
    """(mean, low, high, seeds in common) of top-1 to the rival with the most seeds in common; NaN without one."""
    pairs: list[tuple[Record, Record]] = []
    for rival in rivals:
        pairs = max(pairs, seed_pairs(runs, rival), key=len)
    if not pairs:
        return math.nan, math.nan, math.nan, 0
    return *paired_interval([a["metrics"]["top1"] - b["metrics"]["top1"] for a, b in pairs]), len(pairs)


def classification_rows(records: list[Record]) -> list[dict[str, Any]]:
    """One dict of `COLUMNS` a (setting, method, configuration); NaN where a number is not known.

    Raises DataError if a (data set, recipe, protocol, method, seed) is there twice, or a record has no accuracies.
    """
    _check_unique(records)
    settings: dict[str, dict[tuple[str, str], list[Record]]] = {}
    for r in sorted(records, key=lambda r: (setting_of(r), _row_key(r), r["seed"])):
        if missing := [metric for metric in METRICS if metric not in r["metrics"]]:
            raise DataError(f"record '{r['name']}' of {r['method']} lacks the metric '{missing[0]}'; run it again")
        settings.setdefault(setting_of(r), {}).setdefault(_row_key(r), []).append(r)
    rows = []
    for groups in settings.values():
        for (method, digest), runs in groups.items():
            row: dict[str, Any] = {"dataset": runs[0]["dataset"], "recipe": runs[0]["name"], "method": method}
            row |= {"protocol": runs[0]["config"].get("protocol", ""), "config_hash": digest, "seeds": len(runs)}
            row["pretraining_images_seen"] = _known(runs, "images_seen")
            row["pretraining_cpu_s"] = _known(runs, "clock", "cpu")
            row["transfer_cpu_s"] = statistics.fmean(r["cpu_s"] for r in runs)
            row["hardware"] = " / ".join(sorted({hardware_phrase(r) for r in runs}))
            for metric in METRICS:
                values = [r["metrics"][metric] for r in runs]
                row[metric] = statistics.fmean(values)
                row[f"{metric}_sd"] = statistics.stdev(values) if len(values) > 1 else math.nan
            for name, reference in REFERENCES.items():
                rivals = [others for key, others in groups.items() if key[0] == reference != method]
                keys = [f"top1_vs_{name}{suffix}" for suffix in ("", "_low", "_high", "_seeds")]
                row |= dict(zip(keys, _difference(runs, rivals), strict=True))
            rows.append(row)
    return rows


def _digits(column: str) -> str:
    if column.endswith("_images_seen"):
        return ".0f"
    if column.endswith("cpu_s"):
        return ".1f"
    return "+.2f" if column in _DIFFERENCES else ".2f"


def _formatted(table: pd.DataFrame) -> pd.DataFrame:
    text = table.copy()
    for column in [*_COSTS, *_SPREADS, *(c for c in _DIFFERENCES if not c.endswith("_seeds"))]:
        text[column] = ["" if pd.isna(v) else format(v, _digits(column)) for v in table[column]]
    return text


def _cells(row: dict[Any, Any]) -> list[str]:
    """A formatted row in Markdown: means with their spread, differences with their interval."""
    cells = [str(row[c]) for c in (*_KEYS, "seeds", *_COSTS, "hardware")]
    for metric in METRICS:
        cells.append(f"{row[metric]} (n=1)" if row["seeds"] == 1 else f"{row[metric]} ± {row[f'{metric}_sd']}")
    for name in REFERENCES:
        mean, low, high, seeds = (row[f"top1_vs_{name}{suffix}"] for suffix in ("", "_low", "_high", "_seeds"))
        cells.append(f"{mean} [{low}, {high}] (n={seeds})" if low else f"{mean} (one seed)" if mean else "")
    return cells


def _titles() -> Sequence[str]:
    costs = ["images seen (pretraining)", "pretraining CPU (s)", "transfer CPU (s)"]
    accuracies = [f"{name} (%)" for name in METRICS.values()]
    differences = [f"top-1 vs {method}" for method in REFERENCES.values()]
    return ["dataset", "recipe", "protocol", "method", "config", "seeds", *costs, "hardware", *accuracies, *differences]


def classification_table(records: list[Record]) -> tuple[str, str]:
    """(CSV, Markdown) of the transfers; accuracies in percent, differences in percentage points, times in seconds.

    The same bytes for any order of ``records``. Errors as `classification_rows`.
    """
    table = pd.DataFrame(classification_rows(records), columns=COLUMNS)
    text = _formatted(table.sort_values(_KEYS, kind="stable", ignore_index=True))
    footnote = (
        "Mean ± sample standard deviation over seeds, of test images. Differences: percentage points of top-1 between "
        "runs of the same seed, data, recipe and protocol; [low, high] is Student's 95 % interval of the mean over the "
        "n seeds in common, and one that holds 0 shows no difference. Images seen count repetitions, of the "
        "reconstruction level alone; the processor seconds of a pretraining are of all its levels. Empty: not known, "
        "or no such run to compare with."
    )
    rows = [_cells(row) for row in text.to_dict("records")]
    page = markdown_page("Transfer to classification", _titles(), rows, footnote)
    return text.to_csv(index=False, lineterminator="\n"), page
