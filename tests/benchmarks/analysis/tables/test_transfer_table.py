"""The table of transfers: numbers by hand, what is compared with what, the same bytes every time."""

import itertools
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from record_samples import make_record
from scipy import stats
from table_samples import table_files, table_rows

from benchmarks.analysis.tables.build import build_tables, check_tables
from benchmarks.analysis.tables.transfer_table import transfer_table
from benchmarks.tasks import get_task
from mlomae.common.errors import DataError
from mlomae.records import RANDOM, config_hash, write_record

RECIPE: dict[str, Any] = {
    "name": "knn_cub",
    "seed": 0,
    "protocol": "knn",
    "data": {"train": {"type": "cub200", "split": "train"}, "batch_size": 64},
    "backbone": {"weights": None, "img_size": 224, "model": None},
}


classification_table = partial(table_files, "classification")


def run(method: str, seed: int, top1: float, lr: float = 1.0, **changes: Any) -> dict[str, Any]:
    protocol = changes.pop("protocol", "knn")
    weights = {"method": method, "config_hash": changes.pop("pretraining", "f" * 16), "iteration": 500}
    backbone = {**RECIPE["backbone"], "weights": weights, "model": {"depth": 4} if method == RANDOM else None}
    known = {} if method == RANDOM else {"images_seen": 64000, "clock": {"wall": 200.0, "cpu": 100.0 + seed}}
    record = make_record(
        method=method,
        seed=seed,
        name=f"{protocol}_cub",
        task="classification",
        dataset="cub200",
        config={**RECIPE, "seed": seed, "protocol": protocol, "backbone": backbone, "optim": {"lr": lr}},
        metrics={"top1": top1, "top5": 90.0, "mean_per_class": top1 - 1.0},
        train_source="cub200 train at CUB, 5994 images",
        eval_source="cub200 test at CUB, 5794 images",
        cpu_s=10.0 + seed,
    )
    return {**record, "pretrained": known, **changes}


MLO = "MLO-MAE (nca)"
RUNS = [
    *(run("MAE", seed, top1) for seed, top1 in enumerate([50.0, 40.0, 45.0])),
    *(run(MLO, seed, top1) for seed, top1 in enumerate([78.0, 77.0, 70.0])),
    *(run(RANDOM, seed, top1) for seed, top1 in enumerate([20.0, 22.0])),
    run("timm:vit | tiny", 0, 60.0, pretrained={}),
]


def rows(runs: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    found = table_rows("classification", runs)
    table = {row["method"]: row for row in found}
    assert len(table) == len(found)
    return table


def test_numbers_by_hand() -> None:
    mlo = rows(RUNS)[MLO]
    assert mlo["seeds"] == "3"
    assert (mlo["dataset"], mlo["recipe"], mlo["protocol"]) == ("cub200", "knn_cub", "knn")
    assert (mlo["top1"], mlo["top1_sd"]) == ("75.00", "4.36")  # of 78, 77, 70: sqrt(38 / 2)
    assert (mlo["top5"], mlo["top5_sd"], mlo["mean_per_class"]) == ("90.00", "0.00", "74.00")
    assert (mlo["pretraining_images_seen"], mlo["pretraining_cpu_s"], mlo["transfer_cpu_s"]) == (
        "64000",
        "101.0",
        "11.0",
    )
    assert (mlo["top1_vs_mae"], mlo["top1_vs_mae_seeds"]) == ("+30.00", "3")  # 28, 37, 25
    assert (mlo["top1_vs_random"], mlo["top1_vs_random_seeds"]) == ("+56.50", "2")  # 58, 55; no third floor


def test_the_interval_is_students() -> None:
    expected = stats.ttest_1samp([28.0, 37.0, 25.0], 0.0).confidence_interval(0.95)
    mlo = rows(RUNS)[MLO]
    assert (mlo["top1_vs_mae_low"], mlo["top1_vs_mae_high"]) == (f"{expected.low:+.2f}", f"{expected.high:+.2f}")
    assert f"+30.00 [{expected.low:+.2f}, {expected.high:+.2f}] (n=3)" in classification_table(RUNS)[1]


def test_what_is_not_known_is_empty_and_nothing_is_compared_with_itself() -> None:
    table = rows(RUNS)
    floor, timm = table[RANDOM], table["timm:vit | tiny"]
    assert (floor["pretraining_images_seen"], floor["pretraining_cpu_s"]) == ("0", "0.0")
    assert (timm["pretraining_images_seen"], timm["pretraining_cpu_s"], timm["top1_sd"]) == ("", "", "")
    assert (timm["top1_vs_mae"], timm["top1_vs_mae_low"]) == ("+10.00", "")
    assert "+10.00 (one seed)" in classification_table(RUNS)[1]
    assert floor["top1_vs_random"] == table["MAE"]["top1_vs_mae"] == ""
    assert floor["top1_vs_mae"] == "-24.00"  # -30 and -18


def test_costs_are_empty_if_one_seed_does_not_know_its_own() -> None:
    mlo = rows([run(MLO, 0, 70.0), run(MLO, 1, 70.0, pretrained={})])[MLO]
    assert (mlo["pretraining_images_seen"], mlo["pretraining_cpu_s"]) == ("", "")


@pytest.mark.parametrize(
    "other",
    [
        run("MAE", 0, 50.0, dataset="flowers102"),
        run("MAE", 0, 50.0, train_source="cub200 train at CUB, 1000 images"),
        run("MAE", 0, 50.0, eval_source="cub200 test at CUB, 100 images"),
        run("MAE", 0, 50.0, name="knn_cub_small"),
        run("MAE", 0, 50.0, lr=2.0),
        run("MAE", 0, 50.0, protocol="linear"),
        run("MAE", 1, 50.0),
    ],
)
def test_no_difference_across_data_recipes_protocols_or_seeds(other: dict[str, Any]) -> None:
    assert rows([run(MLO, 0, 70.0), run("MAE", 0, 50.0)])[MLO]["top1_vs_mae"] == "+20.00"
    mlo = rows([run(MLO, 0, 70.0), other])[MLO]
    assert (mlo["top1_vs_mae"], mlo["top1_vs_mae_seeds"]) == ("", "0")


def test_seeds_of_other_pretrainings_are_rows_of_their_own() -> None:
    runs = [*RUNS[:2], run(MLO, 0, 70.0), run(MLO, 1, 90.0, pretraining="e" * 16)]
    found = [r for r in table_rows("classification", runs) if r["method"] == MLO]
    assert sorted((r["top1"], r["top1_vs_mae"]) for r in found) == [("70.00", "+20.00"), ("90.00", "+50.00")]


def test_the_order_of_records_changes_nothing() -> None:
    runs = [*RUNS[2:6], run(MLO, 0, 60.0, protocol="linear"), run("MAE", 0, 50.0, lr=2.0, name="knn_cub_lr2")]
    assert {classification_table(list(order)) for order in itertools.permutations(runs)} == {classification_table(runs)}


@pytest.mark.parametrize("changes", [{}, {"pretraining": "e" * 16}, {"eval_source": "another test set"}])
def test_a_run_recorded_twice_is_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"two records hold seed 1 of MAE on cub200 with recipe 'knn_cub' \(knn\)"):
        classification_table([*RUNS, run("MAE", 1, 53.0, **changes)])
    classification_table([*RUNS, run("MAE", 1, 53.0, protocol="linear"), run("MAE", 1, 53.0, dataset="flowers102")])


