"""What there is of a suite: methods in rows, pretraining and tasks in columns, and what became of every run."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pandas as pd

from benchmarks.analysis.comparable import SAME_TIME
from benchmarks.process import last_lines
from benchmarks.suite.jobs import Job, Planner
from benchmarks.suite.lock import is_held
from benchmarks.suite.proof import Proofs
from benchmarks.suite.runner import LINES, STATUS, same_time_length
from mlomae.common.checkpoint import list_checkpoints

DONE, STALE, RUNNING, FAILED, INTERRUPTED, MISSING = "done", "stale", "running", "failed", "interrupted", "missing"
STATES = (DONE, STALE, RUNNING, FAILED, INTERRUPTED, MISSING)


def state_of(job: Job, proofs: Proofs, work: Path) -> tuple[str, str]:
    """(one of ``STATES``, what there is to say of it)."""
    proof, folder = proofs.of(job), job.folder(work)
    if proof.stale is not None:
        return STALE, proof.stale
    if proof.done:
        return DONE, ""
    at = _last_iteration(folder)
    reached = f"at {at} iterations" if at else "before its first checkpoint"
    if is_held(folder):
        return RUNNING, reached
    status = folder / STATUS
    if status.is_file() and status.read_text(encoding="utf-8").strip() != "0":
        return FAILED, "\n".join(last_lines(folder / "log.txt", LINES))
    if (folder / "log.txt").is_file():
        return INTERRUPTED, reached
    return MISSING, ""


def known_jobs(planner: Planner, proofs: Proofs) -> tuple[list[Job], bool]:
    """All runs of a suite, and whether the same-time row is among them or not asked for."""
    jobs = planner.jobs()
    if planner.suite.same_time is None:
        return jobs, True
    found = {job.label: record for job in jobs if (record := proofs.of(job).record) is not None}
    length = same_time_length(planner, jobs, found, proofs)
    return (jobs, False) if length is None else (jobs + planner.same_time(length, jobs), True)


def describe(planner: Planner, proofs: Proofs, work: Path) -> str:
    """The grid, and a line for every run that is neither done nor merely missing."""
    jobs, complete = known_jobs(planner, proofs)
    states = {job.label: state_of(job, proofs, work) for job in jobs}
    titles = list(dict.fromkeys(job.title for job in jobs))
    methods = list(dict.fromkeys(job.method for job in jobs))
    rows = []
    for method in methods:
        row = {"method": method}
        for title in titles:
            found = [states[job.label][0] for job in jobs if (job.method, job.title) == (method, title)]
            row[title] = _cell(found)
        rows.append(row)
    lines = [pd.DataFrame(rows).to_string(index=False)]
    if not complete:
        lines.append(f"{SAME_TIME}: its length is known when the runs are there whose time it takes")
    count = Counter(state for state, _ in states.values())
    lines.append(", ".join(f"{count[state]} {state}" for state in STATES if count[state]))
    for label, (state, words) in states.items():
        if state not in (DONE, MISSING):
            lines.append(f"{label}: {state}" + _indented(words))
    return "\n".join(lines)


def _cell(states: list[str]) -> str:
    """How many of a cell's seeds are done, and what the others are."""
    if not states:
        return ""
    count = Counter(states)
    others = [f"{count[state]} {state}" for state in STATES[1:-1] if count[state]]
    return ", ".join([f"{count[DONE]}/{len(states)}", *others])


def _indented(words: str) -> str:
    return f" {words}" if words and "\n" not in words else "".join(f"\n    {line}" for line in words.splitlines())


def _last_iteration(folder: Path) -> int:
    found = list_checkpoints(folder)
    match = re.search(r"(\d+)", found[-1].stem) if found else None
    return int(match[1]) if match else 0


def stale_jobs(planner: Planner, proofs: Proofs) -> list[tuple[Job, str]]:
    """Runs on record that their records do not prove done, and why."""
    jobs, _ = known_jobs(planner, proofs)
    return [(job, stale) for job in jobs if (stale := proofs.of(job).stale) is not None]
