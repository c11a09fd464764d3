"""One number over all transfers of a backbone: is a method better than MAE of the same processor time?

- Relative score: a run's metric over the mean of the reference's on the same task. Its interquartile mean over runs and
  tasks is 1 for a method that is as good.
- Probability of improvement: that a run of the method is above one of the reference on a task that is drawn at random,
  ties counting half.

Intervals are percentiles of 2,000 bootstrap samples in which runs are drawn within each task, those of the method and
of the reference apart. Source: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
NeurIPS 2021 (as their library rliable).

Shape suffixes: S runs of a method, T runs of the reference, R replicates.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.analysis.comparable import BASELINE, SAME_TIME
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.statistics import CONFIDENCE, seed_of
from benchmarks.analysis.tables.comparison import Group, group_records
from benchmarks.analysis.tables.table import OWN, RIVAL, SOURCES, Column, Row, Table, keys
from benchmarks.tasks import all_tasks
from mlomae.records import Record

REPLICATES = 2_000
LEAST = 2  # tasks, and runs of a task, below which there is nothing to put together or to draw from
Floats = NDArray[np.float64]
Pairs = Sequence[tuple[Floats, Floats]]
"""Of each task the relative scores of a method's runs, (S,), and of the reference's, (T,)."""


def interquartile_mean(values: Floats) -> Floats:
    """Mean of the middle half along the last axis; the values at its ends count by their share."""
    ordered = np.sort(values, axis=-1)
    n = ordered.shape[-1]
    edges = np.arange(n + 1) / n
    weight = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    return np.asarray((ordered * weight).sum(axis=-1) / weight.sum())


def improvement(pairs: Pairs) -> Floats:
    """Mean over tasks of P(method > reference) + P(tie) / 2; leading axes are kept."""
    return np.mean([_above(ours_S, theirs_T) for ours_S, theirs_T in pairs], axis=0)


def _above(ours_S: Floats, theirs_T: Floats) -> Floats:
    difference = ours_S[..., :, None] - theirs_T[..., None, :]
    return np.asarray(((difference > 0) + 0.5 * (difference == 0)).mean(axis=(-2, -1)))


def aggregate(pairs: Pairs, key: str) -> dict[str, float]:
    """``iqm`` and ``better`` with their intervals (``_low``, ``_high``); the same ``key`` gives the same bits."""
    generator = np.random.Generator(np.random.PCG64(seed_of(key)))

    def resampled(part_S: Floats) -> Floats:
        return part_S[generator.integers(len(part_S), size=(REPLICATES, len(part_S)))]

    row: dict[str, float] = {}
    drawn = [(resampled(ours), resampled(theirs)) for ours, theirs in pairs]
    for name, statistic in (("iqm", _iqm), ("better", improvement)):
        ends = np.quantile(statistic(drawn), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        row |= {name: float(statistic(pairs)), f"{name}_low": float(ends[0]), f"{name}_high": float(ends[1])}
    return row


def _iqm(pairs: Pairs) -> Floats:
    return interquartile_mean(np.concatenate([ours for ours, _ in pairs], axis=-1))


def _rows(evidence: Evidence) -> list[Row]:
    """One row per (setting of the pretraining, method, its configuration) with transfers that the reference has."""
    headlines = {task.name: task.headline.name for task in all_tasks() if task.headline.higher_is_better}
    settings: dict[tuple[str, str], list[tuple[Group, list[list[Record]]]]] = {}
    for group, methods in group_records(evidence).items():
        if group.task in headlines and group.pretraining_setting:
            settings.setdefault((group.pretraining_dataset, group.pretraining_setting), []).append((group, methods))
    rows = []
    for (dataset, setting), groups in sorted(settings.items(), key=str):
        by_method: dict[tuple[str, str], list[tuple[Group, list[Record]]]] = {}
        for group, methods in groups:
            for runs in methods:
                key = (runs[0]["method"], evidence.backbone_config_of(runs[0]) or "")
                by_method.setdefault(key, []).append((group, runs))
        reference = next((name for name in (SAME_TIME, BASELINE) if any(key[0] == name for key in by_method)), None)
        rivals = {group: runs for key, pairs in by_method.items() if key[0] == reference for group, runs in pairs}
        for (method, digest), pairs in sorted(by_method.items()):
            both = [(ours, rivals[group], group) for group, ours in pairs if group in rivals and method != reference]
            shared = [(ours, theirs, group) for ours, theirs, group in both if min(len(ours), len(theirs)) >= LEAST]
            if len(shared) < LEAST:
                continue
            scores = []
            for ours, theirs, group in shared:
                metric = headlines[group.task]
                ours_S, theirs_T = (np.array([r["metrics"][metric] for r in part]) for part in (ours, theirs))
                scores.append((ours_S / theirs_T.mean(), theirs_T / theirs_T.mean()))
            row: Row = {"dataset": dataset, "method": method, "config_hash": digest, "reference": reference}
            row |= {"tasks": len(shared), "runs": sum(len(ours) for ours, _ in scores)}
            row |= aggregate(scores, f"{setting}|{method}|{digest}")
            sources = [(OWN, [r for a, _, _ in shared for r in a]), (RIVAL, [r for _, b, _ in shared for r in b])]
            rows.append(row | {SOURCES: {"": sources}})
    return rows


def _interval(name: str, title: str) -> list[Column]:
    def show(row: Row) -> str:
        return f"{row[name]} [{row[f'{name}_low']}, {row[f'{name}_high']}]"

    ends = [Column(f"{name}_{end}", ".3f", hidden=True) for end in ("low", "high")]
    return [Column(name, ".3f", title, show), *ends]


TABLE = Table(
    title="Over all transfers",
    columns=[
        *keys("dataset", "method", "config_hash", "reference"),
        Column("tasks"),
        Column("runs"),
        *_interval("iqm", "relative score, interquartile mean"),
        *_interval("better", "probability of improvement"),
    ],
    rows=_rows,
    note=(
        "All transfers of a method's backbones that the reference has, too: fine-tuning, linear heads, segmentation, "
        "detection, each by its first metric. A relative score of 1 and a probability of 0.5: as good as the "
        "reference. Intervals: 95 %, runs drawn within each task (stratified bootstrap); with three seeds a task they "
        "are too narrow rather than too wide."
    ),
)
