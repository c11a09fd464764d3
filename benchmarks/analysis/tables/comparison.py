"""The rows of the comparison table: every method against MAE on the same number of images, on every task.

A row is a method on one metric of one task. It is compared within the setting of its pretraining (data, model, schedule
of θ) and of its transfer (data, recipe, protocol) with MAE that has seen the same number of images, as in the other
tables. "MAE, same processor time" sees more by design and is compared with the longest MAE that has seen no more;
random weights, which have seen none, with any.
"""

import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.analysis.comparable import (
    METRICS,
    Methods,
    is_oracle,
    margin_of,
    methods_of,
    seed_pairs,
    setting_of,
)
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.published import EVIDENCE, lines_up
from benchmarks.analysis.references import captured, estimate, reference_of
from benchmarks.analysis.statistics import holm, verdict
from benchmarks.analysis.tables.table import ORACLE, SOURCES, Row, Sources, mean_and_sd, pair_sources, row_of
from benchmarks.tasks import all_tasks
from mlomae.backbones.task import Metric
from mlomae.records import RANDOM, Record

# task -> metrics; the tables of a task have the rest
COMPARED = {"pretrain": [Metric(name, title) for name, title in METRICS.items()]}
COMPARED |= {task.name: task.compared for task in all_tasks()}
COSTS = {"images_seen": "images seen", "cpu_s": "CPU (s)", "wall_clock_s": "wall-clock (s)", "flops": "FLOPs"}
SECTION = ["pretraining_dataset", "pretraining_setting"]
ENOUGH = 5
"""Seeds below which no p value is corrected, or marked: two or three that agree by chance make it far too small."""
MEASURED = ["task", "dataset", "recipe", "protocol", "transfer_setting", "metric"]


class Group(NamedTuple):
    """What compared rows agree on. The settings are texts; ``transfer_setting`` is "" for a pretraining's probes."""

    pretraining_dataset: str
    pretraining_setting: str
    task: str
    transfer_setting: str


def _digits(setting: str) -> str:
    """Eight hex digits that identify a setting; "" for an empty or unknown one."""
    return hashlib.sha256(setting.encode()).hexdigest()[:8] if setting else ""


def group_records(evidence: Evidence) -> dict[Group, Methods]:
    """The runs of each method, by seed, of each group. Random weights are in every group of their transfer."""
    groups: dict[Group, list[Record]] = {}
    floors: dict[tuple[str, str], list[Record]] = {}
    for r in (r for task in COMPARED for r in evidence.of_task(task)):
        transfer = "" if r["task"] == "pretrain" else setting_of(r)
        if transfer and r["method"] == RANDOM:
            floors.setdefault((r["task"], transfer), []).append(r)
        else:
            pretraining = evidence.pretraining_of(r)
            setting = "" if pretraining is None else setting_of(pretraining)
            dataset = (pretraining or r.get("pretrained") or {}).get("dataset", "")
            groups.setdefault(Group(dataset, setting, r["task"], transfer), []).append(r)
    for floor, records in floors.items():
        for group in [group for group in groups if group[2:] == floor] or [Group("", "", *floor)]:
            groups.setdefault(group, []).extend(records)
    return {group: methods_of(records) for group, records in sorted(groups.items())}


def _compared(runs: list[Record], methods: Methods, metric: Metric, evidence: Evidence) -> tuple[Row, Sources]:
    """The columns that compare ``runs`` with their reference among ``methods``, and the records of both; nothing
    without a common seed. The share of headroom is of the oracles that have seen the same images as the reference."""
    others = reference_of(runs, methods, evidence)
    if not (pairs := seed_pairs(runs, others)):
        return {"interval": "", "verdict": ""}, {}
    found, sign = estimate(pairs, metric.name, evidence), 1 if metric.higher_is_better else -1
    images = evidence.mean_cost(others, "images_seen")
    equal = [known for known in methods if evidence.mean_cost(known, "images_seen") == images]
    oracles = [known for known in equal if (run := evidence.pretraining_of(known[0])) and is_oracle(run)]
    share, best = captured(runs, others, oracles, metric.name, sign)[1:]
    row: Row = {"difference": found.mean, "low": found.low, "high": found.high, "p": found.p}
    row |= {"interval": found.how, "pairs": found.seeds, "share_of_headroom": share}
    row["verdict"] = verdict(found, margin_of(runs[0], metric.name), sign)
    sources = dict.fromkeys([*row, "p_holm"], pair_sources(pairs))
    return row, sources | {"share_of_headroom": [*pair_sources(pairs), (ORACLE, best)]}


def _group_rows(group: Group, methods: Methods, evidence: Evidence) -> Iterator[Row]:
    settings = {name: _digits(getattr(group, name)) for name in ("pretraining_setting", "transfer_setting")}
    for metric in COMPARED[group.task]:
        measured = [found for runs in methods if (found := [r for r in runs if metric.name in r["metrics"]])]
        for runs in measured:
            row = {**group._asdict(), **settings, **row_of(runs), "metric": metric.name}
            row |= dict(zip(("mean", "sd"), mean_and_sd(runs, metric.name).values(), strict=True))
            row["pretraining_config"] = evidence.backbone_config_of(runs[0])
            row |= {f"pretraining_{cost}": evidence.mean_cost(runs, cost) for cost in COSTS}
            difference, sources = _compared(runs, measured, metric, evidence)
            pretraining = evidence.pretraining_of(runs[0])
            fitting = [n for n in evidence.published if lines_up(n, runs[0], pretraining, metric.name)]
            for kind in EVIDENCE:
                numbers = [n for n in fitting if n.evidence == kind]
                row[f"published_{kind}"] = "; ".join(n.phrase for n in numbers)
                sources[f"published_{kind}"] = [(n.citation, []) for n in numbers]
            row[SOURCES] |= sources
            yield row | difference


def comparison_rows(evidence: Evidence) -> list[Row]:
    """One row per (group, metric, method, configuration), p values corrected for all rows of `ENOUGH` seeds together.

    Raises DataError for predictions of one setting that are on different images.
    """
    groups = group_records(evidence)
    rows = [row for group, methods in groups.items() for row in _group_rows(group, methods, evidence)]
    known = [row.get("p", math.nan) if row.get("pairs", 0) >= ENOUGH else math.nan for row in rows]
    for row, corrected in zip(rows, holm(known), strict=True):
        row["p_holm"] = corrected
    return rows
