"""Evaluation while a classifier trains, and the choice of a checkpoint on a validation part."""

import argparse
import json
from pathlib import Path
from typing import Any

import cls_runs
import pytest
import torch
from cls_runs import run_transfer
from killed_transfers import in_iteration, killed
from PIL import Image
from run_samples import differences

from mlomae import cli
from mlomae.backbones.load import evaluate_transfer
from mlomae.backbones.on_the_way import Validation
from mlomae.backbones.task import Metric
from mlomae.backbones.transfer import transfer
from mlomae.common.checkpoint import TRANSFER_FORMAT, best_path, checkpoint_path, load_checkpoint, newest_checkpoint
from mlomae.common.errors import CheckpointError, ConfigError, DataError

LAST = 12
VAL: dict[str, Any] = {**cls_runs.TEXTURES, "split": "val", "count": 24}
BEST = {"data__val": VAL, "train__eval_interval": 3, "train__select": "best", "optim__lr": 0.1}


def rows(work: Path) -> list[dict[str, Any]]:
    return json.loads((work / "validation.json").read_text())["rows"]


@pytest.fixture(scope="module")
def plain(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("plain")
    run_transfer(cls_runs.config(), work)
    return work


@pytest.fixture(scope="module")
def best(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("best")
    run_transfer(cls_runs.config(**BEST), work)
    return work


def test_evaluating_on_the_way_changes_no_weight(plain: Path, tmp_path: Path) -> None:
    record = run_transfer(cls_runs.config(train__eval_interval=3), tmp_path)
    found, expected = (load_checkpoint(checkpoint_path(work, LAST), TRANSFER_FORMAT) for work in (tmp_path, plain))
    for part in ("modules", "optimizers", "rng", "logged"):
        assert differences(found[part], expected[part]) == []
    assert [row["step"] for row in rows(tmp_path)] == [3, 6, 9, 12]
    assert rows(tmp_path)[-1]["value"] == record["metrics"]["top1"]
    assert (
        cls_runs.predictions(tmp_path)["top_log_probs"].tolist()
        == cls_runs.predictions(plain)["top_log_probs"].tolist()
    )
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["test.top1"] for line in logged] == [row["value"] for row in rows(tmp_path)]
    assert not best_path(tmp_path).exists()


def test_the_best_on_the_validation_part_is_tested(best: Path) -> None:
    values = {row["step"]: row["value"] for row in rows(best)}
    metrics = json.loads((best / "record.json").read_text())["metrics"]
    chosen = metrics["chosen_iteration"]
    assert metrics["val_top1"] == values[chosen] == max(values.values())
    assert chosen == min(step for step, value in values.items() if value == max(values.values()))
    assert newest_checkpoint(best) == best_path(best)
    again = evaluate_transfer(best)
    assert {key: metrics[key] for key in again} == pytest.approx(again)
    state = load_checkpoint(best_path(best), TRANSFER_FORMAT, dict[str, Any])
    assert (state["iteration"], state["meta"]["task"]) == (chosen, "classification")
    last = load_checkpoint(checkpoint_path(best, LAST), TRANSFER_FORMAT)["modules"]
    assert bool(differences(state["modules"], last)) == (chosen != LAST), "the run goes on with its own weights"


@pytest.mark.parametrize("at", [4, 10])
def test_a_killed_run_chooses_the_same(best: Path, tmp_path: Path, at: int) -> None:
    run = lambda: run_transfer(cls_runs.config(**BEST), tmp_path, resume=True)  # noqa: E731
    killed(tmp_path, lambda: in_iteration(at), run)
    record = run()
    kept = json.loads((best / "record.json").read_text())
    assert record["metrics"] == kept["metrics"]
    assert rows(tmp_path) == rows(best)
    states = [load_checkpoint(best_path(work), TRANSFER_FORMAT, dict[str, Any]) for work in (tmp_path, best)]
    assert differences(*(state["modules"] for state in states)) == []


def test_the_first_of_the_best_is_chosen_by_the_direction_of_the_metric() -> None:
    found = Validation.__new__(Validation)
    found.rows = [{"step": i, "value": value} for i, value in enumerate((2.0, 3.0, 1.0, 3.0))]
    found.headline = Metric("top1", "top-1")
    assert found.best == found.rows[1]
    found.headline = Metric("error", "error", higher_is_better=False)
    assert found.best == found.rows[2]


def test_a_best_checkpoint_that_is_gone_is_said(best: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("iter_12.pth",):
        (tmp_path / "checkpoints" / name).write_bytes((best / "checkpoints" / name).read_bytes())
    with pytest.raises(CheckpointError, match=r"best\.pth' does not exist"):
        run_transfer(cls_runs.config(**BEST), tmp_path, resume=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train__select": "best"}, "set data.val and train.eval_interval"),
        ({"train__select": "best", "train__eval_interval": 3}, "set data.val and train.eval_interval"),
        ({"data__val": VAL}, "every train.eval_interval iterations"),
        ({"data__val": {"split": "val"}, "train__eval_interval": 3}, "data.val.type' is missing"),
        ({"train__eval_interval": 0}, "eval_interval"),
        ({"train__select": "good"}, "one of last, best"),
    ],
)
def test_keys_that_contradict_each_other_are_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        cls_runs.config(**changes)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_validation_part_must_be_other_images(tmp_path: Path, part: str) -> None:
    changes = {"data__val": cls_runs.values()["data"][part], "train__eval_interval": 3}
    with pytest.raises(DataError, match="would reach training"):
        run_transfer(cls_runs.config(**changes), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_configurations_without_it_keep_their_hashes() -> None:
    written = cls_runs.config().to_dict()
    assert not {"eval_interval", "select"} & set(written["train"])
    assert not {"val", "allow_seen"} & set(written["data"])
    assert "val" in cls_runs.config(**BEST).to_dict()["data"]


def test_predict_takes_the_chosen_weights(best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = cls_runs.opened(cls_runs.config(**BEST))
    Image.fromarray(steps.test.image(0).permute(1, 2, 0).numpy()).save(tmp_path / "0.png")
    assert cli.main(["predict", str(best), str(tmp_path / "0.png"), "--out", str(tmp_path / "p.csv")]) == 0
    probability = float((tmp_path / "p.csv").read_text().splitlines()[1].split(",")[2])
    expected = torch.tensor(cls_runs.predictions(best)["top_log_probs"][0, 0]).exp()
    assert probability == pytest.approx(float(expected), abs=1e-5)


def test_the_folder_of_the_command_line_is_that_of_the_validation_part_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("mlomae.backbones.transfer.run_transfer", lambda task, config, *rest: seen.append(config))
    parts = {
        f"data__{part}": {"type": "imagefolder", "root": "old", "split": part} for part in ("train", "val", "test")
    }
    path = cls_runs.write_config(tmp_path / "c.py", **parts, train__eval_interval=3)
    given = {"config": path, "weights": None, "seed": None, "cfg_options": [], "data": "new", "work_dir": tmp_path}
    transfer(cls_runs.TASK, argparse.Namespace(**given, resume=False, records=None))
    data = seen[0].data
    assert [part["root"] for part in (data.train, data.val, data.test)] == ["new"] * 3
