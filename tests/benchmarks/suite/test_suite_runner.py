"""What is run, in which order, and what a failure stops; with a launcher that only leaves records."""

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from run_samples import one_line
from suite_files import Records, record_of, runner_of, write_suite

from benchmarks.suite.completed import CompletedRuns
from benchmarks.suite.file import load_suite
from benchmarks.suite.jobs import PRETRAIN, Planner
from benchmarks.suite.runner import SuiteRunner, run_locks, suite_locks
from benchmarks.suite.status import describe, state_of
from mlomae.common.errors import ConfigError
from mlomae.common.ownership import owned
from mlomae.records import write_record


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.suite.runner.POLL", 0.02)


@pytest.fixture
def launch(tmp_path: Path) -> Records:
    return Records(tmp_path / "runs")


def test_everything_is_made_once_and_backbones_before_their_transfers(tmp_path: Path, launch: Records) -> None:
    suite = write_suite(tmp_path, floor=True)
    runner, _ = runner_of(suite, tmp_path, launch)
    assert runner.run()
    order = {label: i for i, label in enumerate(launch.started)}
    assert len(order) == len(launch.started) == len(runner.jobs) == len(runner.finished)
    assert launch.most == 2
    for job in runner.jobs:
        if job.after is not None:
            assert order[job.after.label] < order[job.label]
    again, _ = runner_of(suite, tmp_path, nothing := Records(tmp_path / "runs"))
    assert again.run()
    assert nothing.started == []
    assert len(again.on_record) == len(runner.finished)


@pytest.mark.parametrize("at_once", [1, 3])
def test_no_more_than_n_at_a_time(tmp_path: Path, launch: Records, at_once: int) -> None:
    runner, _ = runner_of(write_suite(tmp_path), tmp_path, launch, at_once)
    assert runner.run()
    assert launch.most == at_once


def test_a_failure_is_shown_and_stops_its_own_transfers_alone(tmp_path: Path, launch: Records) -> None:
    launch.fails = {"suite_mae_seed1"}
    runner, said = runner_of(write_suite(tmp_path), tmp_path, launch)
    assert not runner.run()
    assert runner.failed == ["suite_mae_seed1"]
    assert sorted(runner.blocked) == ["knn_a_mae_seed1", "knn_b_mae_seed1"]
    assert len(runner.finished) == 9
    words = next(line for line in said if "failed with status 2" in line)
    assert "error: suite_mae_seed1 broke; mend it" in words
    assert 3 < len(words.splitlines()) <= 9, "the end of the log, not all of it"
    states = {job.label: state_of(job, runner.completed) for job in runner.jobs}
    assert states["suite_mae_seed1"][0] == "failed"
    assert "mend it" in states["suite_mae_seed1"][1]
    assert states["knn_a_mae_seed1"] == ("missing", "")
    shown = describe(runner.planner, runner.completed)
    assert "1/2, 1 failed" in shown
    launch.fails.clear()
    mended, _ = runner_of(write_suite(tmp_path), tmp_path, launch)
    assert mended.run()
    assert sorted(mended.finished) == ["knn_a_mae_seed1", "knn_b_mae_seed1", "suite_mae_seed1"]


def test_a_run_that_a_signal_has_stopped_is_interrupted_and_not_failed(tmp_path: Path, launch: Records) -> None:
    launch.stopped = {"suite_mae_seed1"}
    runner, said = runner_of(write_suite(tmp_path), tmp_path, launch)
    assert not runner.run()
    assert (runner.stopped, runner.failed) == (["suite_mae_seed1"], [])
    assert "suite_mae_seed1: interrupted by a signal; the next start of the suite resumes it" in said
    states = {job.label: state_of(job, runner.completed)[0] for job in runner.jobs}
    assert states["suite_mae_seed1"] == "interrupted"
    launch.stopped.clear()
    assert runner_of(write_suite(tmp_path), tmp_path, launch)[0].run()


def test_a_run_that_ends_well_without_a_record_has_failed(tmp_path: Path, launch: Records) -> None:
    runner, said = runner_of(write_suite(tmp_path, tasks=[], seeds=[0]), tmp_path, launch)
    runner.launch = lambda command, log, parameters: 0
    assert not runner.run()
    assert len(runner.failed) == 2
    assert sum("left no record" in line for line in said) == 2


def test_same_time_waits_for_both_and_takes_the_ratio_of_processor_seconds(tmp_path: Path) -> None:
    launch = Records(tmp_path / "runs", {"MAE": 10.0, "MLO-MAE": 35.0})
    suite = write_suite(tmp_path, same_time="MLO-MAE")
    runner, _ = runner_of(suite, tmp_path, launch)
    assert runner.run()
    longer = [job for job in runner.jobs if job.method == "MAE, same processor time"]
    assert len(longer) == 6
    assert {job.config.train.outer_iterations for job in longer if job.task == PRETRAIN} == {7}  # 2 x 35 / 10
    order = launch.started.index
    assert all(
        order(job.label) > order(f"suite_{m}_seed{s}") for job in longer for m in ("mae", "mlo-mae") for s in (0, 1)
    )
    others = [order(job.label) for job in runner.jobs if job.after and job not in longer]
    assert max(order(job.label) for job in longer if not job.after) < max(others), "the longest runs would come last"
    more = write_suite(tmp_path, same_time="MLO-MAE", seeds=[0, 1, 2])
    launch.seconds = {"MAE": 10.0, "MLO-MAE": 90.0}
    further, _ = runner_of(more, tmp_path, launch)
    assert further.run()
    lengths = {
        job.config.train.outer_iterations for job in further.jobs if job.method == longer[0].method if not job.after
    }
    assert lengths == {7}, "the length on record stays, so that seeds are of one configuration"


