"""Makes what a suite's records do not prove done: pretrainings, then the transfers of their backbones, N at a time.

A run that fails is shown with what it said last and holds up nothing but its own transfers; one that was killed goes on
from its checkpoint the next time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.analysis.comparable import BASELINE, SAME_TIME
from benchmarks.process import last_lines
from benchmarks.suite.jobs import PRETRAIN, Job, Planner
from benchmarks.suite.launch import Launcher
from benchmarks.suite.lock import held
from benchmarks.suite.proof import Proofs
from mlomae.records import Record

STATUS = "exit_status"  # file in a run's folder: how its process ended last
LINES = 8  # of a failed run's log


@dataclass
class SuiteRunner:
    """``work``: folder of the runs' folders. ``made``, ``failed``, ``blocked``, ``found`` (on record): labels of runs,
    by what became of them."""

    planner: Planner
    proofs: Proofs
    work: Path
    launch: Launcher
    at_once: int
    say: Callable[[str], None]
    made: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def run(self) -> bool:
        """Make what is missing; whether all of it is there now. Ctrl-c starts no further run."""
        self._jobs, self._records = self.planner.jobs(), dict[str, Record]()
        self._again = set[str]()  # on record, but their backbones are needed and not here
        self._waiting: list[Job] = []
        self._add(self._jobs)
        self._grown = self.planner.suite.same_time is None
        self._grow()
        running: dict[Future[bool], Job] = {}
        with ThreadPoolExecutor(self.at_once) as pool:
            try:
                while self._waiting or running:
                    for job in self._ready()[: self.at_once - len(running)]:
                        self._waiting.remove(job)
                        running[pool.submit(self._execute, job)] = job
                    if not running:
                        break  # what waits, waits for runs that failed
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        self._finish(running.pop(future), future.result())
                    self._grow()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for job in self._waiting:
            self.blocked.append(job.label)
            self.say(f"{job.label}: not run, '{job.after.label if job.after else ''}' failed")
        if not self._grown:
            self.blocked.append(SAME_TIME)
            self.say(f"{SAME_TIME}: not run, the runs whose time it takes are not all there")
        return not self.failed and not self.blocked

    @property
    def jobs(self) -> list[Job]:
        """All runs that are known by now."""
        return self._jobs

    # --- what is to be done ---------------------------------------------------------------------------------------

    def _add(self, jobs: list[Job]) -> None:
        for job in jobs:
            proof = self.proofs.of(job)
            if proof.record is not None and proof.done:
                self._records[job.label] = proof.record
                self.found.append(job.label)
            else:
                self._waiting.append(job)
        for needed in [job.after for job in self._waiting if job.after is not None]:
            gone = needed.label in self._records and not needed.checkpoint(self.work).is_file()
            if gone and needed.label not in self._again:
                self.say(f"{needed.label}: on record, but its backbone is not in '{self.work}': trained again for it")
                self._again.add(needed.label)
                self._waiting.insert(0, needed)

    def _grow(self) -> None:
        """Add the same-time row as soon as its length is known."""
        if self._grown:
            return
        length = same_time_length(self.planner, self._jobs, self._records, self.proofs)
        if length is not None:
            jobs = self.planner.same_time(length, self._jobs)
            self._grown = True
            self._jobs = [*self._jobs, *jobs]
            self._add(jobs)

    def _ready(self) -> list[Job]:
        return [job for job in self._waiting if job.after is None or self._has_backbone(job.after)]

    def _has_backbone(self, job: Job) -> bool:
        return job.label in self._records and job.label not in self._again

    # --- doing it -------------------------------------------------------------------------------------------------

    def _execute(self, job: Job) -> bool:
        """Run ``job`` to its end; whether it ended well."""
        folder = job.folder(self.work)
        log, again = folder / "log.txt", job.label in self._again
        with held(folder) as lock:
            if lock is None:
                self.say(f"{job.label}: is being run by another process; left to it")
                return False
            if not again and self.proofs.add(job) is not None:
                self.say(f"{job.label}: another process has made it since this one began")
                return True
            self.say(f"{job.label}: started, log in {log}")
            (folder / STATUS).unlink(missing_ok=True)
            status = self.launch(job.command(self.work, None if again else self.proofs.folder), log, (lock,))
            (folder / STATUS).write_text(f"{status}\n", encoding="utf-8")
        if status:
            said = "\n".join(f"    {line}" for line in last_lines(log, LINES))
            self.say(f"{job.label}: failed with status {status}; the log ends with\n{said}")
        return not status

    def _finish(self, job: Job, well: bool) -> None:
        if well and job.label in self._again:
            self._again.discard(job.label)
            self.made.append(job.label)
            return
        record = self.proofs.add(job) if well else None
        if record is None:
            if well:
                self.say(f"{job.label}: ended well, but left no record of its configuration in '{self.proofs.folder}'")
            self.failed.append(job.label)
            return
        self._records[job.label] = record
        self.made.append(job.label)
        left = len(self._waiting)
        self.say(f"{job.label}: done, {record['cpu_s']:.0f} processor s; {left} more wait")


def same_time_length(planner: Planner, jobs: list[Job], records: dict[str, Record], proofs: Proofs) -> int | None:
    """How many outer iterations of the baseline take the processor time of the suite's ``same_time``, means over seeds.

    A length that is on record stays: runs of further seeds must be of the same configuration. None as long as runs are
    missing that it is taken from.
    """
    reference = planner.suite.same_time
    pretrained = [job for job in jobs if job.task == PRETRAIN and job.method in (BASELINE, reference)]
    label = planner.same_time_name
    for record in proofs.all():
        if record["name"] == label and record["task"] == PRETRAIN:
            return int(record["outer_iterations"])
    if any(job.label not in records for job in pretrained):
        return None
    seconds = {
        method: statistics.fmean(records[job.label]["cpu_s"] for job in pretrained if job.method == method)
        for method in (BASELINE, reference)
    }
    length = next(job for job in pretrained if job.method == BASELINE).config.train.outer_iterations
    return max(1, round(length * seconds[reference] / seconds[BASELINE]))
