"""configs/suites/bench.py for classification: what it transfers, does not run twice, and says when something fails."""

import json
from pathlib import Path

import pytest
from bench_runs import COMMAND, bench, fail, in_process, launch_with, records_under
from pretrained_samples import ITERATIONS, pretrain, put, table_rows
from run_samples import one_line

from benchmarks.suite.command import plan, run_suite
from benchmarks.suite.completed import CompletedRuns
from benchmarks.suite.file import ROOT
from benchmarks.suite.jobs import Planner
from mlomae.classification.config import ClassificationConfig
from mlomae.cli import main
from mlomae.common import numerics
from mlomae.data import build_source

RECIPES = sorted((ROOT / "configs" / "classification").glob("*_textures.py"))
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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(tmp_path_factory.mktemp("pretrained") / "mae")


@pytest.fixture
def runs(tmp_path: Path, checkpoint: Path) -> Path:
    put(checkpoint, tmp_path / "work" / "mae")
    return tmp_path / "work"


def arguments(runs: Path, out: Path, *options: str) -> list[str]:
    tiny = [f"{key}={value}" for key, value in TINY.items()]
    given = ["--tasks", "classification", "--runs", str(runs), "--work-dir", str(out), "--jobs", "1"]
    return [*COMMAND, *given, "--cfg-options", *tiny, *options]


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a wrong input gives."""
    assert main(command) == 2
    return one_line(capsys.readouterr().err)


def test_all_protocols_of_all_backbones_and_of_the_floor(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch_with(monkeypatch, in_process)
    out = runs / "bench-cls"
    assert main(arguments(runs, out)) == 0
    printed = capsys.readouterr().out
    assert "2 backbones, 6 transfers to run" in printed
    rows = table_rows(printed)
    assert [row.split()[-7:-5] for row in rows] == [["0", "32"], ["0", "0"]]  # seed, images seen
    assert all(column in printed for column in ("k-NN %", "linear %", "fine-tuning %"))
    assert "on 40 images that no pretraining saw, with the labels of 48 images; chance 12.5 %" in printed
    found = {folder.relative_to(out).parts: record for folder, record in records_under(out).items()}
    assert {(method, protocol) for method, _, protocol in found} == {
        (method, protocol) for method in ("mae", "random-initialisation") for protocol in ("finetune", "linear", "knn")
    }
    for (_, seed, protocol), record in found.items():
        assert record["demo"] is True
        assert seed.startswith("seed0_")
        assert record["config"]["protocol"] == protocol
        assert record["eval_source"] == "textures test (embedded, seed 0), 40 images"
        assert record["pretrained"].get("images_seen", 0) == (ITERATIONS * 2 * 8 if record["method"] == "MAE" else 0)
        own = {"classification": 1, "data.textures": 1}
        made = {"backbone.pretraining": numerics.number_of("pretraining"), "backbone.data.textures": 1}
        of_backbone = made if record["method"] == "MAE" else {}
        assert record["numerics"] == own | of_backbone
    for folder in records_under(out):
        assert (folder / "confusion.png").is_file()
        assert (folder / "predictions.npz").is_file()

    # a second call runs nothing, discovers no transfer's checkpoints, and prints the same table
    launch_with(monkeypatch, fail)
    assert main(arguments(runs, out)) == 0
    again = capsys.readouterr()
    assert "2 backbones, 0 transfers to run" in again.out
    assert again.err == ""
    assert table_rows(again.out) == rows

    # these records are not of another recipe, and a raised number makes them stale
    assert "records another configuration than the suite's" in refused(arguments(runs, out, "train.epochs=3"), capsys)
    monkeypatch.setitem(numerics._NUMBERS, "classification", 2)
    assert "stale records: 6," in refused(arguments(runs, out), capsys)
    assert "made with NUMERICS 1 of classification (now 2)" in refused(arguments(runs, out), capsys)


def test_an_interrupted_transfer_is_resumed(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch_with(monkeypatch, in_process)
    args = bench(runs / "out", "--tasks", "classification", "--runs", str(runs), options=TINY)
    job = plan(args)[0].jobs()[0]
    assert job.config.protocol == "finetune", "the longest first"
    job.folder.mkdir(parents=True)
    assert in_process(job.command(), job.folder / "log.txt") == 0
    whole = json.loads(job.record.read_text())["metrics"]
    job.record.unlink()  # as if killed after the checkpoint of iteration 4 of 6
    (job.folder / "checkpoints" / "iter_6.pth").unlink()
    assert not CompletedRuns(None).of(job)[0]
    assert run_suite(args) == 0
    assert json.loads(job.record.read_text())["metrics"] == whole
    logs = [path.read_text() for path in job.folder.rglob("*.log")]
    assert sum("resumed from" in log and "after 4 iterations" in log for log in logs) == 1


def test_a_process_that_fails_is_shown_and_leaves_an_empty_cell(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(command: list[str], log: Path) -> int:
        log.write_text("a page of log\nerror: no memory\n")
        return 2

    launch_with(monkeypatch, no_memory)
    assert main(arguments(runs, runs / "out")) == 1
    printed = capsys.readouterr().out
    assert printed.count("failed with status 2") == printed.count("error: no memory") == 6
    assert "k-NN %" in printed


def test_one_transfer_as_a_process_of_its_own(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = bench(runs / "out", "--tasks", "classification", "--runs", str(runs), options=TINY)
    only = plan(args)[0].jobs()[-1:]
    monkeypatch.setattr(Planner, "jobs", lambda self: only)
    assert run_suite(args) == 0
    (folder,) = records_under(runs / "out")
    assert records_under(runs / "out")[folder]["hardware"]["threads"] == 1
    assert (folder / "log.txt").read_text().count("top1") == 1


def test_nothing_discovered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        line = refused(arguments(folder, tmp_path / "out"), capsys)
        assert "run `make demo` or `make pretrain` first" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--most", "0"], "--most must be at least 1"),
        (["--weights", "missing.pth"], "backbone 'missing.pth' does not exist"),
        (["--weights", "timm:vit", "timm:vit"], "--weights names a backbone twice"),
        (["--cfg-options", "train.epoch=3"], "unknown config key 'train.epoch'"),
        (["--cfg-options", "train"], "--cfg-options takes KEY=VALUE"),
        (["--tasks", "nothing"], "unknown task 'nothing'"),
    ],
)
def test_wrong_input(runs: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused([*arguments(runs, runs / "out"), *options], capsys)


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