def test_same_time_is_not_run_if_what_determines_its_length_failed(tmp_path: Path, launch: Records) -> None:
    launch.fails = {"suite_mlo-mae_seed0"}
    runner, said = runner_of(write_suite(tmp_path, same_time="MLO-MAE"), tmp_path, launch)
    assert not runner.run()
    assert "MAE, same processor time" in runner.blocked
    assert any("determines its length is missing" in line for line in said)
    assert "its length is known once" in describe(runner.planner, runner.completed)


def test_a_backbone_that_is_on_record_but_gone_is_trained_again_for_a_transfer(tmp_path: Path, launch: Records) -> None:
    suite = write_suite(tmp_path, seeds=[0], tasks=[])
    assert runner_of(suite, tmp_path, launch)[0].run()
    before = {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}
    for path in (tmp_path / "work").rglob("*.pth"):
        path.unlink()
    launch.started.clear()
    runner, said = runner_of(write_suite(tmp_path, seeds=[0]), tmp_path, launch)
    assert runner.run()
    assert len(launch.started) == len(set(launch.started)) == 6
    order = launch.started.index
    assert all(order(job.after.label) < order(job.label) for job in runner.jobs if job.after is not None)
    assert sum("trained again" in line for line in said) == 2
    assert all(path.read_bytes() == content for path, content in before.items()), "records are never replaced"


def test_another_suite_finds_a_record_by_what_it_says_not_by_its_name(tmp_path: Path, launch: Records) -> None:
    planner = Planner(load_suite(write_suite(tmp_path, name="first", tasks=[], seeds=[0])))
    for job in planner.jobs():
        write_record(record_of(job), tmp_path / "runs" / f"{job.label}.json")
    runner, _ = runner_of(write_suite(tmp_path, name="second", tasks=[], seeds=[0]), tmp_path, launch)
    assert runner.run()
    assert launch.started == []


def test_a_record_of_another_configuration_in_the_place_of_a_run(tmp_path: Path, launch: Records) -> None:
    runner, _ = runner_of(write_suite(tmp_path, tasks=[], seeds=[0]), tmp_path, launch)
    other = Planner(load_suite(write_suite(tmp_path, tasks=[], seeds=[0], options={"data.batch_size": 4}))).jobs()[0]
    write_record(record_of(other), tmp_path / "runs" / f"{other.label}.json")
    runner.completed = CompletedRuns(tmp_path / "runs")
    with pytest.raises(ConfigError, match="records another configuration"):
        runner.run()


@contextmanager
def held_elsewhere(lock: Path, said: list[str], leaves: Callable[[], Any], others: bool = False) -> Iterator[None]:
    """The lock is another process's until a line tells that it is waited for, and that ``others`` have gone on."""
    taken = threading.Event()

    def hold() -> None:
        with owned(lock.parent, lock):
            taken.set()
            end = time.monotonic() + 20
            while not any("waiting for" in line for line in said) and time.monotonic() < end:
                time.sleep(0.01)
            while others and not any(": done" in line for line in said) and time.monotonic() < end:
                time.sleep(0.01)
            leaves()

    with ThreadPoolExecutor() as pool:
        held = pool.submit(hold)
        taken.wait()
        yield
        held.result()


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("which", range(4))
def test_a_run_of_another_process_is_waited_for(tmp_path: Path, launch: Records, which: int, records: bool) -> None:
    """Of another suite, of one that was killed and left it running, of `mlomae pretrain`; with and without a record."""
    runner, said = runner_of(write_suite(tmp_path, tasks=[], seeds=[0]), tmp_path, launch)
    learned, job = runner.planner.jobs()
    lock = [*suite_locks(job), *run_locks(job)][which][1]
    leaves = (lambda: write_record(record_of(job, 123.0), job.record)) if records else (lambda: None)
    with held_elsewhere(lock, said, leaves, others=True):
        assert state_of(job, runner.completed) == ("running", "before its first checkpoint")
        assert runner.run()
    waits = f"{job.label}: waiting for process {os.getpid()} on {platform.node()}, started "
    assert sum(line.startswith(waits) for line in said) == 1, "it is said once"
    finished = f"{job.label}: another process has finished it since this one began"
    assert launch.started == [learned.label, *([] if records else [job.label])]
    assert (finished in said) == records
    assert said.index(f"{learned.label}: done, 20 processor s; 1 more wait") < len(said) - 1, "the other went on"
    assert sorted(runner.finished) == sorted([learned.label, job.label])
    assert [path.name for path in tmp_path.rglob("*.lock*")] == []


