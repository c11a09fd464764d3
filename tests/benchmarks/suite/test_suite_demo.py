"""`mlomae demo`: MAE, MLO-MAE and random weights through three tasks, one table."""

from pathlib import Path

import pytest
from bench_runs import bench, launch_with, set_splits
from pretrained_samples import pretrain, table_rows
from single_thread import one_thread
from suite_files import record_of

from benchmarks.commands import DEMO
from benchmarks.suite.command import plan
from benchmarks.tasks import all_tasks
from mlomae.cli import main
from mlomae.commands import demo
from mlomae.records import write_record

__all__ = ["one_thread"]
SHOWN = ("box AP %", "mask AP %", "mIoU %", "top-1 %")
METHODS = ("MAE", "MLO-MAE", "random initialisation")


@pytest.fixture(scope="module")
def pretrained(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("demo")
    return [pretrain(folder / method, method=method) for method in METHODS[:2]]


@pytest.mark.parametrize(("fail", "status"), [("", 0), ("UperNet", 1)])
def test_one_table_of_all_tasks(
    fail: str,
    status: int,
    pretrained: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The transfers are stood in for; the metric of every backbone is its place."""
    scenes = ("training", "validation")
    for task, splits in (("segmentation", scenes), ("detection", ("train", "val"))):
        set_splits(monkeypatch, task, {split: {"split": "val", "count": 2, "size": 16} for split in splits})
    planner, _ = plan(bench(tmp_path / "transfer", "--weights", *map(str, pretrained), file=DEMO))
    jobs = {job.folder: job for job in planner.jobs()}
    metrics = [metric.name for task in all_tasks() for metric in task.metrics]

    def launch(command: list[str], log: Path) -> int:
        job = jobs[log.parent]
        if job.title == fail:
            return 2
        write_record(record_of(job, metrics=dict.fromkeys(metrics, 10.0 * METHODS.index(job.method))), job.record)
        return 0

    launch_with(monkeypatch, launch)
    monkeypatch.setattr(demo, "pretrain_demo", lambda *given: pretrained)
    assert main(["demo", "--work-dir", str(tmp_path), "--jobs", "1"]) == status
    printed = capsys.readouterr().out
    assert f"3 backbones, {len(jobs)} transfers to run, 1 at a time" in printed
    rows = table_rows(printed)
    assert [printed.index(column) for column in SHOWN] == sorted(printed.index(column) for column in SHOWN)
    assert len(rows) == len(METHODS)
    for place, (row, method) in enumerate(zip(rows, METHODS, strict=True)):
        shown = [f"{10.0 * place:.1f}"] * (3 if fail else 4)
        assert method in row
        assert row.split()[-len(shown) - 1 : -1] == shown
    tasks = [job.task for job in jobs.values()]
    folders = {name: f"{tmp_path}/transfer/{name}/METHOD/SEED/RECIPE" for name in dict.fromkeys(tasks)}
    assert [name for name, folder in folders.items() if folder in printed] == [
        name for name in folders if not (fail and name == "segmentation")
    ]
    assert "The demo took" in printed


def test_jobs_must_be_positive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--work-dir", str(tmp_path), "--jobs", "0"]) == 2
    assert "--jobs must be at least 1" in capsys.readouterr().err
