"""Tables: numbers by hand, the same bytes every time, nothing that is not a result."""

import csv
import io
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from record_samples import CONFIG, make_record

from benchmarks.analysis.tables import build as tables
from benchmarks.analysis.tables.__main__ import main
from benchmarks.analysis.tables.build import build_tables
from mlomae.common.errors import DataError
from mlomae.records import write_record


def run(method: str, seed: int, linear: float, images: int = 1000, **changes: Any) -> dict[str, Any]:
    config = {**CONFIG, "method": method, "images": images, **changes.pop("config", {})}
    metrics = {"linear_top1_cls": linear, "knn_top1_cls": linear - 10} | changes.pop("metrics", {})
    head = images // 10 if method == "mlo" else 0
    seen = {"lower": images, "head": head, "upper": head}
    name = f"{method}_{images}_{seed}"
    return make_record(method=method, seed=seed, name=name, config=config, metrics=metrics, images_seen=seen, **changes)


RUNS = [
    run("MAE", 0, 50.0),
    run("MAE", 1, 52.0, wall_clock_s=13.5),
    run("MAE", 0, 60.0, images=2000),
    run("mlo", 0, 55.0, metrics={"feedback_accuracy": 33.0, "feedback_chance": 10.0}),
    run("mlo", 1, 58.0, metrics={"feedback_accuracy": 35.0, "feedback_chance": 10.0}),
    run("oracle", 1, 59.0, images=1005),
    run("block", 0, 40.0, images=3000),
    run("block", 0, 70.0, dataset="textures", eval_source="textures"),
]


def write(folder: Path, runs: list[dict[str, Any]]) -> Path:
    for i, record in enumerate(runs):
        write_record(record, folder / f"{i}.json")
    return folder


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((out / "pretrain.csv").read_text(encoding="utf-8"))))


def pick(out: Path, **where: str) -> dict[str, str]:
    (row,) = [r for r in rows(out) if all(r[k] == v for k, v in where.items())]
    return row


@pytest.fixture
def out(tmp_path: Path) -> Path:
    build_tables(write(tmp_path / "runs", RUNS), tmp_path)
    return tmp_path


def test_means_deviations_and_differences(out: Path) -> None:
    mae = pick(out, method="MAE", images_seen="1000")
    assert mae["seeds"] == "2"
    assert mae["linear_top1_cls"] == "51.00"
    assert mae["linear_top1_cls_sd"] == "1.41"
    assert mae["wall_clock_s"] == "13.0"
    assert mae["linear_top1_cls_vs_mae"] == ""
    mlo = pick(out, method="mlo")
    assert mlo["images_seen"] == "1000"
    assert mlo["labelled_seen"] == "200"
    assert mlo["linear_top1_cls"] == "56.50"
    assert mlo["linear_top1_cls_vs_mae"] == "5.50"
    assert mlo["knn_top1_cls"] == "46.50"
    assert mlo["linear_top1_avg"] == ""  # not measured
    assert mlo["feedback_accuracy"] == "34.00"
    assert mlo["feedback_chance"] == "10.00"


def test_one_seed_has_no_deviation(out: Path) -> None:
    oracle = pick(out, method="oracle")
    assert oracle["linear_top1_cls_sd"] == ""
    assert oracle["linear_top1_cls_vs_mae"] == "7.00"  # 1005 images are within 1 % of 1000; MAE of this seed has 52
    assert "59.00 (n=1)" in (out / "pretrain.md").read_text(encoding="utf-8")


def test_no_difference_without_an_equal_baseline(out: Path) -> None:
    assert pick(out, method="block", dataset="cifar10")["linear_top1_cls_vs_mae"] == ""
    assert pick(out, method="block", dataset="textures")["linear_top1_cls_vs_mae"] == ""


