"""What is run, in which order, and what a failure stops; with a launcher that only leaves records."""

from pathlib import Path

import pytest
from suite_files import Records, record_of, runner_of, write_suite

from benchmarks.suite.completed import CompletedRuns
from benchmarks.suite.file import load_suite
from benchmarks.suite.jobs import PRETRAIN, Planner
from benchmarks.suite.status import describe, state_of
from mlomae.common.errors import ConfigError
from mlomae.common.ownership import owned
from mlomae.records import write_record


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


def test_a_run_that_ends_well_without_a_record_has_failed(tmp_path: Path, launch: Records) -> None:
    runner, said = runner_of(write_suite(tmp_path, tasks=[], seeds=[0]), tmp_path, launch)
    runner.launch = lambda command, log: 0
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


@pytest.mark.parametrize("lock", [".lock", ".suite.lock"])
def test_a_run_in_progress_elsewhere_is_left_to_it(tmp_path: Path, launch: Records, lock: str) -> None:
    """Another suite's, or one whose suite was killed and left it running."""
    runner, said = runner_of(write_suite(tmp_path, tasks=[], seeds=[0]), tmp_path, launch)
    folder = tmp_path / "work" / "suite_mae_seed0"
    with owned(folder, folder / lock):
        job = next(job for job in runner.planner.jobs() if job.label == folder.name)
        assert state_of(job, runner.completed) == ("running", "before its first checkpoint")
        assert not runner.run()
    assert any("another process" in line for line in said)
    assert launch.started == ["suite_mlo-mae_seed0"]


def test_a_run_that_another_process_has_made_meanwhile_is_not_made_again(tmp_path: Path, launch: Records) -> None:
    runner, said = runner_of(write_suite(tmp_path, tasks=[], seeds=[0]), tmp_path, launch)
    _, job = runner.planner.jobs()
    record = tmp_path / "runs" / f"{job.label}.json"

    def first(command: list[str], log: Path) -> int:
        write_record(record_of(job, seconds=123.0), record)  # as a second suite would, while this one's first run lasts
        return launch(command, log)

    runner.launch, runner.parallel = first, 1
    assert runner.run()
    assert launch.started == ["suite_mlo-mae_seed0"]
    assert f"{job.label}: another process has finished it since this one began" in said
    assert f"{job.label}: done, 123 processor s; 0 more wait" in said
