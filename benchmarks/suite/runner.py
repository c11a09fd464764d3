"""Runs what is missing of a suite: pretrainings, then the transfers of their backbones, N at a time.

A run that fails is reported with the end of its log and blocks only its own transfers; one that was killed resumes
from its checkpoint the next time.
"""

import statistics
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from benchmarks.analysis.comparable import BASELINE, SAME_TIME
from benchmarks.suite.completed import CompletedRuns
from benchmarks.suite.jobs import PRETRAIN, Job, Planner
from benchmarks.suite.launch import Launcher, last_lines
from benchmarks.tasks import get_task
from mlomae.common.ownership import InUse, owned
from mlomae.records import Record, slug

LOCK = ".suite.lock"  # of the suite that waits for a run, which has a lock of its own
STATUS = "exit_status"  # file in a run's folder: how its process ended last
LINES = 8  # of a failed run's log


@dataclass
class SuiteRunner:
    """``parallel``: runs at a time. ``report`` gets one line for each event. ``stop``: set when it is interrupted, for
    ``launch`` to end the runs.

    ``on_record``, ``finished``, ``failed``, ``blocked`` (by a run that failed): labels of runs by outcome.
    """

    planner: Planner
    completed: CompletedRuns
    launch: Launcher
    parallel: int
    report: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    on_record: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)

    def run(self) -> bool:
        """Run what is missing; returns whether the suite is complete now. Ctrl-C ends the runs."""
        self.jobs: list[Job] = []  # all that are known so far
        self.records: dict[str, Record] = {}
        self._retrained = set[str]()  # on record, but the backbone is needed and its file is gone
        self._waiting: list[Job] = []
        self._add(self.planner.jobs())
        all_known = self._plan_same_time()
        running: dict[Future[bool], Job] = {}
        with ThreadPoolExecutor(self.parallel) as pool:
            try:
                while self._waiting or running:
                    made = self.records.keys() - self._retrained
                    ready = [job for job in self._waiting if job.after is None or job.after.label in made]
                    for job in ready[: self.parallel - len(running)]:
                        self._waiting.remove(job)
                        running[pool.submit(self._execute, job)] = job
                    if not running:
                        break  # all that wait are blocked
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        self._finish(running.pop(future), future.result())
                    all_known = all_known or self._plan_same_time()
            except BaseException:
                self.stop.set()
                self.report(f"stopping {len(running)} runs; the next start of the suite resumes them")
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for job in self._waiting:
            self.blocked.append(job.label)
            self.report(f"{job.label}: not run, '{job.after.label if job.after else ''}' failed")
        if not all_known:
            self.blocked.append(SAME_TIME)
            self.report(f"{SAME_TIME}: not run, a run that determines its length is missing")
        return not self.failed and not self.blocked

    # --- what has to be run -------------------------------------------------------------------------------------------

    def _add(self, jobs: list[Job]) -> None:
        self.jobs += jobs
        for job in jobs:
            record, stale = self.completed.of(job)
            if record is not None and stale is None:
                self.records[job.label] = record
                self.on_record.append(job.label)
            else:
                self._waiting.append(job)
        for needed in [job.after for job in self._waiting if job.after is not None]:
            gone = needed.label in self.records and not needed.checkpoint.is_file()
            if gone and needed.label not in self._retrained:
                work = self.planner.work
                self.report(f"{needed.label}: on record, but its backbone is not in '{work}': trained again for it")
                self._retrained.add(needed.label)
                self._waiting.insert(0, needed)

    def _plan_same_time(self) -> bool:
        """Add the same-time row once its length is known; returns whether it was."""
        jobs = same_time_jobs(self.planner, self.completed, self.jobs)
        self._add(jobs or [])
        return jobs is not None

    # --- running it ---------------------------------------------------------------------------------------------------

    def _execute(self, job: Job) -> bool:
        """Run ``job`` to its end unless another process does; returns whether it succeeded."""
        try:
            with owned(job.folder, job.folder / LOCK):
                with owned(job.folder):  # a run outlives the suite that started it if that is killed
                    pass
                return self._run(job)
        except InUse as error:
            self.report(f"{job.label}: skipped, another process is running it: {error}")
            return False

    def _run(self, job: Job) -> bool:
        log, again = job.folder / "log.txt", job.label in self._retrained
        if not again and self.completed.add(job) is not None:
            self.report(f"{job.label}: another process has finished it since this one began")
            return True
        self.report(f"{job.label}: started, log in {log}")
        (job.folder / STATUS).unlink(missing_ok=True)
        status = self.launch(job.command(keep_record=not again), log)
        if status and self.stop.is_set():
            return False  # and has not failed
        (job.folder / STATUS).write_text(f"{status}\n", encoding="utf-8")
        if status:
            shown = "\n".join(f"    {line}" for line in last_lines(log, LINES))
            self.report(f"{job.label}: failed with status {status}; the log ends with\n{shown}")
        return not status

    def _finish(self, job: Job, succeeded: bool) -> None:
        if not succeeded:
            self.failed.append(job.label)
        elif job.label in self._retrained:
            self._retrained.discard(job.label)
            self.finished.append(job.label)
        elif (record := self.completed.add(job)) is None:
            self.report(f"{job.label}: ended with status 0, but left no record of its configuration")
            self.failed.append(job.label)
        else:
            self.records[job.label] = record
            self.finished.append(job.label)
            metric = None if job.task == PRETRAIN else get_task(job.task).headline
            value = record["metrics"].get(metric.name) if metric else None
            result = f"{metric.title} {value:.1f} {metric.unit}, " if metric and value is not None else ""
            left = len(self._waiting)
            self.report(f"{job.label}: done, {result}{record['cpu_s']:.0f} processor s; {left} more wait")


def same_time_jobs(planner: Planner, completed: CompletedRuns, jobs: list[Job]) -> list[Job] | None:
    """The runs of the same-time row, [] without one; None while a run that determines its length is missing.

    Its length is the number of outer iterations for which the baseline takes the processor time of the suite's
    ``same_time``, averaged over seeds. A length on record stays: all seeds must have the same configuration.
    """
    reference = planner.suite.same_time
    if reference is None:
        return []
    name = f"{planner.suite.name}_{slug(SAME_TIME)}"
    for record in completed.all():
        if record["name"] == name and record["task"] == PRETRAIN:
            return planner.same_time(int(record["outer_iterations"]), jobs)
    pretrained = [job for job in jobs if job.task == PRETRAIN and job.method in (BASELINE, reference)]
    seconds: dict[str, list[float]] = {BASELINE: [], reference: []}
    for job in pretrained:
        record_of_job = completed.path_and_record(job)[1]
        if record_of_job is None:
            return None
        seconds[job.method].append(record_of_job["cpu_s"])
    length = next(job for job in pretrained if job.method == BASELINE).config.train.outer_iterations
    ratio = statistics.fmean(seconds[reference]) / statistics.fmean(seconds[BASELINE])
    return planner.same_time(max(1, round(length * ratio)), jobs)
