"""Every method beside MAE of the same images, on every task: the rows of the comparison table.

A row is a method on one metric of one task; it is compared within the pretraining setting (data, model, schedule of θ)
and the transfer's setting (data, recipe, protocol), with what the existing tables compare: MAE that has seen as many
images. "MAE, same processor time" has seen more on purpose and is compared with the longest MAE below it; random
weights, which have seen none, with any.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.analysis.comparable import BASELINE, METRICS, SAME_TIME, is_oracle
from benchmarks.analysis.evidence import Evidence, check_same_test
from benchmarks.analysis.lineage import Lineage
from benchmarks.analysis.published import EVIDENCE, PublishedNumber, lines_up
from benchmarks.analysis.statistics import Estimate, bootstrap_interval, holm, seed_interval
from benchmarks.analysis.tables.difference_table import seed_pairs
from benchmarks.analysis.tables.headroom_table import captured
from benchmarks.analysis.tables.pretrain_table import EQUAL_IMAGES
from benchmarks.analysis.tables.table import BEHIND, ORACLE, OWN, RIVAL, Behind
from benchmarks.analysis.tables.transfer_table import setting_of
from benchmarks.tasks import all_tasks
from mlomae.records import RANDOM, Record

# task -> metrics; the tables of a task have the rest
COMPARED = {"pretrain": list(METRICS)} | {task.name: [m.name for m in task.compared] for task in all_tasks()}
COSTS = ["images_seen", "wall_clock_s", "cpu_s", "flops"]  # of the pretraining
SECTION = ["pretraining_dataset", "pretraining_setting"]
MEASURED = ["task", "dataset", "recipe", "protocol", "transfer_setting", "metric"]
KEYS = [*SECTION, *MEASURED, "method", "config_hash"]
_DIFFERENCE = ["difference", "low", "high", "p", "p_holm", "interval", "pairs"]
COLUMNS = [*KEYS, "pretraining_config", "seeds", "mean", "sd", *_DIFFERENCE, "share_of_headroom"]
COLUMNS += [*(f"pretraining_{cost}" for cost in COSTS), *(f"published_{kind}" for kind in EVIDENCE)]
Methods = dict[tuple[str, str], list[Record]]


@dataclass(frozen=True, order=True)
class Group:
    """What compared rows agree on. ``pretraining``: its setting; ``transfer``: its, "" for a pretraining's probes."""

    dataset: str
    pretraining: str
    task: str
    transfer: str

    def columns(self) -> dict[str, str]:
        """Settings as eight digits each that tell them apart; "" for none, or one that is not known."""
        pretraining, transfer = (
            hashlib.sha256(text.encode()).hexdigest()[:8] if text else "" for text in (self.pretraining, self.transfer)
        )
        known = {"pretraining_dataset": self.dataset, "pretraining_setting": pretraining, "task": self.task}
        return {**known, "transfer_setting": transfer}


def group_records(evidence: Evidence, lineage: Lineage) -> dict[Group, Methods]:
    """The runs of each method, by seed, of each group. Random weights are in every group of their transfer."""
    groups: dict[Group, Methods] = {}
    floors: list[tuple[str, Record]] = []
    records = [r for r in evidence.records.values() if r["task"] in COMPARED]
    for r in sorted(records, key=lambda r: (r["method"], r["config_hash"], r["seed"])):
        transfer = "" if r["task"] == "pretrain" else setting_of(r)
        if transfer and r["method"] == RANDOM:
            floors.append((transfer, r))
            continue
        group = Group(*lineage.setting_of(r), r["task"], transfer)
        groups.setdefault(group, {}).setdefault((r["method"], r["config_hash"]), []).append(r)
    homes: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        homes.setdefault((group.task, group.transfer), []).append(group)
    for transfer, r in floors:
        for group in homes.get((r["task"], transfer), [Group("", "", r["task"], transfer)]):
            groups.setdefault(group, {}).setdefault((RANDOM, r["config_hash"]), []).append(r)
    return dict(sorted(groups.items()))


def reference_of(runs: list[Record], methods: Methods, lineage: Lineage) -> list[Record]:
    """The runs of MAE that ``runs`` are compared with; [] without one. Of several that fit, most seeds in common."""
    method, images = runs[0]["method"], lineage.mean_cost(runs, "images_seen")
    if method == BASELINE or images is None:
        return []
    fits: list[tuple[tuple[float, float, str], list[Record]]] = []
    for (name, digest), others in methods.items():
        seen = lineage.mean_cost(others, "images_seen") if name == BASELINE else None
        pairs = len(seed_pairs(runs, others)) if seen is not None else 0
        if seen is None or not pairs:
            continue
        if method == SAME_TIME:
            if seen <= images * (1 + EQUAL_IMAGES):
                fits.append(((seen, pairs, digest), others))
        elif method == RANDOM or abs(seen - images) <= EQUAL_IMAGES * images:
            fits.append(((pairs, seen, digest), others))
    return max(fits, key=lambda fit: fit[0])[1] if fits else []


