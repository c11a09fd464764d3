"""`mlomae demo`: MAE, MAE of the same wall-clock, MLO-MAE and random weights through every task, one table."""

from pathlib import Path

import pytest
from bench_runs import bench, launch_with, set_splits
from pretrained_samples import pretrain, table_rows
from single_thread import one_thread
from suite_files import record_of

from benchmarks.suite.command import plan
from benchmarks.tasks import all_tasks
from mlomae.cli import main
from mlomae.pretraining import demo
from mlomae.records import write_record

__all__ = ["one_thread"]
SHOWN = (
    "k-NN %",
    "linear %",
    "fine-tuning %",
    "box AP %",
    "mask AP %",
    "linear segmentation, mIoU %",
    "UperNet, mIoU %",
)
METHODS = ("MAE", "MAE longer", "MLO-MAE", "random initialisation")


@pytest.fixture(scope="module")
def pretrained(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("demo")
    return [pretrain(folder / method, method=method) for method in METHODS[:3]]


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
    for task, splits in (("segmentation", scenes), ("linear_segmentation", scenes), ("detection", ("train", "val"))):
        set_splits(monkeypatch, task, {split: {"split": "val", "count": 2, "size": 16} for split in splits})
    planner, _ = plan(bench(tmp_path / "transfer", "--weights", *map(str, pretrained)))
    jobs = {job.folder: job for job in planner.jobs()}
    metrics = [metric.name for task in all_tasks() for metric in task.metrics]

    def launch(command: list[str], log: Path) -> int:
        job = jobs[log.parent]
        if job.title == fail:
            return 2
        write_record(record_of(job, metrics=dict.fromkeys(metrics, 10.0 * METHODS.index(job.method))), job.record)
        return 0

    launch_with(monkeypatch, launch)
    monkeypatch.setattr(demo, "pretrain_demo", lambda work_dir: pretrained)
    assert main(["demo", "--work-dir", str(tmp_path), "--jobs", "1"]) == status
    printed = capsys.readouterr().out
    assert f"4 backbones, {len(jobs)} transfers to run, 1 at a time" in printed
    rows = table_rows(printed)
    assert [printed.index(column) for column in SHOWN] == sorted(printed.index(column) for column in SHOWN)
    assert len(rows) == len(METHODS)
    for place, (row, method) in enumerate(zip(rows, METHODS, strict=True)):
        shown = [f"{10.0 * place:.1f}"] * (6 if fail else 7)
        assert method in row
        assert row.split()[-len(shown) - 1 : -1] == shown
    embedded = [task.name for task in all_tasks() if task.embedded]
    folders = {name: f"{tmp_path}/transfer/{name}/METHOD/SEED/RECIPE" for name in embedded}
    assert [name for name, folder in folders.items() if folder in printed] == [
        name for name in embedded if not (fail and name == "segmentation")
    ]


def test_jobs_must_be_positive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--work-dir", str(tmp_path), "--jobs", "0"]) == 2
    assert "--jobs must be at least 1" in capsys.readouterr().err
