"""The rows of the comparison table: every method against MAE that has seen as many images, on every task.

A row is a method on one metric of one task; it is compared within the pretraining setting (data, model, schedule of θ)
and the transfer's setting (data, recipe, protocol), with what the existing tables compare: MAE that has seen as many
images. "MAE, same processor time" has seen more on purpose and is compared with the longest MAE below it; random
weights, which have seen none, with any.
"""

import hashlib
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks.analysis.comparable import (
    BASELINE,
    EQUAL_IMAGES,
    METRICS,
    SAME_TIME,
    Methods,
    is_oracle,
    methods_of,
    same_images,
    seed_pairs,
    setting_of,
)
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.published import EVIDENCE, lines_up
from benchmarks.analysis.statistics import Estimate, bootstrap_interval, holm, seed_interval
from benchmarks.analysis.tables.headroom_table import captured
from benchmarks.analysis.tables.table import ORACLE, OWN, RIVAL, SOURCES, Row, Sources
from benchmarks.tasks import all_tasks
from mlomae.backbones.task import Metric, check_same_test
from mlomae.records import RANDOM, Record

# task -> metrics; the tables of a task have the rest
COMPARED = {"pretrain": [Metric(name, title) for name, title in METRICS.items()]}
COMPARED |= {task.name: task.compared for task in all_tasks()}
COSTS = {"images_seen": "images seen", "cpu_s": "CPU (s)", "wall_clock_s": "wall-clock (s)", "flops": "FLOPs"}
SECTION = ["pretraining_dataset", "pretraining_setting"]
MEASURED = ["task", "dataset", "recipe", "protocol", "transfer_setting", "metric"]
_DIFFERENCE = ["difference", "low", "high", "p", "p_holm", "interval", "pairs"]


@dataclass(frozen=True, order=True)
class Group:
    """What compared rows agree on. ``pretraining``: its setting; ``transfer``: its, "" for a pretraining's probes."""

    dataset: str
    pretraining: str
    task: str
    transfer: str

    def columns(self) -> Row:
        """Settings as eight digits each that tell them apart; "" for none, or one that is not known."""
        pretraining, transfer = (
            hashlib.sha256(text.encode()).hexdigest()[:8] if text else "" for text in (self.pretraining, self.transfer)
        )
        known = {"pretraining_dataset": self.dataset, "pretraining_setting": pretraining, "task": self.task}
        return {**known, "transfer_setting": transfer}


def group_records(evidence: Evidence) -> dict[Group, Methods]:
    """The runs of each method, by seed, of each group. Random weights are in every group of their transfer."""
    groups: dict[Group, list[Record]] = {}
    floors: dict[tuple[str, str], list[Record]] = {}
    for r in evidence.records.values():
        if r["task"] not in COMPARED:
            continue
        transfer = "" if r["task"] == "pretrain" else setting_of(r)
        if transfer and r["method"] == RANDOM:
            floors.setdefault((r["task"], transfer), []).append(r)
        else:
            groups.setdefault(Group(*evidence.pretraining_setting_of(r), r["task"], transfer), []).append(r)
    for (task, transfer), records in floors.items():
        homes = [group for group in groups if (group.task, group.transfer) == (task, transfer)]
        for group in homes or [Group("", "", task, transfer)]:
            groups.setdefault(group, []).extend(records)
    return {group: methods_of(records) for group, records in sorted(groups.items())}


def reference_of(runs: list[Record], methods: Methods, evidence: Evidence) -> list[Record]:
    """The runs of MAE that ``runs`` are compared with; [] without one. Of several that fit, most seeds in common."""
    method, images = runs[0]["method"], evidence.mean_cost(runs, "images_seen")
    if method == BASELINE or images is None:
        return []
    fits: list[tuple[tuple[float, float, str], list[Record]]] = []
    for (name, digest), others in methods.items():
        seen = evidence.mean_cost(others, "images_seen") if name == BASELINE else None
        pairs = len(seed_pairs(runs, others)) if seen is not None else 0
        if seen is None or not pairs:
            continue
        if method == SAME_TIME:
            if seen <= images * (1 + EQUAL_IMAGES):
                fits.append(((seen, pairs, digest), others))
        elif method == RANDOM or same_images(images, seen):
            fits.append(((pairs, seen, digest), others))
    return max(fits, key=lambda fit: fit[0])[1] if fits else []


