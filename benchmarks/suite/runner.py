"""Runs what is missing of a suite: pretrainings, then the transfers of their backbones, N at a time.

A run that fails is reported with the end of its log and blocks only its own transfers; one that was killed or told to
stop resumes from its checkpoint the next time. A run that another process makes (another suite, one that was killed and
left it running, `mlomae pretrain`) is waited for while others go on; the record that it leaves is taken, and without
one the run is made here.
"""

import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.analysis.comparable import BASELINE, SAME_TIME
from benchmarks.suite.completed import CompletedRuns
from benchmarks.suite.jobs import PRETRAIN, Job, Planner
from benchmarks.suite.launch import Launcher
from benchmarks.tasks import get_task
from mlomae.common.errors import STOPPED, MlomaeError, counted
from mlomae.common.ownership import LOCK as RUN_LOCK
from mlomae.common.ownership import InUse, owned, owner_of
from mlomae.common.processes import Progress, end_of
from mlomae.records import Record, claim_of, slug

LOCK = ".suite.lock"  # of the suite that waits for a run, which has a lock of its own
POLL = 1.0  # seconds between two looks at the runs of other processes
STATUS = "exit_status"  # file in a run's folder: how its process ended last


@dataclass
class SuiteRunner:
    """``parallel``: runs at a time. ``report`` gets one line for each event, ``progress`` the effort of each run.
    ``stop``: set when it is interrupted, for ``launch`` to end the runs.

    ``on_record``, ``finished``, ``failed``, ``stopped`` (by a signal, with a checkpoint), ``blocked`` (by a run that
    failed or stopped): labels of runs by outcome.
    """

    planner: Planner
    completed: CompletedRuns
    launch: Launcher
    parallel: int
    report: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    progress: Progress = field(default_factory=Progress)
    on_record: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)

    def run(self) -> bool:
        """Run what is missing, and wait for what other processes make; returns whether the suite is complete now.

        Ctrl-C ends the runs.
        """
        self.jobs: list[Job] = []  # all that are known so far
        self.records: dict[str, Record] = {}
        self._retrained = set[str]()  # on record, but the backbone is needed and its file is not here
        self._waiting: list[Job] = []
        self._running: dict[Future[bool], Job] = {}
        self._owners: dict[str, str] = {}  # of runs that other processes make, by label
        self._claims: dict[str, ExitStack] = {}  # locks of this suite, by label
        try:
            self._add(self.planner.jobs())
            all_known = self._plan_same_time()
            with ThreadPoolExecutor(self.parallel) as pool:
                try:
                    while self._waiting or self._running:
                        before = [*self._waiting]
                        for job in self._ready():
                            self._running[pool.submit(self._run, job)] = job
                        if self._running:
                            for future in wait(self._running, POLL if self._owners else None, FIRST_COMPLETED).done:
                                self._finish(self._running.pop(future), future.result())
                        elif self._waiting == before:
                            time.sleep(POLL)
                        self._release()
                        all_known = all_known or self._plan_same_time()
                except BaseException:
                    self.stop.set()
                    stopped = counted(len(self._running), "run")
                    self.report(f"stopping {stopped}; the next start of the suite goes on")
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        finally:
            for stack in self._claims.values():
                stack.close()
        if not all_known:
            self.blocked.append(SAME_TIME)
            self.report(f"{SAME_TIME}: not run, a run that determines its length is missing")
        return not self.failed and not self.stopped and not self.blocked

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
            self.progress.expect(job.effort, done=job.label in self.records)

    def _plan_same_time(self) -> bool:
        """Add the same-time row once its length is known; returns whether it was.

        It goes before what waits: the longest runs, begun last, would keep one core while the others have nothing."""
        jobs = same_time_jobs(self.planner, self.completed, self.jobs)
        waiting, self._waiting = self._waiting, []
        self._add(jobs or [])
        self._waiting += waiting
        return jobs is not None

    def _ready(self) -> list[Job]:
        """Claim the runs that start now: as many as may run, and none that another process makes."""
        self._take_new()
        told, self._owners = self._owners, {}
        ready: list[Job] = []
        for job in [*self._waiting]:
            if len(ready) + len(self._running) == self.parallel:
                break
            if job.after is not None and not self._has_backbone(job.after):
                continue
            if (owner := self._claim(job)) is not None:
                self._owners[job.label] = owner
                if told.get(job.label) != owner:
                    what = "transfers its backbone" if job.label in self._retrained else "is making it"
                    self.report(f"{job.label}: waiting for {owner}, which {what}")
            elif self._is_missing(job):
                if job.after is not None:
                    self._claim(job.after)  # so that a suite that lacks the backbone leaves its transfers to this one
                self._waiting.remove(job)
                ready.append(job)
        return ready

    def _has_backbone(self, job: Job) -> bool:
        """Whether the backbone of a pretraining is here; if the run is on record only, it is run again."""
        if job.label not in self.records or job.label in self._retrained:
            return False
        if not job.checkpoint.is_file():
            self._retrained.add(job.label)
            self._waiting.insert(0, job)
            return False
        return True

    def _is_missing(self, job: Job) -> bool:
        """Whether a run is still to be made, now that no other process makes it."""
        self._take_new()
        if job.label in self._retrained:
            if job.checkpoint.is_file() or not any(other.after is job for other in self._waiting):
                self._retrained.discard(job.label)
                self._waiting.remove(job)
                return False
            work = self.planner.work
            self.report(f"{job.label}: on record, but its backbone is not in '{work}': trained again for it")
        elif job in self._waiting:
            self._take(job)
        return job in self._waiting

    def _take_new(self) -> None:
        """Take the records that other processes have placed."""
        if self.completed.look_again(job.record for job in self.jobs):  # which only the run of that name may take
            for job in [*self._waiting]:
                if job.label not in self._retrained:
                    self._take(job)

    def _take(self, job: Job) -> None:
        try:
            record, why = self.completed.of(job)
        except MlomaeError as error:
            record, why = None, str(error)
        if record is None and why is None:
            return
        self._waiting.remove(job)
        if record is None or why is not None:
            self.report(f"{job.label}: not run, another process has left a record: {why}")
            self._fail(job)
        else:
            self.report(f"{job.label}: another process has finished it since this one began")
            self._succeed(job, record)

    # --- who runs it --------------------------------------------------------------------------------------------------

    def _claim(self, job: Job) -> str | None:
        """Own a run, for this suite; the owner if another process has it."""
        if job.label in self._claims:
            return None
        with ExitStack() as stack:
            try:
                for place, lock in suite_locks(job):
                    stack.enter_context(owned(place, lock, patience=0))
                for place, lock in run_locks(job):
                    with owned(place, lock, patience=0):
                        pass
            except InUse:
                stack.close()
                return owner_of_job(job) or "another process"
            self._claims[job.label] = stack.pop_all()
        return None

    def _release(self) -> None:
        """Let go of runs that have ended, except of pretrainings whose backbones are here and are still transferred."""
        running = [*self._running.values()]
        kept = {job.label for job in running}
        kept |= {job.after.label for job in self._waiting + running if job.after and job.after.label in self.records}
        for label in self._claims.keys() - (kept - self._retrained) - {job.label for job in running}:
            self._claims.pop(label).close()

    # --- running it ---------------------------------------------------------------------------------------------------

    def _run(self, job: Job) -> bool:
        """Run ``job`` to its end; returns whether it succeeded."""
        log, again = job.folder / "log.txt", job.label in self._retrained
        self.report(f"{job.label}: started, log in {log}")
        (job.folder / STATUS).unlink(missing_ok=True)
        with self.progress.run(job.short, job.effort, log):
            status = self.launch(job.command(keep_record=not again), log, job.cluster)
        if status and self.stop.is_set():
            return False  # and has not failed
        if status == STOPPED:  # by a scheduler
            self.stopped.append(job.label)
            self.report(f"{job.label}: interrupted by a signal; the next start of the suite resumes it")
            return False
        (job.folder / STATUS).write_text(f"{status}\n", encoding="utf-8")
        if status:
            self.report(f"{job.label}: failed with status {status}; the log ends with\n{end_of(log)}")
        return not status

    def _finish(self, job: Job, succeeded: bool) -> None:
        if job.label in self._retrained:
            if succeeded and job.checkpoint.is_file():
                self._retrained.discard(job.label)
                self.finished.append(job.label)
            else:
                self._fail(job)
        elif (record := self.completed.add(job)) is not None:  # or of another process, which this one gave way to
            self._succeed(job, record)
        elif not succeeded and any(owner_of(lock) for _, lock in run_locks(job)):
            self._waiting.append(job)  # a process that began between the look and the start
        else:
            if succeeded:
                self.report(f"{job.label}: ended with status 0, but left no record of its configuration")
            self._fail(job)

    def _succeed(self, job: Job, record: Record) -> None:
        self.records[job.label] = record
        self.finished.append(job.label)
        metric = None if job.task == PRETRAIN else get_task(job.task).headline
        value = record["metrics"].get(metric.name) if metric else None
        result = f"{metric.title} {value:.1f} {metric.unit}, " if metric and value is not None else ""
        left = len(self._waiting)
        self.report(f"{job.label}: done, {result}{record['cpu_s']:.0f} processor s; {left} more wait")

    def _fail(self, job: Job) -> None:
        stopped = job.label in self.stopped
        self.failed += [] if stopped else [job.label]
        for other in [other for other in self._waiting if other.after is job]:
            self._waiting.remove(other)
            self.blocked.append(other.label)
            self.report(f"{other.label}: not run, '{job.label}' {'was stopped' if stopped else 'failed'}")


def suite_locks(job: Job) -> list[tuple[Path, Path]]:
    """The locks of the suite that runs ``job`` or waits for it, in the run's folder and beside its record."""
    place, lock = claim_of(job.record, job.hash, job.seed)
    return [(job.folder, job.folder / LOCK), (place, lock.with_name(f"{lock.stem}{LOCK}"))]


def run_locks(job: Job) -> list[tuple[Path, Path]]:
    """Those of the process that runs it, which outlives the suite that started it if that is killed."""
    return [(job.folder, job.folder / RUN_LOCK), claim_of(job.record, job.hash, job.seed)]


def owner_of_job(job: Job) -> str | None:
    """The process that has one of these locks."""
    return next((owner for _, lock in suite_locks(job) + run_locks(job) if (owner := owner_of(lock))), None)


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
