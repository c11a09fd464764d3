"""One number over all transfers of a backbone: is a method better than MAE of the learned mask's processor time?

- Relative score: a run's metric over the mean of the reference's on the same task, which is drawn anew with them. Its
  interquartile mean over runs and tasks is 1 for a method that is as good.
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
from benchmarks.analysis.references import mean_or_nan
from benchmarks.analysis.statistics import CONFIDENCE, seed_of
from benchmarks.analysis.tables.comparison import Group, group_records
from benchmarks.analysis.tables.table import OWN, RIVAL, SOURCES, Column, Row, Table, keys
from benchmarks.tasks import all_tasks
from mlomae.records import Record

REPLICATES = 2_000
LEAST = 2  # tasks, and runs of a task, below which there is nothing to put together or to draw from
Floats = NDArray[np.float64]
Pairs = Sequence[tuple[Floats, Floats]]
"""Of each task the metric of a method's runs, (S,), and of the reference's, (T,)."""


def interquartile_mean(values: Floats) -> Floats:
    """Mean of the middle half along the last axis; the values at its ends count by their share."""
    ordered = np.sort(values, axis=-1)
    n = ordered.shape[-1]
    edges = np.arange(n + 1) / n
    weight = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    return np.asarray((ordered * weight).sum(axis=-1) / weight.sum())


def improvement(pairs: Pairs, shares: Pairs) -> Floats:
    """Mean over tasks of P(method > reference) + P(tie) / 2. ``shares``: of each run of ``pairs``, how often it was
    drawn over the number of draws; leading axes are kept."""
    found = []
    for (ours_S, theirs_T), (share_S, share_T) in zip(pairs, shares, strict=True):
        difference_ST = ours_S[:, None] - theirs_T
        above_ST = (difference_ST > 0) + 0.5 * (difference_ST == 0)
        found.append(((share_S @ above_ST) * share_T).sum(axis=-1))
    return np.mean(found, axis=0)


def aggregate(pairs: Pairs, key: str) -> dict[str, float]:
    """``iqm`` and ``better`` with their intervals (``_low``, ``_high``); the same ``key`` gives the same bits."""
    generator = np.random.Generator(np.random.PCG64(seed_of(key)))

    def draws(runs: int) -> NDArray[np.int64]:
        """Of each replicate the runs that it takes; the first takes all as they are."""
        return np.vstack([np.arange(runs), generator.integers(runs, size=(REPLICATES, runs))])

    drawn = [[draws(len(part)) for part in pair] for pair in pairs]
    values = [(ours[at_RS], theirs[at_RT]) for (ours, theirs), (at_RS, at_RT) in zip(pairs, drawn, strict=True)]
    shares = [(_shares(at_RS), _shares(at_RT)) for at_RS, at_RT in drawn]
    row: dict[str, float] = {}
    for name, found_R in (("iqm", _iqm(values)), ("better", improvement(pairs, shares))):
        ends = np.quantile(found_R[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        row |= {name: float(found_R[0]), f"{name}_low": float(ends[0]), f"{name}_high": float(ends[1])}
    return row


def _shares(at_RS: NDArray[np.int64]) -> Floats:
    """How often each run is among the S draws of a replicate, over S."""
    replicates, runs = at_RS.shape
    place = at_RS + runs * np.arange(replicates)[:, None]
    return np.bincount(place.ravel(), minlength=replicates * runs).reshape(replicates, runs) / runs


def _iqm(pairs: Pairs) -> Floats:
    scores = [ours_S / theirs_T.mean(axis=-1, keepdims=True) for ours_S, theirs_T in pairs]
    return interquartile_mean(np.concatenate(scores, axis=-1))


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
        known = {key: sum(len(runs) for _, runs in pairs) for key, pairs in by_method.items() if key[0] == reference}
        rivals = dict(by_method[max(known, key=lambda key: (known[key], key))]) if known else {}
        for (method, digest), pairs in sorted(by_method.items()):
            both = [(ours, rivals[group], group) for group, ours in pairs if group in rivals and method != reference]
            shared = [(ours, theirs, group) for ours, theirs, group in both if min(len(ours), len(theirs)) >= LEAST]
            scores = []
            for ours, theirs, group in shared:
                ours_S, theirs_T = (np.array([r["metrics"][headlines[group.task]] for r in x]) for x in (ours, theirs))
                scores.append((ours_S, theirs_T))
            if len(scores) < LEAST or any(theirs_T.min() <= 0 for _, theirs_T in scores):
                continue
            row: Row = {"dataset": dataset, "method": method, "config_hash": digest, "reference": reference}
            row |= {"tasks": len(shared), "runs": sum(len(ours) for ours, _ in scores)}
            seconds = [[mean_or_nan(runs, "cpu_s", evidence) for runs in pair] for *pair, _ in shared]
            row["time"] = float(np.divide(*np.mean(seconds, axis=0)))
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
        Column("time", ".1f", "processor time, of the reference's"),
        *_interval("iqm", "relative score, interquartile mean"),
        *_interval("better", "probability of improvement"),
    ],
    rows=_rows,
    note=(
        "All transfers of a method's backbones that the reference has, too: fine-tuning, linear heads, segmentation, "
        "detection, each by its first metric. A relative score of 1 and a probability of 0.5: as good as the "
        "reference, which has the learned mask's processor time, and not every row's. Intervals: 95 %, runs of both "
        "drawn within each task (stratified bootstrap); with three seeds a task they are too narrow: in simulations of "
        "equal methods they leave out 1 in one case of ten."
    ),
)