def test_a_record_without_accuracies_is_an_error() -> None:
    with pytest.raises(DataError, match="of MAE lacks the metric 'top5'"):
        classification_table([run("MAE", 0, 50.0, metrics={"top1": 50.0})])


def test_markdown_reads_as_a_table() -> None:
    text = classification_table(RUNS)[1]
    lines = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    assert "75.00 ± 4.36" in text
    assert "60.00 (n=1)" in text
    assert "nan" not in text


def test_copies_of_test_images_are_a_column_where_they_were_looked_for() -> None:
    assert "copies" not in rows(RUNS)["MAE"]
    counts = {"compared": 10, "equal": 1, "near": 2}
    own = {"training": counts, "pretraining": "unknown"}
    others = [run("MAE", 7, 50.0, copies=own), run("MAE", 8, 50.0, copies={**own, "pretraining": counts})]
    allowed = run("block", 0, 50.0, copies={"training": counts})
    allowed["config"] = {**allowed["config"], "data": {**RECIPE["data"], "allow_near_copies": True}}
    table = rows([run(MLO, 0, 50.0), *others, allowed])
    assert table[MLO]["copies"] == ""
    said = "1 equal, 2 near of 10"
    assert table["MAE"]["copies"] == f"training: {said}; pretraining: unknown; pretraining: {said}"
    assert table["block"]["copies"] == f"near ones allowed; training: {said}"
    page = classification_table([*others, allowed])[1]
    assert "| test images that training has too |" in page
    assert f"| near ones allowed; training: {said} |" in page


def test_no_records_give_an_empty_table() -> None:
    names = [column.name for column in transfer_table(get_task("classification")).columns if not column.optional]
    assert classification_table([])[0].splitlines() == [",".join(names)]


def test_it_is_one_of_the_tables(tmp_path: Path) -> None:
    for i, record in enumerate(RUNS):
        write_record(record, tmp_path / "runs" / f"{i}.json")
    build_tables(tmp_path / "runs", tmp_path)
    check_tables(tmp_path / "runs", tmp_path)
    assert (tmp_path / "classification.csv").read_text(encoding="utf-8") == classification_table(RUNS)[0]


def test_making_tables_needs_no_torch() -> None:
    code = "import sys, benchmarks.analysis.tables; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[4])


def test_another_task_has_its_own_metrics_and_compares_the_first_of_them() -> None:
    def scenes(method: str, seed: int, miou: float) -> dict[str, Any]:
        record = run(method, seed, 0.0, metrics={"mIoU": miou, "mAcc": miou + 5, "aAcc": miou + 20})
        return {**record, "task": "segmentation", "name": "upernet"}

    runs = [scenes("MAE", 0, 30.0), scenes(MLO, 0, 34.0)]
    rows = {r["method"]: r for r in table_rows("segmentation", runs)}
    assert (rows[MLO]["mIoU"], rows[MLO]["mAcc"], rows[MLO]["aAcc"]) == ("34.00", "39.00", "54.00")
    assert (rows[MLO]["mIoU_vs_mae"], rows["MAE"]["mIoU_vs_mae"]) == ("+4.00", "")
    assert "top1_vs_mae" not in rows[MLO]


def test_an_attentive_probe_is_no_linear_head() -> None:
    attentive = run("MAE", 0, 50.0, protocol="linear")
    attentive["config"]["pooling"] = "attentive"
    attentive["config_hash"] = config_hash(attentive["config"])
    page = classification_table([attentive, run(MLO, 0, 60.0, protocol="linear")])[1]
    assert "| attentive probe |" in page
    assert "| linear head (SGD/LARS) |" in page
