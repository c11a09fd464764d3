"""The table of pretraining runs: accuracies of the frozen encoder, what they cost, and how the feedback did."""

import math
import statistics
from functools import partial

from benchmarks.analysis.comparable import (
    BASELINE,
    EQUAL_IMAGES,
    Methods,
    may_compare,
    methods_of,
    same_images,
    setting_of,
)
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.tables.table import OWN, RIVAL, SOURCES, Row, Table, mean_and_sd, signed, spread
from mlomae.records import Record, grouped, hardware_phrase

ACCURACIES = ("linear_top1_cls", "linear_top1_avg", "knn_top1_cls", "knn_top1_avg")
KEYS = ["dataset", "method", "config_hash"]


def _rows(evidence: Evidence) -> list[Row]:
    """One row a (data set, method, configuration): means and sample standard deviations, NaN for one seed."""
    rows = []
    for alike in grouped(evidence.of_task("pretrain"), partial(setting_of, any_start=True)).values():
        methods = methods_of(alike)
        for (method, _), runs in methods.items():
            row: Row = {
                "dataset": runs[0]["dataset"],
                "method": method,
                "config_hash": runs[0]["config_hash"],
                "seeds": len(runs),
            }
            row |= {"images_seen": _images(runs), "labelled_seen": statistics.fmean(map(_labelled, runs))}
            row |= {cost: statistics.fmean(r[cost] for r in runs) for cost in ("wall_clock_s", "cpu_s")}
            row["hardware"] = " / ".join(sorted({hardware_phrase(r) for r in runs}))
            row[SOURCES] = {"": [(OWN, runs)]}
            for metric in ACCURACIES:
                row |= mean_and_sd(runs, metric)
                best = _best_baseline(runs, methods, metric)
                row[f"{metric}_vs_mae"] = row[metric] - mean_and_sd(best, metric)[metric] if best else math.nan
                row[SOURCES] |= {f"{metric}_vs_mae": [(OWN, runs), (RIVAL, best)]} if best else {}
            row |= mean_and_sd(runs, "feedback_accuracy")
            row["feedback_chance"] = mean_and_sd(runs, "feedback_chance")["feedback_chance"]
            rows.append(row)
    return rows


def _images(runs: list[Record]) -> float:
    return statistics.fmean(r["images_seen"]["lower"] for r in runs)


def _labelled(record: Record) -> int:
    return int(record["images_seen"]["head"] + record["images_seen"]["upper"])


def _best_baseline(runs: list[Record], methods: Methods, metric: str) -> list[Record]:
    """The MAE of equal images seen with the highest mean; [] without one."""
    if runs[0]["method"] == BASELINE:
        return []
    baselines = [o for (name, _), o in methods.items() if name == BASELINE and may_compare(o[0], runs[0])]
    fits = [others for others in baselines if same_images(_images(runs), _images(others))]
    known = [others for others in fits if not math.isnan(mean_and_sd(others, metric)[metric])]
    return max(known, key=lambda others: mean_and_sd(others, metric)[metric], default=[])


def _feedback(row: Row) -> str:
    return spread("feedback_accuracy")(row) + (f" ({row['feedback_chance']})" if row["feedback_accuracy"] else "")


TABLE = Table(
    title="Pretraining",
    keys=KEYS,
    columns=dict.fromkeys([*KEYS, "seeds"], "")
    | {"images_seen": ".0f", "labelled_seen": ".0f", "wall_clock_s": ".1f", "cpu_s": ".1f", "hardware": ""}
    | dict.fromkeys([f"{metric}{suffix}" for metric in ACCURACIES for suffix in ("", "_sd", "_vs_mae")], ".2f")
    | dict.fromkeys(["feedback_accuracy", "feedback_accuracy_sd", "feedback_chance"], ".2f"),
    rows=_rows,
    cells=[
        "dataset",
        "method",
        ("config_hash", "config_hash"),
        "seeds",
        ("images seen (stage I)", "images_seen"),
        ("labelled images seen (II, III)", "labelled_seen"),
        "wall_clock_s",
        "cpu_s",
        "hardware",
        *(
            cell
            for metric in ACCURACIES
            for cell in ((f"{metric} (%)", spread(metric)), ("vs MAE", signed(f"{metric}_vs_mae")))
        ),
        ("feedback accuracy (chance) (%)", _feedback),
    ],
    note=(
        "Mean ± sample standard deviation over seeds. Images seen count repetitions. `vs MAE`: "
        f"difference of the means to MAE of equal data, model and stage-I images (within {EQUAL_IMAGES:.0%}); "
        "to the best if several fit, empty if none does."
    ),
)
