"""The table of a task's transfers: the metrics of every backbone, and what it gains, seed by seed."""

import statistics
from collections import Counter
from functools import partial

from benchmarks.analysis.comparable import BASELINE, methods_of, numerics_key, seed_pairs, setting_of
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.statistics import paired_interval
from benchmarks.analysis.tables.table import OWN, RIVAL, SOURCES, Row, Table, interval, mean_and_sd, spread
from mlomae.backbones.task import Task
from mlomae.common.errors import DataError
from mlomae.records import RANDOM, Record, grouped, hardware_phrase

REFERENCES = {"mae": BASELINE, "random": RANDOM}  # column suffix -> method
KEYS = ["dataset", "recipe", "protocol", "method", "config_hash"]


def _check(task: Task, records: list[Record]) -> None:
    """Raise DataError if a (data set, recipe, protocol, method, seed, NUMERICS) is there twice, or a record lacks a
    metric."""
    keys = [
        (r["dataset"], r["name"], r["config"].get("protocol"), r["method"], r["seed"], numerics_key(r)) for r in records
    ]
    twice = sorted((key for key, count in Counter(keys).items() if count > 1), key=str)
    if twice:
        dataset, name, protocol, method, seed, _ = twice[0]
        raise DataError(
            f"two records hold seed {seed} of {method} on {dataset} with recipe '{name}' ({protocol}); remove one, or "
            "give what differs a name of its own"
        )
    for r in records:
        if missing := [metric.name for metric in task.metrics if metric.name not in r["metrics"]]:
            raise DataError(f"record '{r['name']}' of {r['method']} lacks the metric '{missing[0]}'; run it again")


def _rows(task: Task, evidence: Evidence) -> list[Row]:
    """One row a (setting, method, configuration); NaN where a number is not known."""
    records, headline, rows = evidence.of_task(task.name), task.headline.name, []
    _check(task, records)
    for alike in grouped(records, setting_of).values():
        methods = methods_of(alike)
        for (method, _), runs in methods.items():
            row: Row = {"dataset": runs[0]["dataset"], "recipe": runs[0]["name"], "method": method}
            row |= {"protocol": runs[0]["config"].get("protocol", "finetune")}
            row |= {"config_hash": runs[0]["config_hash"], "seeds": len(runs)}
            row |= {f"pretraining_{cost}": evidence.mean_cost(runs, cost) for cost in ("images_seen", "cpu_s")}
            row["transfer_cpu_s"] = statistics.fmean(r["cpu_s"] for r in runs)
            row["hardware"] = " / ".join(sorted({hardware_phrase(r) for r in runs}))
            row[SOURCES] = {"": [(OWN, runs)]}
            for metric in task.metrics:
                row |= mean_and_sd(runs, metric.name)
            for name, reference in REFERENCES.items():
                rivals = [others for key, others in methods.items() if key[0] == reference != method]
                pairs = max((seed_pairs(runs, others) for others in rivals), key=len, default=[])
                column = f"{headline}_vs_{name}"
                row[f"{column}_seeds"] = len(pairs)
                if pairs:
                    found = paired_interval([a["metrics"][headline] - b["metrics"][headline] for a, b in pairs])
                    row |= dict(zip((column, f"{column}_low", f"{column}_high"), found, strict=True))
                row[SOURCES][column] = [(OWN, [a for a, _ in pairs]), (RIVAL, [b for _, b in pairs])]
            rows.append(row)
    return rows


def transfer_table(task: Task) -> Table:
    """The table of ``task``; metrics in their unit, differences of percentages in points, times in seconds."""
    headline = task.headline
    differences = {reference: f"{headline.name}_vs_{name}" for name, reference in REFERENCES.items()}
    columns = dict.fromkeys([*KEYS, "seeds"], "")
    columns |= {"pretraining_images_seen": ".0f", "pretraining_cpu_s": ".1f", "transfer_cpu_s": ".1f", "hardware": ""}
    columns |= dict.fromkeys([f"{m.name}{suffix}" for m in task.metrics for suffix in ("", "_sd")], ".2f")
    for column in differences.values():
        columns |= {column: "+.2f", f"{column}_low": "+.2f", f"{column}_high": "+.2f", f"{column}_seeds": ""}
    return Table(
        title=task.title,
        keys=KEYS,
        columns=columns,
        rows=partial(_rows, task),
        cells=[
            *KEYS,
            "seeds",
            "pretraining_images_seen",
            "pretraining_cpu_s",
            "transfer_cpu_s",
            "hardware",
            *((f"{m.title} ({m.unit})", spread(m.name)) for m in task.metrics),
            *((f"{headline.title} vs {ref}", interval(c, f"{c}_seeds")) for ref, c in differences.items()),
        ],
        note=(
            f"Mean ± sample standard deviation over seeds, of {task.averaged_over}. Differences: percentage points of "
            f"{headline.title} between runs of the same seed, data, recipe and protocol; [low, high] is Student's "
            "95 % interval of the mean over the n seeds in common, and one that holds 0 shows no difference. Images "
            "seen count repetitions, of the reconstruction level alone; the processor seconds of a pretraining are of "
            "all its levels. Empty: not known, or no such run to compare with."
        ),
    )
