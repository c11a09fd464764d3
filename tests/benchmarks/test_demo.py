"""`make demo`: MAE, MAE of the same wall-clock, MLO-MAE and random weights through every bench, one table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from pretrained_samples import pretrain, table_rows
from single_thread import one_thread

from benchmarks import demo
from benchmarks.transfer.embedded import Bench
from benchmarks.transfer.found import Backbone
from mlomae.cli import main

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def pretrained(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("demo")
    rows = []
    for seconds, (name, method) in enumerate({"a": "MAE", "b": "MAE longer", "c": "MLO-MAE"}.items(), 7):
        path = pretrain(folder / name, method=method)
        rows.append((path.parent.parent, {"wall_clock_s": float(seconds)}))
    return rows


def transfers(fail: str = "") -> Any:
    """Stands in for the transfers; the metric of every backbone is its place."""

    def run(bench: Bench, backbones: list[Backbone], out: Path, options: dict, jobs: int) -> Any:
        assert jobs == 1
        assert out.name == bench.task
        metrics = [{metric: 10.0 * place for _, metric in bench.columns.values()} for place in range(len(backbones))]
        found = {
            (b, title): {"metrics": metrics[place]}
            for place, b in enumerate(backbones)
            for title in bench.recipes
            if title != fail
        }
        return found, not (fail and fail in bench.recipes)

    return run


@pytest.mark.parametrize(("fail", "status"), [("", 0), ("UperNet", 1)])
def test_one_table_of_all_tasks(
    fail: str,
    status: int,
    pretrained: list[tuple[Path, dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "pretrain_rows", lambda work_dir, iterations: pretrained)
    monkeypatch.setattr(demo, "transfer_all", transfers(fail))
    assert main(["demo", "--work-dir", str(tmp_path), "--jobs", "1"]) == status
    said = capsys.readouterr().out
    rows = table_rows(said)
    assert said.count("backbone") == 1
    assert all(column in said for column in demo.SHOWN)
    assert len(rows) == 4
    for place, (row, method) in enumerate(zip(rows, ["MAE", "MAE longer", "MLO-MAE", "random"], strict=True)):
        shown = [f"{10.0 * place:.1f}"] * (5 if fail else 6)
        assert method in row
        assert row.split()[-len(shown) :] == shown
        assert row.split()[-len(shown) - 1] == str([7, 8, 9, 0][place])


def test_jobs_must_be_positive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--work-dir", str(tmp_path), "--jobs", "0"]) == 2
    assert "--jobs must be at least 1" in capsys.readouterr().err


@pytest.mark.slow
def test_pretraining_for_the_same_wall_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knn = {"k-NN": demo.CLASSIFICATION.recipes["k-NN"]}
    only = dataclasses.replace(demo.CLASSIFICATION, recipes=knn, columns={"k-NN": ("k-NN", "top1")})
    monkeypatch.setattr(demo, "BENCHES", (only,))
    assert demo.run_demo(tmp_path, iterations=2) == 0
    folders = sorted(path.name for path in tmp_path.iterdir() if (path / "record.json").is_file())
    records = [json.loads((tmp_path / name / "record.json").read_text()) for name in folders]
    assert [name.split("_")[0] for name in folders] == ["mae", "mae", "mlo-mae"]
    same_time = next(r for r in records if r["method"] == "MAE, same wall-clock")
    assert same_time["outer_iterations"] == int(folders[1].rsplit("_", 1)[1])
    assert all(r["demo"] for r in records)
    assert len(list(tmp_path.glob("transfer/classification/*/*/*/record.json"))) == 4