def test_differences_are_of_common_seeds_and_of_runs_from_the_same_weights(tmp_path: Path) -> None:
    """Not of means over other seeds, nor of a run that began where another had ended."""
    runs = [run("MAE", 0, 50.0), run("MAE", 1, 90.0), run("mlo", 0, 55.0)]
    runs.append(run("continued", 0, 80.0, config={"init_from": "mae"}))
    build_tables(write(tmp_path / "runs", runs), tmp_path)
    assert pick(tmp_path, method="mlo")["linear_top1_cls_vs_mae"] == "5.00"
    assert pick(tmp_path, method="continued")["linear_top1_cls_vs_mae"] == ""


def test_other_model_or_evaluation_set_is_no_baseline(tmp_path: Path) -> None:
    runs = [run("MAE", 0, 50.0), run("mlo", 0, 55.0, config={"model": {"size": "small", "depth": None}})]
    build_tables(write(tmp_path / "a", runs), tmp_path)
    assert pick(tmp_path, method="mlo")["linear_top1_cls_vs_mae"] == ""
    build_tables(write(tmp_path / "b", [RUNS[0], run("mlo", 0, 55.0, eval_source="subset")]), tmp_path)
    assert pick(tmp_path, method="mlo")["linear_top1_cls_vs_mae"] == ""


def test_a_decoder_may_differ(tmp_path: Path) -> None:
    model = {"size": "tiny", "decoder_depth": 1}
    runs = [
        run("MAE", 0, 50.0, config={"model": model}),
        run("deeper", 0, 55.0, config={"model": {**model, "decoder_depth": 4}}),
    ]
    build_tables(write(tmp_path, runs), tmp_path / "out")
    assert pick(tmp_path / "out", method="deeper")["linear_top1_cls_vs_mae"] == "5.00"


def test_markdown_reads_as_a_table(out: Path) -> None:
    text = (out / "pretrain.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert len(table) == 2 + len(rows(out))
    assert "56.50 ± 2.12 | +5.50" in text
    assert "34.00 ± 1.41 (10.00)" in text


def test_bytes_do_not_depend_on_file_order_or_process(out: Path, tmp_path: Path) -> None:
    first = [(out / f"pretrain.{s}").read_bytes() for s in ("csv", "md")]
    assert all(b"\r" not in content and content.endswith(b"\n") for content in first)
    shuffled = RUNS.copy()
    for seed in range(3):
        random.Random(seed).shuffle(shuffled)
        build_tables(write(tmp_path / f"again{seed}", shuffled), tmp_path / f"out{seed}")
        assert [(tmp_path / f"out{seed}" / f"pretrain.{s}").read_bytes() for s in ("csv", "md")] == first
    command = [sys.executable, "-m", "benchmarks.analysis.tables", "--records", str(tmp_path / "runs"), "--out"]
    subprocess.run([*command, str(tmp_path / "cli")], cwd=Path(tables.__file__).parents[2], check=True)
    assert [(tmp_path / "cli" / f"pretrain.{s}").read_bytes() for s in ("csv", "md")] == first


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (run("mlo", 9, 55.0, demo=True), "is a demo run"),
        (run("mlo", 9, 55.0, task="juggling"), "task 'juggling'"),
        (run("MAE", 1, 53.0), "two records hold seed 1 of MAE"),
    ],
)
def test_refusals_write_nothing(
    tmp_path: Path, bad: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "runs", [*RUNS, bad])
    with pytest.raises(DataError, match=message):
        build_tables(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert main(["--records", str(folder), "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr().err
    assert captured.startswith("error: ")
    assert captured.count("\n") == 1


def test_no_records_give_empty_tables(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    build_tables(tmp_path / "runs", tmp_path)
    assert rows(tmp_path) == []
    assert (tmp_path / "pretrain.csv").read_text().startswith("dataset,method,")


def test_check_fails_on_a_hand_edited_table(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--records", str(tmp_path / "runs"), "--out", str(out), "--check"]
    assert main(arguments) == 0
    table = out / "pretrain.md"
    table.write_text(table.read_text(encoding="utf-8").replace("56.50", "99.50"), encoding="utf-8")
    assert main(arguments) == 2
    assert "pretrain.md" in capsys.readouterr().err
    assert "99.50" in table.read_text(encoding="utf-8")  # checking writes nothing
