"""Differences between methods, seed by seed, with an interval: the table to read before calling one of them better.

For every method and each of its references with runs of the same seeds: MAE (same images seen), for learned masks the
masking network frozen at its random initial values (same images), and MAE of the same processor time (more images).
"""

import statistics
from collections.abc import Iterator

from benchmarks.analysis.comparable import (
    BASELINE,
    METRICS,
    SAME_TIME,
    Methods,
    methods_of,
    same_images,
    seed_pairs,
    setting_of,
)
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.statistics import paired_interval
from benchmarks.analysis.tables.table import OWN, RIVAL, SOURCES, Row, Table, interval
from mlomae.records import Record, grouped

FROZEN = "frozen at random"
REFERENCES = (BASELINE, FROZEN, SAME_TIME)
COST_TOLERANCE = 0.15  # relative; runs further apart in processor time are not "same processor time" to each other
KEYS = ["dataset", "method", "config_hash", "reference"]


def _mean_cpu(runs: list[Record]) -> float:
    return statistics.fmean(r["cpu_s"] for r in runs)


def _references(runs: list[Record], methods: Methods) -> Iterator[tuple[str, list[Record]]]:
    """(name, runs) of what ``runs`` is compared with, among the methods of its setting."""
    method, images = runs[0]["method"], runs[0]["images_seen"]["lower"]
    for reference in REFERENCES:
        if method in (BASELINE, SAME_TIME, reference):
            continue
        if reference == FROZEN and runs[0]["config"].get("mask", {}).get("type") != "learned":
            continue
        for others in (others for (name, _), others in methods.items() if name == reference):
            if reference == SAME_TIME:
                comparable = abs(_mean_cpu(others) / _mean_cpu(runs) - 1.0) <= COST_TOLERANCE
            else:
                comparable = same_images(images, others[0]["images_seen"]["lower"])
            if comparable:
                yield reference, others


def difference_rows(records: list[Record]) -> list[Row]:
    """One row a (method, reference) with at least one seed in common."""
    rows = []
    measured = [r for r in records if all(m in r["metrics"] for m in METRICS)]
    for alike in grouped(measured, setting_of).values():
        methods = methods_of(alike)
        for (method, _), runs in methods.items():
            for reference, others in _references(runs, methods):
                if not (pairs := seed_pairs(runs, others)):
                    continue
                row: Row = {"dataset": runs[0]["dataset"], "method": method, "config_hash": runs[0]["config_hash"]}
                row |= {"reference": reference, "seeds": len(pairs), "images_seen": runs[0]["images_seen"]["lower"]}
                for metric in METRICS:
                    found = paired_interval([a["metrics"][metric] - b["metrics"][metric] for a, b in pairs])
                    row |= dict(zip((metric, f"{metric}_low", f"{metric}_high"), found, strict=True))
                row[SOURCES] = {"": [(OWN, [a for a, _ in pairs]), (RIVAL, [b for _, b in pairs])]}
                rows.append(row)
    return rows


def _rows(evidence: Evidence) -> list[Row]:
    return difference_rows(evidence.of_task("pretrain"))


TABLE = Table(
    title="Differences between methods",
    keys=KEYS,
    columns=dict.fromkeys([*KEYS, "seeds", "images_seen"], "")
    | dict.fromkeys([f"{metric}{suffix}" for metric in METRICS for suffix in ("", "_low", "_high")], "+.2f"),
    rows=_rows,
    cells=[*KEYS, "seeds", "images_seen", *((title, interval(m, "seeds")) for m, title in METRICS.items())],
    note=(
        "Percentage points of accuracy (frozen encoder, mean of the patch tokens), runs of the same seed paired; "
        "[low, high] is Student's 95 % interval of the mean over seeds, which with two seeds is very wide. An interval "
        f"that holds 0 shows no difference. `{FROZEN}`: the masking network keeps its random initial values; what a "
        f"method gains over it, it gains by learning. `{SAME_TIME}` has seen more images."
    ),
    order=["dataset", "images_seen", "method", "config_hash", "reference"],
)