def estimate(pairs: list[tuple[Record, Record]], metric: str, evidence: Evidence) -> Estimate | None:
    """The difference within ``pairs`` of the same seed, by images too where all runs have predictions.

    None without a pair. Raises DataError for predictions on different images.
    """
    if not pairs:
        return None
    tested = [(evidence.tested_of(a), evidence.tested_of(b)) for a, b in pairs]
    known = [(a, b) for a, b in tested if a is not None and b is not None and a.metric == metric]
    differences = [a["metrics"][metric] - b["metrics"][metric] for a, b in pairs]
    if len(known) < len(pairs):
        return seed_interval(differences)
    for a, b in known:
        check_same_test(known[0][0], a)
        check_same_test(a, b)
    compared = ((a["config_hash"], b["config_hash"], str(a["seed"])) for a, b in pairs)
    found = bootstrap_interval([(a.sums, b.sums) for a, b in known], "|".join([metric, *map("|".join, compared)]))
    return replace(found, mean=statistics.fmean(differences))  # to the last bit what the task's own table rounds


def _published(numbers: list[PublishedNumber], record: Record, lineage: Lineage, metric: str) -> dict[str, Any]:
    """{"published_primary": the numbers that line up, "published_secondary": ...}"""
    pretraining = lineage.pretraining_of(record)
    fitting = [n for n in numbers if lines_up(n, record, pretraining, metric)]
    return {f"published_{kind}": [n for n in fitting if n.evidence == kind] for kind in EVIDENCE}


def _oracles(methods: Methods, reference: list[Record], lineage: Lineage) -> list[list[Record]]:
    """The runs of each oracle that has seen as many images as ``reference``."""
    found = []
    for runs in methods.values() if reference else []:
        pretraining = lineage.pretraining_of(runs[0])
        if pretraining is not None and is_oracle(pretraining):
            images, seen = (lineage.mean_cost(r, "images_seen") for r in (reference, runs))
            found += [runs] if images is not None and images == seen else []
    return found


def _measured(group: Group, runs: list[Record], metric: str, lineage: Lineage) -> dict[str, Any]:
    """What a row says of its own runs."""
    first, values = runs[0], [r["metrics"][metric] for r in runs]
    row: dict[str, Any] = {**group.columns(), "dataset": first["dataset"], "metric": metric, "method": first["method"]}
    row["recipe"] = first["name"] if group.transfer else ""
    row["protocol"] = first["config"].get("protocol", "finetune") if group.transfer else "frozen"
    row |= {"config_hash": first["config_hash"], "pretraining_config": lineage.config_of(first), "seeds": len(runs)}
    row |= {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if values[1:] else math.nan}
    return row | {f"pretraining_{cost}": lineage.mean_cost(runs, cost) for cost in COSTS}


def _compared(
    runs: list[Record], others: list[Record], oracles: list[list[Record]], metric: str, evidence: Evidence
) -> tuple[dict[str, Any], Behind]:
    """What a row says of ``runs`` beside ``others``, and the records behind that; nothing without a seed in common."""
    pairs = seed_pairs(runs, others)
    found = estimate(pairs, metric, evidence)
    if found is None:
        return {"interval": ""}, {}
    row: dict[str, Any] = {"difference": found.mean, "low": found.low, "high": found.high, "p": found.p}
    share, best = captured(runs, others, oracles, metric)[1:]
    row |= {"interval": found.how, "pairs": found.seeds, "share_of_headroom": share}
    records = [(OWN, [a for a, _ in pairs]), (RIVAL, [b for _, b in pairs])]
    return row, {**dict.fromkeys(_DIFFERENCE, records), "share_of_headroom": [*records, (ORACLE, best)]}


def _group_rows(group: Group, methods: Methods, evidence: Evidence, lineage: Lineage) -> Iterator[dict[str, Any]]:
    for metric in COMPARED[group.task]:
        measured = {key: [r for r in runs if metric in r["metrics"]] for key, runs in methods.items()}
        measured = {key: runs for key, runs in measured.items() if runs}
        for runs in measured.values():
            row, others = _measured(group, runs, metric, lineage), reference_of(runs, measured, lineage)
            difference, behind = _compared(runs, others, _oracles(measured, others, lineage), metric, evidence)
            published = _published(evidence.published, runs[0], lineage, metric)
            for column, numbers in published.items():
                behind[column] = [(f"published.csv, line {n.line}: {n.source}", []) for n in numbers]
            yield {**row, **difference, **published, BEHIND: {"": [(OWN, runs)], **behind}}


def comparison_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """One dict of `COLUMNS` a (group, metric, method, configuration), p values corrected for all rows together.

    Raises DataError for predictions of one setting that are on different images.
    """
    lineage = Lineage(evidence.records.values(), evidence.flops)
    groups = group_records(evidence, lineage)
    rows = [row for group, methods in groups.items() for row in _group_rows(group, methods, evidence, lineage)]
    for row, corrected in zip(rows, holm([row.get("p", math.nan) for row in rows]), strict=True):
        row["p_holm"] = corrected
    return rows
