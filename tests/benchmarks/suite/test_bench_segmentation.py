"""configs/suites/bench.py for segmentation: data written once, every backbone and the floor, nothing run twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_runs import COMMAND, bench, fail, in_process, launch_with, records_under, set_splits
from PIL import Image
from pretrained_samples import ITERATIONS, pretrain, put, table_rows
from run_samples import one_line
from single_thread import one_thread

from benchmarks.suite.command import plan, run_suite
from benchmarks.suite.completed import CompletedRuns
from benchmarks.suite.file import ROOT
from benchmarks.tasks import get_task
from mlomae.backbones.task import EmbeddedBench
from mlomae.cli import main
from mlomae.common import numerics
from mlomae.data import Textures, build_scenes

__all__ = ["one_thread"]
TINY_SPLITS: dict[str, dict[str, Any]] = {
    "training": {"split": "val", "count": 16, "size": 16, "mixed": True},
    "validation": {"split": "test", "count": 6, "size": 16, "mixed": True},
}
TINY = {
    "backbone.img_size": 16,
    "data.batch_size": 8,
    "model.decode_head.channels": 8,
    "model.auxiliary_head.channels": 8,
    "train.iterations": 4,
    "train.checkpoint_interval": 2,
    "train.keep_checkpoints": 9,
    "overlays": 2,
}


@pytest.fixture(scope="module")
def checkpoint(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(tmp_path_factory.mktemp("pretrained") / "mae", depth=4)


@pytest.fixture
def runs(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    set_splits(monkeypatch, "segmentation", TINY_SPLITS)
    put(checkpoint, tmp_path / "work" / "mae")
    return tmp_path / "work"


def embedded() -> EmbeddedBench:
    found = get_task("segmentation").embedded
    assert found is not None
    return found


def arguments(runs: Path, out: Path, *options: str) -> list[str]:
    tiny = [f"{key}={value}" for key, value in TINY.items()]
    given = ["--tasks", "segmentation", "--runs", str(runs), "--work-dir", str(out), "--jobs", "1"]
    return [*COMMAND, *given, "--cfg-options", *tiny, *options]


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(command) == 2
    return one_line(capsys.readouterr().err)


def check_results(work: Path, record: dict[str, Any]) -> None:
    """Pixel counts that reproduce the metrics, and pictures of image, labels and prediction."""
    with np.load(work / "pixel_counts.npz", allow_pickle=False) as file:
        total = {name: file[name].sum(axis=0) for name in ("intersect", "predicted", "true")}
    union = total["predicted"] + total["true"] - total["intersect"]
    iou = 100 * total["intersect"][union > 0] / union[union > 0]
    assert record["metrics"]["mIoU"] == pytest.approx(iou.mean(), rel=1e-12)
    pictures = sorted((work / "overlays").iterdir())
    assert [path.name for path in pictures] == ["000000.png", "000003.png"]
    assert {Image.open(path).size for path in pictures} == {(16 * (3 * 16 + 2 * 4), 256)}


def test_every_backbone_and_the_floor_on_data_written_once(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch_with(monkeypatch, in_process)
    out = runs / "bench-seg"
    assert main(arguments(runs, out)) == 0
    printed = capsys.readouterr().out
    assert "2 backbones, 2 transfers to run" in printed
    assert "on 6 images that no pretraining saw, trained on 16 images" in printed
    rows = table_rows(printed)
    assert [row.split()[-7:-5] for row in rows] == [["0", "32"], ["0", "0"]]  # seed, images seen
    found = records_under(out)
    assert {work.relative_to(out).parts[0] for work in found} == {"mae", "random-initialisation"}
    for work, record in found.items():
        assert (record["task"], record["demo"], work.name) == ("segmentation", True, "upernet")
        assert record["eval_source"].startswith("scene_folder validation at textures_")
        assert record["pretrained"].get("images_seen", 0) == (ITERATIONS * 2 * 8 if record["method"] == "MAE" else 0)
        check_results(work, record)
        shown = [f"{record['metrics'][name]:.1f}" for name in ("mIoU", "mAcc", "aAcc")]
        assert any(row.split()[-4:-1] == shown for row in rows)
    (data,) = (out / "data").iterdir()
    written = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    assert len(list(data.rglob("*.png"))) == 2 * (16 + 6)

    # a second call runs nothing, writes nothing, and prints the same table
    launch_with(monkeypatch, fail)
    assert main(arguments(runs, out)) == 0
    again = capsys.readouterr()
    assert "2 backbones, 0 transfers to run" in again.out
    assert again.err == ""
    assert table_rows(again.out) == rows
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == written

    # these records are neither of another recipe nor of other images
    other = "records another configuration than the suite's"
    assert other in refused(arguments(runs, out, "train.decay=cosine"), capsys)
    set_splits(monkeypatch, "segmentation", {**TINY_SPLITS, "validation": {**TINY_SPLITS["validation"], "seed": 1}})
    assert other in refused(arguments(runs, out), capsys)


def test_an_interrupted_transfer_is_resumed(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launch_with(monkeypatch, in_process)
    args = bench(runs / "out", "--tasks", "segmentation", "--runs", str(runs), options=TINY)
    planner, _ = plan(args)
    job = planner.jobs()[0]
    embedded().write_data(planner.data_folder)
    job.folder.mkdir(parents=True)
    assert in_process(job.command(), job.folder / "log.txt") == 0
    whole = json.loads(job.record.read_text())["metrics"]
    job.record.unlink()  # as if killed after the checkpoint of iteration 2 of 4
    (job.folder / "checkpoints" / "iter_4.pth").unlink()
    assert not CompletedRuns(None).of(job)[0]
    assert run_suite(args) == 0
    assert json.loads(job.record.read_text())["metrics"] == whole
    assert any("after 2 iterations" in path.read_text() for path in job.folder.rglob("*.log"))


def test_the_files_are_the_textures(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded().write_data(runs / "out")
    options = embedded().data_options(runs / "out")
    assert options["data.train.root"] == options["data.test.root"]
    for split, values in TINY_SPLITS.items():
        scenes = build_scenes({"type": "scene_folder", "root": options["data.train.root"], "split": split})
        textures = Textures(**values)
        assert scenes.classes == ("background", *textures.classes)
        assert len(scenes) == len(textures)
        for i in range(len(scenes)):
            assert (scenes.image(i) == textures.image(i)).all()
            assert (scenes.labels(i) == textures.pixel_labels(i)).all()
    monkeypatch.setitem(numerics._NUMBERS, "data.textures", 2)
    assert embedded().data_options(runs / "out") != options, "images of another number are written anew"


@pytest.mark.parametrize(
    ("name", "splits"), [("segmentation", ["training", "validation"]), ("detection", ["train", "val"])]
)
def test_no_pretraining_sees_the_images(name: str, splits: list[str]) -> None:
    task = get_task(name)
    assert task.embedded is not None
    assert [task.embedded.splits[split]["split"] for split in splits] == ["val", "test"]
    ((recipe, _),) = task.embedded.recipes.values()
    config = task.load_config(ROOT / "configs" / name / f"{recipe}.py")
    assert [config.data.train["split"], config.data.test["split"]] == splits
    assert not config.demo
    for path in (ROOT / "configs" / "_base_").glob("textures.py"):
        assert 'split="val"' not in path.read_text()


def test_a_backbone_that_is_too_shallow_is_shown_by_the_end_of_the_log(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def logged(command: list[str], log: Path) -> int:
        status = in_process(command, log)
        log.write_text(capsys.readouterr().err)
        return status

    launch_with(monkeypatch, logged)
    shallow = pretrain(runs.parent / "shallow", depth=2)
    assert main([*arguments(runs, runs / "out"), "--weights", str(shallow)]) == 1
    printed = capsys.readouterr().out
    assert "error: out_indices (0, 1, 2, 3) must be rising block numbers" in printed


@pytest.mark.slow
def test_one_transfer_as_a_process_of_its_own(runs: Path) -> None:
    args = bench(runs / "out", "--tasks", "segmentation", "--runs", str(runs), options=TINY)
    assert run_suite(args) == 0
    for folder, record in records_under(runs / "out").items():
        assert record["hardware"]["threads"] == 1
        check_results(folder, record)