def estimate(pairs: list[tuple[Record, Record]], metric: str, evidence: Evidence) -> Estimate:
    """The difference within ``pairs`` of the same seed, by images too where all runs have predictions.

    Raises DataError for predictions on different images.
    """
    tested = [(evidence.tested_of(a), evidence.tested_of(b)) for a, b in pairs]
    known = [(a, b) for a, b in tested if a is not None and b is not None and a.metric == metric]
    differences = [a["metrics"][metric] - b["metrics"][metric] for a, b in pairs]
    if len(known) < len(pairs):
        return seed_interval(differences)
    remedy = "their records name the same data: give what differs a recipe of its own"
    for a, b in known:
        check_same_test(known[0][0], a, remedy)
        check_same_test(a, b, remedy)
    compared = ((a["config_hash"], b["config_hash"], str(a["seed"])) for a, b in pairs)
    found = bootstrap_interval([(a.sums, b.sums) for a, b in known], "|".join([metric, *map("|".join, compared)]))
    return replace(found, mean=statistics.fmean(differences))  # to the last bit what the task's own table rounds


def _oracles(methods: Methods, reference: list[Record], evidence: Evidence) -> list[list[Record]]:
    """The runs of each oracle that has seen as many images as ``reference``."""
    found = []
    images = evidence.mean_cost(reference, "images_seen") if reference else None
    for runs in methods.values() if images is not None else []:
        pretraining = evidence.pretraining_of(runs[0])
        if pretraining is not None and is_oracle(pretraining) and evidence.mean_cost(runs, "images_seen") == images:
            found.append(runs)
    return found


def _measured(group: Group, runs: list[Record], metric: str, evidence: Evidence) -> Row:
    """The columns of a row that depend on its own runs alone."""
    first, values = runs[0], [r["metrics"][metric] for r in runs]
    row: Row = {**group.columns(), "dataset": first["dataset"], "metric": metric, "method": first["method"]}
    row["recipe"] = first["name"] if group.transfer else ""
    row["protocol"] = first["config"].get("protocol", "finetune") if group.transfer else "frozen"
    row |= {"config_hash": first["config_hash"], "pretraining_config": evidence.backbone_config_of(first)}
    row |= {"seeds": len(runs), "mean": statistics.fmean(values)}
    row["sd"] = statistics.stdev(values) if values[1:] else math.nan
    return row | {f"pretraining_{cost}": evidence.mean_cost(runs, cost) for cost in COSTS}


def _compared(
    runs: list[Record], others: list[Record], oracles: list[list[Record]], metric: Metric, evidence: Evidence
) -> tuple[Row, Sources]:
    """The columns that compare ``runs`` with ``others``, and their records; nothing without a common seed."""
    if not (pairs := seed_pairs(runs, others)):
        return {"interval": ""}, {}
    found = estimate(pairs, metric.name, evidence)
    row: Row = {"difference": found.mean, "low": found.low, "high": found.high, "p": found.p}
    share, best = captured(runs, others, oracles, metric.name, 1 if metric.higher_is_better else -1)[1:]
    row |= {"interval": found.how, "pairs": found.seeds, "share_of_headroom": share}
    records = [(OWN, [a for a, _ in pairs]), (RIVAL, [b for _, b in pairs])]
    return row, {**dict.fromkeys(_DIFFERENCE, records), "share_of_headroom": [*records, (ORACLE, best)]}


def _group_rows(group: Group, methods: Methods, evidence: Evidence) -> Iterator[Row]:
    for metric in COMPARED[group.task]:
        measured = {key: [r for r in runs if metric.name in r["metrics"]] for key, runs in methods.items()}
        measured = {key: runs for key, runs in measured.items() if runs}
        for runs in measured.values():
            row, others = _measured(group, runs, metric.name, evidence), reference_of(runs, measured, evidence)
            difference, sources = _compared(runs, others, _oracles(measured, others, evidence), metric, evidence)
            pretraining = evidence.pretraining_of(runs[0])
            fitting = [n for n in evidence.published if lines_up(n, runs[0], pretraining, metric.name)]
            for kind in EVIDENCE:
                numbers = [n for n in fitting if n.evidence == kind]
                row[f"published_{kind}"] = "; ".join(n.phrase for n in numbers)
                sources[f"published_{kind}"] = [(n.citation, []) for n in numbers]
            yield {**row, **difference, SOURCES: {"": [(OWN, runs)], **sources}}


def comparison_rows(evidence: Evidence) -> list[Row]:
    """One row a (group, metric, method, configuration), p values corrected for all rows together.

    Raises DataError for predictions of one setting that are on different images.
    """
    groups = group_records(evidence)
    rows = [row for group, methods in groups.items() for row in _group_rows(group, methods, evidence)]
    for row, corrected in zip(rows, holm([row.get("p", math.nan) for row in rows]), strict=True):
        row["p_holm"] = corrected
    return rows
