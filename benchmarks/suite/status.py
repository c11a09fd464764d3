"""What there is of a suite: the state of every run, methods x tasks, and the results of a demo, a row a backbone."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.analysis.comparable import SAME_TIME
from benchmarks.suite.backbones import Backbone
from benchmarks.suite.completed import CompletedRuns
from benchmarks.suite.jobs import Job, Planner
from benchmarks.suite.launch import is_locked, last_lines
from benchmarks.suite.runner import LINES, STATUS, same_time_length
from benchmarks.tasks import get_task
from mlomae.backbones.task import Metric
from mlomae.common.checkpoint import list_checkpoints
from mlomae.records import Record

DONE, STALE, RUNNING, FAILED, INTERRUPTED, MISSING = "done", "stale", "running", "failed", "interrupted", "missing"
STATES = (DONE, STALE, RUNNING, FAILED, INTERRUPTED, MISSING)


def state_of(job: Job, completed: CompletedRuns) -> tuple[str, str]:
    """(one of ``STATES``, what there is to say about it)."""
    record, stale = completed.of(job)
    if record is not None:
        return (DONE, "") if stale is None else (STALE, stale)
    at = _last_iteration(job.folder)
    reached = f"at {at} iterations" if at else "before its first checkpoint"
    if is_locked(job.folder):
        return RUNNING, reached
    status, log = job.folder / STATUS, job.folder / "log.txt"
    if status.is_file() and status.read_text(encoding="utf-8").strip() != "0":
        return FAILED, "\n".join(last_lines(log, LINES))
    return (INTERRUPTED, reached) if log.is_file() else (MISSING, "")


def known_jobs(planner: Planner, completed: CompletedRuns) -> tuple[list[Job], bool]:
    """All runs of a suite, and whether the same-time row is among them or not asked for."""
    jobs = planner.jobs()
    if planner.suite.same_time is None:
        return jobs, True
    records = {job.label: record for job in jobs if (record := completed.of(job)[0]) is not None}
    length = same_time_length(planner, jobs, records, completed)
    return (jobs, False) if length is None else (jobs + planner.same_time(length, jobs), True)


def stale_jobs(planner: Planner, completed: CompletedRuns) -> list[tuple[Job, str]]:
    """Runs whose records do not count, and why."""
    jobs, _ = known_jobs(planner, completed)
    return [(job, stale) for job in jobs if (stale := completed.of(job)[1]) is not None]


def describe(planner: Planner, completed: CompletedRuns) -> str:
    """The grid, and a line for every run that is neither done nor merely missing."""
    jobs, all_known = known_jobs(planner, completed)
    states = {job.label: state_of(job, completed) for job in jobs}
    cells: dict[str, dict[str, list[str]]] = {}
    for job in jobs:
        cells.setdefault(job.method, {}).setdefault(job.title, []).append(states[job.label][0])
    titles = dict.fromkeys(job.title for job in jobs)
    rows = [{"method": m, **{t: _cell(found.get(t, [])) for t in titles}} for m, found in cells.items()]
    lines = [pd.DataFrame(rows).to_string(index=False)]
    if not all_known:
        lines.append(f"{SAME_TIME}: its length is known when the runs are done whose time it takes")
    count = Counter(state for state, _ in states.values())
    lines.append(", ".join(f"{count[state]} {state}" for state in STATES if count[state]))
    for label, (state, text) in states.items():
        if state not in (DONE, MISSING):
            lines.append(f"{label}: {state}" + _indented(text))
    return "\n".join(lines)


def _cell(states: list[str]) -> str:
    """How many of a cell's seeds are done, and what the others are."""
    if not states:
        return ""
    count = Counter(states)
    others = [f"{count[state]} {state}" for state in STATES[1:-1] if count[state]]
    return ", ".join([f"{count[DONE]}/{len(states)}", *others])


def _indented(text: str) -> str:
    return f" {text}" if text and "\n" not in text else "".join(f"\n    {line}" for line in text.splitlines())


def _last_iteration(folder: Path) -> int:
    found = list_checkpoints(folder)
    match = re.search(r"(\d+)", found[-1].stem) if found else None
    return int(match[1]) if match else 0


def results_table(jobs: list[Job], records: dict[str, Record]) -> pd.DataFrame:
    """A row a backbone, what its pretraining took, a column a metric; "" where a transfer failed.

    Columns are the headlines of the tasks and what they compare besides; a single recipe shows all its metrics.
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
    """Column -> (title of a recipe, metric); the longest recipe of each task, planned first, stands last."""
    recipes = {job.title: get_task(job.task) for job in jobs if job.backbone is not None}
    columns = {}
    for task in dict.fromkeys(recipes.values()):
        titles = [title for title in recipes if recipes[title] is task]
        metrics = task.metrics if len(recipes) == 1 else task.compared
        for title in reversed(titles):
            for metric in metrics:
                name = metric.title if len(titles) == 1 else title if len(metrics) == 1 else f"{title}, {metric.title}"
                columns[f"{name} {metric.unit}"] = title, metric
    return columns
