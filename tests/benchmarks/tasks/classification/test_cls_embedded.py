"""The default of `make bench-cls`: what it finds, makes, does not make twice, and says when something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from cls_runs import main as transfer
from cls_runs import run_transfer
from pretrained_samples import ITERATIONS, pretrain, put, table_rows

from benchmarks.tasks.classification.config import ClassificationConfig
from benchmarks.tasks.classification.embedded import BENCH, main
from benchmarks.transfer import embedded
from benchmarks.transfer.embedded import make_tasks
from benchmarks.transfer.found import find_backbones, floor_of, name_backbones
from mlomae.backbones.provenance import describe_weights
from mlomae.backbones.records import described
from mlomae.common.checkpoint import load_checkpoint, save_atomically
from mlomae.data import build_source
from mlomae.records import RANDOM, config_hash

RECIPES = sorted((embedded.ROOT / "configs" / "classification").glob("*_textures.py"))
TINY = {
    "data.train.count": 48,
    "data.test.count": 40,
    "data.train.size": 16,
    "data.test.size": 16,
    "backbone.img_size": 16,
    "data.batch_size": 16,
    "train.epochs": 2,
    "train.checkpoint_interval": 4,
    "train.keep_checkpoints": 9,
}
OPTIONS = ["--cfg-options", *(f"{key}={value}" for key, value in TINY.items())]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(tmp_path_factory.mktemp("pretrained") / "mae")


@pytest.fixture
def runs(tmp_path: Path, checkpoint: Path) -> Path:
    put(checkpoint, tmp_path / "work" / "mae")
    return tmp_path / "work"


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a wrong input gives."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def in_process(command: list[str], log: Path) -> int:
    """What a transfer's process does, here: the imports of six processes would be most of these tests' time."""
    assert command[:5] == [sys.executable, "-m", "mlomae.cli", "bench", "classification"]
    assert log.parent.is_dir()
    return transfer(command[5:])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "start", in_process)


@pytest.mark.usefixtures("quick")
def test_all_protocols_of_all_backbones_and_of_the_floor(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = runs / "bench-cls"
    arguments = ["--runs", str(runs), "--work-dir", str(out), "--jobs", "1", *OPTIONS]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "2 backbones, 6 transfers to make" in printed
    rows = table_rows(printed)
    assert [row.split()[-6:-4] for row in rows] == [["0", "32"], ["0", "0"]]  # seed, images seen
    found = {path.parent.relative_to(out).parts: json.loads(path.read_text()) for path in out.rglob("record.json")}
    assert {(method, protocol) for method, _, protocol in found} == {
        (method, protocol) for method in ("mae", "random-initialisation") for protocol in ("finetune", "linear", "knn")
    }
    for (_, seed, protocol), record in found.items():
        assert record["demo"] is True
        assert seed.startswith("seed0_")
        assert record["config"]["protocol"] == protocol
        assert record["eval_source"] == "textures test (embedded, seed 0), 40 images"
        assert record["pretrained"].get("images_seen", 0) == (ITERATIONS * 2 * 8 if record["method"] == "MAE" else 0)
    for path in out.rglob("record.json"):
        assert (path.parent / "confusion.png").is_file()
        assert (path.parent / "predictions.npz").is_file()

    # a second call makes nothing, finds no transfer's checkpoints, and prints the same table
    def fail(*_: Any) -> int:
        raise AssertionError("made again")

    monkeypatch.setattr(embedded, "start", fail)
    assert main(["--runs", str(runs), "--work-dir", str(out), "--jobs", "2", *OPTIONS]) == 0
    again = capsys.readouterr()
    assert "2 backbones, 0 transfers to make" in again.out
    assert again.err == ""
    assert table_rows(again.out) == rows

    # another recipe is not what these records hold
    assert "holds a transfer with another recipe" in refused([*arguments, "train.epochs=3"], capsys)


@pytest.mark.usefixtures("quick")
def test_an_interrupted_transfer_goes_on(runs: Path) -> None:
    (backbone,) = find_backbones(runs, runs / "out", 8)
    (task, *_) = make_tasks(BENCH, [backbone], runs / "out", TINY)
    assert task.config.protocol == "finetune"
    run_transfer(task.config, task.folder, resume=True)
    whole = json.loads((task.folder / "record.json").read_text())["metrics"]
    (task.folder / "record.json").unlink()  # as if killed after the checkpoint of iteration 4 of 6
    (task.folder / "checkpoints" / "iter_6.pth").unlink()
    assert embedded.done(task) is None
    record = embedded.execute(task)
    assert record is not None
    assert record["metrics"] == whole
    logs = [path.read_text() for path in task.folder.rglob("*.log")]
    assert sum("resumed from" in log and "after 4 iterations" in log for log in logs) == 1


def test_a_process_that_fails_is_a_line_and_an_empty_cell(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: list[str], log: Path) -> int:
        log.write_text("a page of log\nerror: no memory\n")
        return 2

    monkeypatch.setattr(embedded, "start", fail)
    assert main(["--runs", str(runs), "--work-dir", str(runs / "out"), "--jobs", "1", *OPTIONS]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("failed with status 2: error: no memory") == 6
    assert "k-NN %" in printed.out


def test_one_transfer_as_a_process_of_its_own(runs: Path) -> None:
    (backbone,) = find_backbones(runs, runs / "out", 8)
    knn = make_tasks(BENCH, [backbone], runs / "out", TINY)[-1]
    record = embedded.execute(knn)
    assert record is not None
    assert record["hardware"]["threads"] == 1
    assert (knn.folder / "log.txt").read_text().count("top1") == 1


def test_nothing_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        line = refused(["--runs", str(folder)], capsys)
        assert "run `make demo` or `make pretrain` first" in line


def test_what_is_found(runs: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = checkpoint.with_name("iter_1.pth")
    out = runs / "bench-cls"
    put(first, runs / "mae")  # older than the one of two iterations
    put(checkpoint, runs / "mae_again")  # the same bytes
    put(checkpoint, runs / "demo" / "mlo", config__method="MLO-MAE", config__seed=3)
    put(checkpoint, runs / "cifar", config__data__train={"type": "cifar10", "root": "x"})
    put(checkpoint, runs / "cheat", config__data__train={"type": "textures", "split": "test"})
    put(checkpoint, runs / "cheat2", config__data__feedback={"type": "textures", "split": "test"})
    put(checkpoint, out / "mae" / "seed0" / "finetune", config__seed=9)
    put(first, runs / "unfinished", config__seed=7)
    (runs / "damaged" / "checkpoints").mkdir(parents=True)
    (runs / "damaged" / "checkpoints" / "iter_3.pth").write_bytes(b"x" * 100)
    found = find_backbones(runs, out, 8)
    assert [(b.origin.method, b.seed, b.images_seen) for b in found] == [
        ("MAE", 0, 32),
        ("MAE", 7, 16),
        ("MLO-MAE", 3, 32),
    ]
    assert [bool(b.note) for b in found] == [False, True, False]
    assert "is at 1 of 2 iterations" in found[1].note
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert sum("was pretrained on the test images" in line for line in lines) == 2
    assert sum("iter_3.pth' is damaged" in line for line in lines) == 1
    assert len({b.folder for b in found}) == 3


def test_at_most_the_newest(runs: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(checkpoint, runs / "later", config__seed=1)
    os.utime(path, (2e9, 2e9))
    (only,) = find_backbones(runs, runs / "out", 1)
    assert only.seed == 1
    assert "2 backbones are under" in capsys.readouterr().out


def test_other_weights_have_another_folder(runs: Path, checkpoint: Path) -> None:
    (before,) = find_backbones(runs, runs / "out", 8)
    state = load_checkpoint(checkpoint)
    name = next(iter(state["modules"]["mae"]))
    state["modules"]["mae"][name] = state["modules"]["mae"][name] + 1.0
    save_atomically(state, runs / "mae" / "checkpoints" / checkpoint.name)
    (after,) = find_backbones(runs, runs / "out", 8)
    assert before.origin.identity == after.origin.identity
    assert before.folder != after.folder


def test_the_floor_is_told_by_its_architecture(checkpoint: Path, tmp_path: Path) -> None:
    (narrow,) = floor_of(name_backbones([str(checkpoint)])[0])
    wider = pretrain(tmp_path / "wide", width=32, seed=5)
    (wide,) = floor_of(name_backbones([str(wider)])[0])
    assert narrow.origin.method == wide.origin.method == RANDOM
    assert (narrow.seed, wide.seed) == (0, 5)
    assert narrow.origin.identity["architecture"]["embed_dim"] == 16
    config = make_tasks(BENCH, [narrow], tmp_path, TINY)[0].config
    assert config_hash(described(config, narrow.origin)) != config_hash(described(config, wide.origin))
    assert floor_of(narrow) == []
    other_seed = describe_weights(f"random:{put(checkpoint, tmp_path / 'again', config__seed=1)}")
    assert other_seed.identity == narrow.origin.identity


def test_a_file_whose_name_begins_with_random_is_not_random(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "random_masks.pth"
    shutil.copy(checkpoint, path)
    assert describe_weights(str(path)).method == "MAE"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--jobs", "0"], "--jobs and --most must be at least 1"),
        (["--most", "0"], "--jobs and --most must be at least 1"),
        (["--weights", "missing.pth"], "backbone 'missing.pth' does not exist"),
        (["--weights", "timm:vit", "timm:vit"], "--weights names a backbone twice"),
        (["--cfg-options", "train.epoch=3"], "unknown config key 'train.epoch'"),
        (["--cfg-options", "train"], "--cfg-options takes KEY=VALUE"),
    ],
)
def test_wrong_input(runs: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in refused(["--runs", str(runs), "--work-dir", str(runs / "out"), *arguments], capsys)


def test_recipes_test_on_images_that_no_pretraining_saw() -> None:
    assert [path.stem for path in RECIPES] == ["finetune_textures", "knn_textures", "linear_textures"]
    sources = []
    for path in RECIPES:
        config = ClassificationConfig.load(path)
        assert config.name == path.stem
        assert not config.demo
        assert (config.data.train["split"], config.data.test["split"]) == ("train", "test")
        sources.append((config.data.train, config.data.test))
        assert config.data.train["count"] % 8 == 0  # as many labels of every class
    assert sources == sources[:1] * 3
    assert len(build_source(sources[0][1]).labels) == 2000


def test_no_source_checkout(runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "ROOT", runs)
    assert "needs the configs of a source checkout" in refused(["--runs", str(runs)], capsys)
