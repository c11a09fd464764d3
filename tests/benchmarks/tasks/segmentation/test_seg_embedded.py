"""The default of `make bench-seg`: data written once, every backbone and the floor, nothing made twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pretrained_samples import ITERATIONS, pretrain, put, table_rows
from run_samples import one_line
from seg_runs import main as transfer
from seg_runs import run_transfer

from benchmarks.tasks.segmentation import embedded as segmentation
from benchmarks.tasks.segmentation.config import SegmentationConfig
from benchmarks.tasks.segmentation.embedded import BENCH, SPLITS, main, write_data
from benchmarks.transfer import embedded
from benchmarks.transfer.embedded import make_tasks
from benchmarks.transfer.found import find_backbones
from mlomae.data import Textures, build_scenes

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
OPTIONS = ["--cfg-options", *(f"{key}={value}" for key, value in TINY.items())]


@pytest.fixture(scope="module")
def checkpoint(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(tmp_path_factory.mktemp("pretrained") / "mae", depth=4)


@pytest.fixture
def runs(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(segmentation, "SPLITS", TINY_SPLITS)
    put(checkpoint, tmp_path / "work" / "mae")
    return tmp_path / "work"


def in_process(command: list[str], log: Path) -> int:
    """What a transfer's process does, here."""
    assert command[:5] == [sys.executable, "-m", "mlomae.cli", "bench", "segmentation"]
    assert log.parent.is_dir()
    return transfer(command[5:])


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    return one_line(capsys.readouterr().err)


def check_results(work: Path, record: dict[str, Any]) -> None:
    """Areas that reproduce the metrics, and pictures of image, labels and prediction."""
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
    monkeypatch.setattr(embedded, "start", in_process)
    out = runs / "bench-seg"
    arguments = ["--runs", str(runs), "--work-dir", str(out), "--jobs", "1", *OPTIONS]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "2 backbones, 2 transfers to make" in printed
    assert "on 6 images that no pretraining saw, trained on 16 images" in printed
    rows = table_rows(printed)
    assert [row.split()[-6:-4] for row in rows] == [["0", "32"], ["0", "0"]]  # seed, images seen
    found = {path.parent: json.loads(path.read_text()) for path in out.rglob("record.json")}
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

    # a second call makes nothing, writes nothing, and prints the same table
    def fail(*_: Any) -> int:
        raise AssertionError("made again")

    monkeypatch.setattr(embedded, "start", fail)
    assert main(["--runs", str(runs), "--work-dir", str(out), "--jobs", "2", *OPTIONS]) == 0
    again = capsys.readouterr()
    assert "2 backbones, 0 transfers to make" in again.out
    assert again.err == ""
    assert table_rows(again.out) == rows
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == written

    # neither another recipe nor other images are what these records hold
    assert "holds a transfer with another recipe" in refused([*arguments, "train.decay=cosine"], capsys)
    changed = {**TINY_SPLITS, "validation": {**TINY_SPLITS["validation"], "seed": 1}}
    monkeypatch.setattr(segmentation, "SPLITS", changed)
    assert "holds a transfer with another recipe" in refused(arguments, capsys)
    assert len(list((out / "data").iterdir())) == 2


def test_an_interrupted_transfer_goes_on(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "start", in_process)
    (backbone,) = find_backbones(runs, runs / "out", 8)
    (task,) = make_tasks(BENCH, [backbone], runs / "out", {**write_data(runs / "out"), **TINY})
    run_transfer(task.config, task.folder, resume=True)
    whole = json.loads((task.folder / "record.json").read_text())["metrics"]
    (task.folder / "record.json").unlink()  # as if killed after the checkpoint of iteration 2 of 4
    (task.folder / "checkpoints" / "iter_4.pth").unlink()
    assert embedded.done(task) is None
    record = embedded.execute(task)
    assert record is not None
    assert record["metrics"] == whole
    assert any("after 2 iterations" in path.read_text() for path in task.folder.rglob("*.log"))


def test_the_files_are_the_textures(runs: Path) -> None:
    options = write_data(runs / "out")
    assert options["data.train.root"] == options["data.test.root"]
    for split, given in TINY_SPLITS.items():
        scenes = build_scenes({"type": "scene_folder", "root": options["data.train.root"], "split": split})
        textures = Textures(**given)
        assert scenes.classes == ("background", *textures.classes)
        assert len(scenes) == len(textures)
        for i in range(len(scenes)):
            assert (scenes.image(i) == textures.image(i)).all()
            assert (scenes.labels(i) == textures.pixel_labels(i)).all()


def test_no_pretraining_sees_the_images() -> None:
    assert [SPLITS[split]["split"] for split in ("training", "validation")] == ["val", "test"]
    config = SegmentationConfig.load(embedded.ROOT / "configs" / "segmentation" / "upernet_textures.py")
    assert (config.data.train["split"], config.data.test["split"]) == ("training", "validation")
    assert not config.demo
    for path in (embedded.ROOT / "configs" / "_base_").glob("textures.py"):
        assert 'split="val"' not in path.read_text()


def test_a_backbone_that_is_too_shallow_is_a_line_in_the_log(
    runs: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def logged(command: list[str], log: Path) -> int:
        status = in_process(command, log)
        log.write_text(capsys.readouterr().err)
        return status

    monkeypatch.setattr(embedded, "start", logged)
    shallow = pretrain(runs.parent / "shallow", depth=2)
    arguments = ["--weights", str(shallow), "--work-dir", str(runs / "out"), "--jobs", "1", *OPTIONS]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert "failed with status 2: error: out_indices (0, 1, 2, 3) must be rising block numbers" in printed.err


@pytest.mark.slow
def test_one_transfer_as_a_process_of_its_own(runs: Path) -> None:
    (backbone,) = find_backbones(runs, runs / "out", 8)
    (task,) = make_tasks(BENCH, [backbone], runs / "out", {**write_data(runs / "out"), **TINY})
    record = embedded.execute(task)
    assert record is not None
    assert record["hardware"]["threads"] == 1
    check_results(task.folder, record)


def test_nothing_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "run `make demo` or `make pretrain` first" in refused(["--runs", str(tmp_path)], capsys)