def side_by_side(*runners: SuiteRunner) -> list[tuple[str, int]]:
    """Start suites together, until they have ended well; the runs that they started."""
    for runner in runners:
        assert isinstance(runner.launch, Records)
        runner.launch.jobs = partial(getattr, runner, "jobs")
    with ThreadPoolExecutor() as pool:
        assert all(pool.map(SuiteRunner.run, runners))
    assert [runner.failed + runner.blocked for runner in runners] == [[], []]
    return [(job.hash, job.seed) for r in runners for job in r.jobs for _ in range(r.launch.started.count(job.label))]


def suite_of(tmp_path: Path, work: str, **changes: Any) -> SuiteRunner:
    (folder := tmp_path / f"of_{work}").mkdir(exist_ok=True)
    planner = Planner(load_suite(write_suite(folder, **changes)), tmp_path / work, tmp_path / "runs")
    return SuiteRunner(planner, CompletedRuns(planner.records), Records(tmp_path / "runs"), 2, print)


@pytest.mark.parametrize("works", ["one one", "one two"])
@pytest.mark.parametrize("names", ["first first", "first second"])
def test_two_suites_make_every_run_once(tmp_path: Path, works: str, names: str) -> None:
    pairs = zip(works.split(), names.split(), strict=True)
    one, two = (suite_of(tmp_path, work, name=name, floor=True) for work, name in pairs)
    started = side_by_side(one, two)
    assert len(started) == len(set(started)) == len(one.jobs) == 16
    assert [len(runner.finished) + len(runner.on_record) for runner in (one, two)] == [16, 16]


def test_a_suite_trains_again_what_another_has_made_if_its_own_transfers_need_it(tmp_path: Path) -> None:
    recipe = str(tmp_path / "classification" / "knn_{dataset}.py")
    write_suite(tmp_path)
    one, two = (
        suite_of(tmp_path, work, seeds=[0], tasks=[{"recipe": recipe, "datasets": datasets}])
        for work, datasets in (("one", ["a"]), ("two", ["a", "b"]))
    )
    started = side_by_side(one, two)
    transfers = {(job.hash, job.seed) for job in two.jobs if job.after is not None}
    assert len(transfers) == 4
    assert sorted(run for run in started if run in transfers) == sorted(transfers)
    assert len(started) <= 4 + 2 * 2


def test_a_run_that_was_refused_since_another_began_first_is_waited_for(tmp_path: Path, launch: Records) -> None:
    runner, said = runner_of(write_suite(tmp_path, tasks=[], seeds=[0]), tmp_path, launch, at_once=1)
    job = runner.planner.jobs()[1]
    stack, first = ExitStack(), threading.Event()

    def refused(command: list[str], log: Path, parameters: dict[str, Any]) -> int:
        if job.label not in str(log) or first.is_set():
            return launch(command, log, parameters)
        first.set()
        stack.enter_context(held_elsewhere(run_locks(job)[1][1], said, lambda: None))
        return 2

    runner.launch = refused
    with stack:
        assert runner.run()
    assert launch.started == [run.label for run in runner.jobs]
    assert runner.failed == []


def test_a_record_of_another_configuration_that_came_meanwhile_fails_its_run_alone(
    tmp_path: Path, launch: Records
) -> None:
    other = Planner(load_suite(write_suite(tmp_path, tasks=[], seeds=[0], options={"data.batch_size": 4}))).jobs()[1]
    runner, said = runner_of(write_suite(tmp_path, tasks=[], seeds=[0]), tmp_path, launch, at_once=1)

    def first(command: list[str], log: Path, parameters: dict[str, Any]) -> int:
        write_record(record_of(other), tmp_path / "runs" / f"{other.label}.json")
        return launch(command, log, parameters)

    runner.launch = first
    assert not runner.run()
    assert (runner.failed, runner.finished) == ([other.label], ["suite_mlo-mae_seed0"])
    assert any("records another configuration than the suite's" in one_line(line) for line in said)


def test_a_run_that_another_process_has_made_meanwhile_is_not_made_again(tmp_path: Path, launch: Records) -> None:
    runner, said = runner_of(write_suite(tmp_path, tasks=[], seeds=[0]), tmp_path, launch)
    _, job = runner.planner.jobs()
    record = tmp_path / "runs" / f"{job.label}.json"

    def first(command: list[str], log: Path, parameters: dict[str, Any]) -> int:
        write_record(record_of(job, seconds=123.0), record)  # as a second suite would, while this one's first run lasts
        return launch(command, log, parameters)

    runner.launch, runner.parallel = first, 1
    assert runner.run()
    assert launch.started == ["suite_mlo-mae_seed0"]
    assert f"{job.label}: another process has finished it since this one began" in said
    assert f"{job.label}: done, 123 processor s; 0 more wait" in said
