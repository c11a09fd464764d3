"""The rows of the comparison table: what is compared with what, numbers by hand."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from comparison_samples import HASH, LONG, MLO, PRETRAININGS, TRANSFERS, build, one, rows_of, transfer, write
from prediction_samples import write_classified, write_segmented

from benchmarks.analysis.comparable import METRICS
from benchmarks.analysis.statistics import seed_interval
from benchmarks.analysis.tables.pretrain_tables import MIN_HEADROOM
from mlomae.records import RANDOM

ROOT = Path(__file__).parents[4]


def test_numbers_by_hand(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, PRETRAININGS, metric="knn_top1_avg")
    mlo = one(rows, method=MLO)
    assert (mlo["pretraining_dataset"], mlo["task"], mlo["dataset"], mlo["protocol"]) == (
        "cifar10", "pretrain", "cifar10", "frozen",
    )  # fmt: skip
    assert (mlo["seeds"], mlo["mean"], mlo["sd"]) == ("3", "75.00", "4.36")
    expected = seed_interval([28.0, 37.0, 25.0])
    assert (mlo["difference"], mlo["pairs"], mlo["interval"]) == ("+30.00", "3", "seeds")
    assert (mlo["low"], mlo["high"]) == (f"{expected.low:+.2f}", f"{expected.high:+.2f}")
    assert mlo["p"] == f"{expected.p:.3g}"
    assert mlo["share_of_headroom"] == "0.75"  # 30 of 40
    assert (mlo["pretraining_images_seen"], mlo["pretraining_cpu_s"], mlo["pretraining_wall_clock_s"]) == (
        "1000", "21.0", "30.0",
    )  # fmt: skip
    assert mlo["pretraining_config"] == mlo["config_hash"] == HASH[MLO, 1000]
    mae = one(rows, method="MAE", pretraining_images_seen="1000")
    assert (mae["difference"], mae["p"], mae["interval"], mae["share_of_headroom"]) == ("", "", "", "")
    oracle = one(rows, method="oracle")
    assert (oracle["difference"], oracle["share_of_headroom"]) == ("+40.00", "1.00")


def test_equal_images_are_the_reference_and_the_longer_run_has_the_mae_below_it(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, PRETRAININGS, metric="knn_top1_avg")
    longer = one(rows, method=LONG)
    assert (longer["difference"], longer["pairs"]) == ("+10.00", "1")  # 60 - 50, not 60 - 90
    assert (longer["low"], longer["p"], longer["interval"]) == ("", "", "none")  # one seed, no predictions
    assert one(rows, method="block")["difference"] == ""  # no MAE of 2,000 images


def test_seeds_that_agree_exactly_are_no_evidence(tmp_path: Path) -> None:
    """All linear probes differ by nothing at all: no interval of width 0, and no p."""
    row = one(rows_of(tmp_path, PRETRAININGS), metric="linear_top1_avg", method=MLO)
    assert (row["difference"], row["low"], row["p"], row["p_holm"], row["interval"]) == ("+0.00", "", "", "", "none")


def test_p_of_few_seeds_is_neither_corrected_nor_marked(tmp_path: Path) -> None:
    """Three that agree by chance make it far too small: in simulations of equal methods 20 times its level and more."""
    rows = [row for row in rows_of(tmp_path, PRETRAININGS) if row["p"]]
    assert rows
    assert not any(row["p_holm"] for row in rows)
    assert "for the 0 comparisons of `comparison.csv` of 5 seeds" in (tmp_path / "comparison.md").read_text()


def test_p_is_corrected_for_all_rows_of_enough_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.analysis.tables.comparison.ENOUGH", 3)
    rows = [row for row in rows_of(tmp_path, PRETRAININGS) if row["p"]]
    assert len(rows) == 2  # MLO and the oracle, k-NN
    smaller, larger = sorted(rows, key=lambda row: float(row["p"]))
    assert float(smaller["p_holm"]) == pytest.approx(2 * float(smaller["p"]), rel=0.05)
    assert float(larger["p_holm"]) == pytest.approx(max(float(larger["p"]), float(smaller["p_holm"])), rel=0.05)
    page = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert "for the 2 comparisons" in page
    marked = {row["method"] for row in rows if float(row["p_holm"]) < 0.05}
    assert {line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if "†" in line[2:]} >= marked
    assert marked


def test_a_transfer_belongs_to_the_pretraining_of_its_backbone(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [*PRETRAININGS, *TRANSFERS])
    probes, transfers = ([r for r in rows if (r["task"] == "pretrain") == kind] for kind in (True, False))
    assert {r["pretraining_setting"] for r in probes} == {r["pretraining_setting"] for r in transfers}
    mlo = one(transfers, method=MLO)
    assert (mlo["difference"], mlo["pretraining_config"]) == ("+9.50", HASH[MLO, 1000])  # 8 and 11
    assert (mlo["recipe"], mlo["protocol"], mlo["metric"]) == ("linear_cub", "linear", "top1")
    assert mlo["share_of_headroom"] == "0.63"  # 9.5 of 15
    assert (mlo["pretraining_cpu_s"], mlo["pretraining_wall_clock_s"]) == ("100.0", "200.0")
    assert one(transfers, method=LONG)["difference"] == "+3.00"
    floor = one(transfers, method=RANDOM)
    assert (floor["pretraining_dataset"], floor["difference"], floor["pretraining_images_seen"]) == (
        "cifar10", "-24.00", "0",
    )  # fmt: skip


def test_backbones_of_other_data_have_a_table_of_their_own_with_the_floor_in_both(tmp_path: Path) -> None:
    other = [transfer("block", 0, 45.0, pretrained_on="textures")]
    other += [transfer("timm:vit", 0, 70.0, images=None, pretrained_on="")]
    rows = rows_of(tmp_path, [*PRETRAININGS, *TRANSFERS, *other], task="classification")
    floors = [r for r in rows if r["method"] == RANDOM]
    assert sorted(r["pretraining_dataset"] for r in floors) == ["", "cifar10", "textures"]
    assert [r["difference"] for r in floors if r["pretraining_dataset"] == "textures"] == [""]  # no MAE of these data
    assert one(rows, method="block")["difference"] == ""
    assert one(rows, method="timm:vit")["difference"] == ""
    page = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    heads = [line.split(", setting")[0] for line in page.splitlines() if line.startswith("## ")]
    assert heads == ["## Pretrained on cifar10", "## Pretrained on textures", "## Other weights", "## Published"]
    sections = page.split("\n## ")
    assert "| timm:vit |" not in sections[1] + sections[2]
    assert all(f"| {RANDOM} |" in section for section in sections[1:4])


def test_other_transfer_settings_are_not_compared(tmp_path: Path) -> None:
    changed = [transfer(MLO, 5, 60.0), transfer("MAE", 5, 50.0, eval_source="cub200 test, 9 images")]
    rows = rows_of(tmp_path, [*PRETRAININGS, *changed], task="classification")
    assert len({r["transfer_setting"] for r in rows}) == 2
    assert [r["difference"] for r in rows] == ["", ""]
    page = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert all(f"setting {r['transfer_setting']}" in page for r in rows)  # two columns of the same name


def test_predictions_make_the_interval_one_of_images_and_seeds(tmp_path: Path) -> None:
    runs = write(tmp_path / "runs", PRETRAININGS)
    for method in ("MAE", MLO):
        for seed in (0, 1):
            given: dict[str, Any] = {"pretraining": HASH[method, 1000], "images": 1000}
            write_classified(runs, f"{method[:3]}_{seed}", method, seed, 0.9 if method == MLO else 0.5, **given)
            write_segmented(runs, f"seg_{method[:3]}_{seed}", method, seed, **given)
    rows = build(runs)
    top1, miou = one(rows, metric="top1", method=MLO), one(rows, metric="mIoU", method=MLO)
    assert top1["interval"] == miou["interval"] == "images and seeds"
    assert float(top1["low"]) < float(top1["difference"]) < float(top1["high"])
    classification = (tmp_path / "classification.csv").read_text(encoding="utf-8")
    assert f",{top1['difference']}," in classification  # the same mean as in the task's own table
    assert "<sup>is</sup>" in (tmp_path / "comparison.md").read_text(encoding="utf-8")

    (runs / "predictions" / "MAE_1.npz").unlink()  # of one run of four
    assert one(build(runs), metric="top1", method=MLO)["interval"] == "seeds"
    for name in ("MAE_1", "MLO_1"):
        (runs / f"{name}.json").unlink()
    (runs / "predictions" / "MLO_1.npz").unlink()
    single = one(build(runs), metric="top1", method=MLO)
    assert (single["interval"], single["pairs"]) == ("images", "1")
    assert single["low"]


def test_flops_are_of_whole_pretrainings(tmp_path: Path) -> None:
    (tmp_path / "flops.json").write_text(
        json.dumps({HASH[MLO, 1000]: {"lower_step": 1, "upper": 0, "total": 1500000000000000, "batch": 8}})
    )
    early = transfer(MLO, 1, 50.0, iteration=250)
    rows = rows_of(tmp_path, [*PRETRAININGS, transfer(MLO, 0, 60.0), early, transfer(RANDOM, 0, 1.0)])
    assert one(rows, metric="knn_top1_avg", method=MLO)["pretraining_flops"] == "1.5e+15"
    assert one(rows, metric="knn_top1_avg", method="block")["pretraining_flops"] == ""
    flops = {r["mean"]: r["pretraining_flops"] for r in rows if r["metric"] == "top1"}
    assert flops == {"60.00": "1.5e+15", "50.00": "", "1.00": "0"}


def test_the_records_that_ship_give_the_shares_of_the_headroom_table(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "results" / "runs", tmp_path / "runs")
    shutil.copy(ROOT / "results" / "numerics.json", tmp_path)
    rows = build(tmp_path / "runs")
    headroom = list(csv.DictReader(io.StringIO((tmp_path / "headroom.csv").read_text(encoding="utf-8"))))
    shares = {(r["config_hash"], m): r[f"{m}_share"] for r in headroom for m in METRICS}
    found = {(r["config_hash"], r["metric"]): r["share_of_headroom"] for r in rows if r["task"] == "pretrain"}
    without = {key for key, share in shares.items() if not share}
    baselines = {(r["config_hash"], m) for r in headroom if r["method"] == "MAE" for m in METRICS}
    gains = {(r["config_hash"], m): r[f"{m}_vs_mae"] for r in headroom for m in METRICS}
    assert baselines <= without
    group = {r["config_hash"]: (r["dataset"], r["schedule"]) for r in headroom}
    oracles = [r["config_hash"] for r in headroom if r["method"].startswith("oracle")]
    for digest, m in without - baselines:
        rooms = [float(gains[oracle, m]) for oracle in oracles if group[oracle] == group[digest]]
        assert max(rooms) < MIN_HEADROOM, "an oracle gains too little there"
    assert {key: found[key] for key in shares} == shares
    assert "No published number is comparable" in (tmp_path / "comparison.md").read_text(encoding="utf-8")
