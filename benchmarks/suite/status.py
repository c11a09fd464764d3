"""The status of a suite: the state of every run, methods x tasks, and the results of a demo, one row per backbone."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pandas as pd

from benchmarks.analysis.comparable import SAME_TIME
from benchmarks.suite.backbones import Backbone
from benchmarks.suite.completed import CompletedRuns
from benchmarks.suite.jobs import Job, Planner
from benchmarks.suite.runner import STATUS, owner_of_job, same_time_jobs
from benchmarks.tasks import get_task
from mlomae.backbones.task import Metric
from mlomae.common.checkpoint import list_checkpoints
from mlomae.common.errors import counted
from mlomae.common.processes import LINES, last_lines
from mlomae.records import Record

DONE, STALE, RUNNING, FAILED, INTERRUPTED, MISSING = "done", "stale", "running", "failed", "interrupted", "missing"
STATES = (DONE, STALE, RUNNING, FAILED, INTERRUPTED, MISSING)


def state_of(job: Job, completed: CompletedRuns) -> tuple[str, str]:
    """(one of ``STATES``, details)."""
    record, stale = completed.of(job)
    if record is not None:
        return (DONE, "") if stale is None else (STALE, stale)
    found = list_checkpoints(job.folder)
    reached = "before its first checkpoint"
    if found:
        reached = f"at {counted(int(found[-1].stem.removeprefix('iter_')), 'iteration')}"
    if owner_of_job(job):
        return RUNNING, reached
    status, log = job.folder / STATUS, job.folder / "log.txt"
    if status.is_file() and status.read_text(encoding="utf-8").strip() != "0":
        return FAILED, "\n".join(last_lines(log, LINES))
    return (INTERRUPTED, reached) if log.is_file() else (MISSING, "")


def stale_jobs(planner: Planner, completed: CompletedRuns) -> list[tuple[Job, str]]:
    """Runs whose records are stale, and why."""
    jobs = planner.jobs()
    jobs += same_time_jobs(planner, completed, jobs) or []
    return [(job, stale) for job in jobs if (stale := completed.of(job)[1]) is not None]


def describe(planner: Planner, completed: CompletedRuns) -> str:
    """The grid, and a line for every run that is neither done nor merely missing."""
    jobs = planner.jobs()
    same_time = same_time_jobs(planner, completed, jobs)
    jobs += same_time or []
    states = {job.label: state_of(job, completed) for job in jobs}
    runs = pd.DataFrame([{"method": j.method, "title": j.title, "state": states[j.label][0]} for j in jobs])
    grid = runs.groupby(["method", "title"])["state"].agg(_cell).unstack(fill_value="")
    grid = grid.loc[runs["method"].unique(), runs["title"].unique()].rename_axis(columns=None)
    lines = [grid.reset_index().to_string(index=False)]
    if same_time is None:
        lines.append(f"{SAME_TIME}: its length is known once the runs that determine it are done")
    count = Counter(state for state, _ in states.values())
    lines.append(", ".join(f"{count[state]} {state}" for state in STATES if count[state]))
    for label, (state, text) in states.items():
        if state not in (DONE, MISSING):
            shown = f" {text}" if text and "\n" not in text else "".join(f"\n    {line}" for line in text.splitlines())
            lines.append(f"{label}: {state}{shown}")
    return "\n".join(lines)


def _cell(states: Iterable[str]) -> str:
    """How many of a cell's seeds are done, and what the others are."""
    count = Counter(states)
    others = [f"{count[state]} {state}" for state in STATES[1:-1] if count[state]]
    return ", ".join([f"{count[DONE]}/{count.total()}", *others])


def results_table(jobs: list[Job], records: dict[str, Record]) -> pd.DataFrame:
    """One row per backbone, with the cost of its pretraining, and one column per metric; "" where a transfer failed.

    Columns are the tasks' headline metrics and the others that they compare; a single recipe shows all its metrics.
    """
    columns = _columns(jobs)
    by_backbone: dict[Backbone, dict[str, Job]] = {}
    for job in jobs:
        if job.backbone is not None:
            by_backbone.setdefault(job.backbone, {})[job.title] = job
    rows = []
    for backbone, of_title in by_backbone.items():
        found = {title: records[job.label] for title, job in of_title.items() if job.label in records}
        wall = backbone.pretraining("clock", "wall")
        row: dict[str, Any] = {"backbone": backbone.method, "seed": backbone.seed}
        row |= {"images seen": backbone.pretraining("images_seen"), "s": wall if wall == "" else round(wall)}
        for column, (title, metric) in columns.items():
            value = found[title]["metrics"].get(metric.name) if title in found else None
            row[column] = "" if value is None else f"{value:.1f}"
        rows.append({**row, "CPU s": round(sum(record["cpu_s"] for record in found.values()))})
    return pd.DataFrame(rows)


def _columns(jobs: list[Job]) -> dict[str, tuple[str, Metric]]:
    """Column -> (title of a recipe, metric); each task's longest recipe, planned first, comes last."""
    recipes = {job.title: get_task(job.task) for job in jobs if job.backbone is not None}
    metrics = {task: task.metrics if len(recipes) == 1 else task.compared for task in recipes.values()}
    count = Counter(metric.title for task in metrics for metric in metrics[task])
    columns = {}
    for task in metrics:
        titles = [title for title in recipes if recipes[title] is task]
        for title in reversed(titles):
            for metric in metrics[task]:
                name = f"{title}, {metric.title}"  # in full only where less would be ambiguous
                if len(titles) > 1 and len(metrics[task]) == 1:
                    name = title
                elif len(titles) == 1 and count[metric.title] == 1:
                    name = metric.title
                columns[f"{name} {metric.unit}"] = title, metric
    return columns
