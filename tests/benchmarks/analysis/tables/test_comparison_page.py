"""The comparison as files: published numbers apart, the same bytes every time, nothing edited, nothing of demos."""

import random
from pathlib import Path

import pytest
from comparison_samples import MLO, PRETRAININGS, TRANSFERS, build, one, pretraining, rows_of, transfer, write
from prediction_samples import transfer_record

from benchmarks.analysis.tables.__main__ import main
from benchmarks.analysis.tables.build import build_tables, check_tables
from benchmarks.analysis.tables.comparison_table import cost_row, marked
from mlomae.common.errors import DataError
from mlomae.records import config_hash


def test_published_numbers_are_beside_what_agrees_and_else_in_a_table_of_their_own(tmp_path: Path) -> None:
    head = "method,backbone,pretrain_epochs,task,dataset,metric,value,evidence,source,note\n"
    line = "MAE,vit_base,{},classification,imagenet1k,{},{},{},them,\n"
    kinds = [(800, "finetune_top1", 83.3, "primary"), (1600, "finetune_top1", 83.6, "secondary")]
    kinds += [("", "linear_top1", 68.0, "primary")]
    published = tmp_path / "published.csv"
    published.write_text(head + "".join(line.format(*kind) for kind in kinds))
    before = published.read_bytes()
    model = {"model": {"size": "base", "img_size": 224, "patch_size": 16}}
    sources = {"dataset": "imagenet", "train_source": "train, 9 images", "eval_source": "val, 8 images"}
    whole = pretraining("MAE", 0, 50.0, config=model, **sources)
    tuned = transfer_record("MAE", 0, {"top1": 83.0, "top5": 99.0, "mean_per_class": 83.0}, name="finetune_imagenet",
                            pretraining=whole["config_hash"], pretrained_on="imagenet", dataset="imagenet")  # fmt: skip
    rows = rows_of(tmp_path, [whole, {**tuned, **sources}])
    row = one(rows, metric="top1")
    assert (row["published_primary"], row["published_secondary"]) == ("83.3 (800 epochs)", "83.6 (1600 epochs)")
    assert row["mean"] == "83.00"
    page = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    beside, own = page.split("## Published")
    assert "published (primary)" in beside
    assert "No published number is comparable" not in page
    assert own.count("| MAE |") == 1
    assert "68.0" in own
    assert published.read_bytes() == before


def test_costs_are_of_the_row_of_most_seeds_that_knows_them(tmp_path: Path) -> None:
    few, most, unknown = ({"seeds": n, "pretraining_cpu_s": s} for n, s in ((1, "100.0"), (3, "21.0"), (5, "")))
    assert cost_row([few, unknown, most], "cpu_s") is most
    assert cost_row([unknown], "cpu_s") is unknown
    once = transfer("MAE", 0, 50.0)  # whose backbone's clock says 100 s
    build(write(tmp_path / "runs", [*PRETRAININGS, once]))
    page = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith("| MAE | ") and "(3)" in line)
    assert line.split(" | ")[2:4] == ["1000", "21.0"]


@pytest.mark.parametrize(("p", "interval", "shown"), [
    ("1e-9", "images and seeds", True),
    ("1e-9", "seeds", True),
    ("0.05", "seeds", False),
    ("", "images and seeds", False),  # few seeds
])  # fmt: skip
def test_a_difference_is_marked_by_its_corrected_p(p: str, interval: str, shown: bool) -> None:
    assert marked({"p_holm": p, "interval": interval}) is shown


def test_runs_whose_training_may_have_near_copies_are_marked(tmp_path: Path) -> None:
    records = [transfer("MAE", seed, 50.0 + seed) for seed in (0, 1)]
    records[1]["config"]["data"] = {"allow_near_copies": True}
    records[1]["config_hash"] = config_hash(records[1]["config"])
    build(write(tmp_path / "runs", [*PRETRAININGS, *records]))
    (titles,) = {
        line for line in (tmp_path / "comparison.md").read_text().splitlines() if "top-1" in line and "|" in line
    }
    marked_ones = [title for title in titles.split(" | ") if "near copies allowed" in title]
    assert len(marked_ones) == 1
    assert "top-1" in marked_ones[0]


def test_bytes_do_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    records = [*PRETRAININGS, *TRANSFERS]
    build(write(tmp_path / "a" / "runs", records))
    build(tmp_path / "a" / "runs")
    random.Random(0).shuffle(records)
    build(write(tmp_path / "b" / "runs", records))
    for name in ("comparison.csv", "comparison.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_comparison_edited_by_hand_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = write(tmp_path / "runs", PRETRAININGS)
    build(runs)
    check_tables(runs, tmp_path)
    for name in ("comparison.csv", "comparison.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("+30.00", "+31.00"), encoding="utf-8")
        assert main(["--records", str(runs), "--out", str(tmp_path), "--check"]) == 2
        assert f"{name}' is not what the records give" in capsys.readouterr().err
        (tmp_path / name).write_text(text, encoding="utf-8")
    check_tables(runs, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("published.csv", "a,b\n", "must have the columns"), ("flops.json", "[]", "does not hold what")],
)
def test_damage_beside_the_records_writes_nothing(tmp_path: Path, name: str, content: str, message: str) -> None:
    runs = write(tmp_path / "runs", PRETRAININGS[:2])
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        build_tables(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert main(["--records", str(runs), "--out", str(tmp_path / "out")]) == 2


def test_a_demo_is_refused(tmp_path: Path) -> None:
    runs = write(tmp_path / "runs", [*PRETRAININGS, pretraining(MLO, 9, 99.0, demo=True)])
    with pytest.raises(DataError, match="is a demo run"):
        build_tables(runs, tmp_path / "out")
