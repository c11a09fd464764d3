"""Runs on different data are neither pooled nor compared, whatever their formats and folders are called."""

import csv
from pathlib import Path
from typing import Any

import comparison_samples as samples
import pytest
from record_samples import make_record

from benchmarks.analysis.data_sets import OWN_FORMATS
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.tables.build import build_tables
from mlomae.data.registry import find_dataset, list_datasets

PETS = {"type": "imagefolder", "root": "/home/someone/pets"}


def described(content: str, images: int = 50_000, name: str = "pets") -> dict[str, Any]:
    return {"name": name, "images": images, "classes": "c" * 32, "pixels": "p" * 32, "content": content * 32}


def pretraining(method: str, seed: int, knn: float, data: str | None, **changes: Any) -> dict[str, Any]:
    """On two folders of one name; ``data`` tells their content apart, None is of a version that did not."""
    config = {"data": {"train": PETS, "eval": {**PETS, "split": "test"}}}
    sources = {"train_source": "imagefolder train, 60 images", "eval_source": "imagefolder test, 20 images"}
    known = {} if data is None else {"data": {"train": described(data, 60), "eval": described(data, 20)}}
    mask = "learned" if method == samples.MLO else "random"
    values = {"name": f"{method}_{data}", "dataset": "pets", "mask": mask, **sources, **known, **changes}
    return dict(samples.pretraining(method, seed, knn, config=config, **values))


def table(tmp_path: Path, name: str, records: list[dict[str, Any]]) -> list[dict[str, str]]:
    build_tables(samples.write(tmp_path / "runs", records), tmp_path)
    with open(tmp_path / f"{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_one_name_and_two_contents_are_two_rows_under_two_headings(tmp_path: Path) -> None:
    cats = [pretraining("MAE", seed, 80.0 + seed, "a") for seed in range(2)]
    breeds = [pretraining("MAE", seed, 50.0 + seed, "b") for seed in range(2)]
    breeds += [pretraining(samples.MLO, seed, 60.0 + seed, "b") for seed in range(2)]
    assert len({r["config_hash"] for r in cats + breeds[:2]}) == 1, "their configurations say nothing of it"
    rows = table(tmp_path, "pretrain", cats + breeds)
    found = {(row["method"], row["knn_top1_avg"], row["seeds"]) for row in rows}
    assert found == {("MAE", "80.50", "2"), ("MAE", "50.50", "2"), (samples.MLO, "60.50", "2")}
    assert len({row["dataset"] for row in rows}) == 2
    assert all(row["dataset"].startswith("pets [") for row in rows)
    with open(tmp_path / "differences.csv", encoding="utf-8") as file:
        (difference,) = csv.DictReader(file)
    assert (difference["method"], difference["knn_top1_avg"]) == (samples.MLO, "+10.00"), "of the same breeds"
    headings = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert all(row["dataset"] in headings for row in rows)


def test_without_their_content_they_would_be_pooled(tmp_path: Path) -> None:
    records = [pretraining("MAE", seed, 80.0 - 30.0 * seed, None) for seed in range(2)]
    (row,) = table(tmp_path, "pretrain", records)
    assert (row["dataset"], row["knn_top1_avg"]) == ("pets", "65.00")


def test_only_the_test_images_differ(tmp_path: Path) -> None:
    records = [pretraining("MAE", seed, 50.0, "a") for seed in range(2)]
    records[1]["data"]["eval"] = described("d", 20)
    assert sorted(row["seeds"] for row in table(tmp_path, "pretrain", records)) == ["1", "1"]


def test_backbones_of_one_configuration_and_two_data_sets_are_two_rows(tmp_path: Path) -> None:
    transfers = []
    for content, top1 in (("a", 70.0), ("b", 50.0)):
        record = samples.transfer("MAE", 0, top1)
        record["pretrained"] |= {"dataset": "pets", "data": {"train": described(content)}}
        transfers.append(record)
    learned = samples.transfer(samples.MLO, 0, 60.0)
    learned["pretrained"] |= {"dataset": "pets", "data": {"train": described("b")}}
    rows = table(tmp_path, "classification", [*transfers, learned])
    assert {row["top1"] for row in rows if row["method"] == "MAE"} == {"70.00", "50.00"}
    names = {row["config_hash"].partition(" ")[2] for row in rows if row["method"] == "MAE"}
    assert names == {f"(pretrained on pets [{content * 6}])" for content in "ab"}
    (row,) = [row for row in rows if row["method"] == samples.MLO]
    assert row["top1_vs_mae"] == "+10.00", "against MAE of the same images alone"


@pytest.mark.parametrize("contents", [["a"], ["a", "b"]])
def test_records_of_a_published_set_that_do_not_say_join_those_that_do_if_these_agree(
    contents: list[str], tmp_path: Path
) -> None:
    old = samples.pretraining("MAE", 0, 40.0, train_source="cifar10 train, 50000 images")
    new = []
    for seed, content in enumerate(contents, 1):
        new.append(samples.pretraining("MAE", seed, 50.0, train_source="cifar10 train, 50000 images"))
        new[-1]["data"] = {"train": described(content, name="cifar10")}
    found = [row["seeds"] for row in table(tmp_path, "pretrain", [old, *new])]
    assert found == (["2"] if len(contents) == 1 else ["1", "1", "1"])


def test_formats_of_own_folders_are_those_that_are_named_by_them() -> None:
    assert [name for name in list_datasets() if find_dataset(name).named_by_folder] == sorted(OWN_FORMATS)


@pytest.mark.parametrize("order", [1, -1])
def test_a_transfer_that_does_not_know_its_images_is_of_the_pretraining_that_does_not(order: int) -> None:
    earlier, again = pretraining("MAE", 0, 80.0, None), pretraining("MAE", 0, 50.0, "a")
    assert earlier["config_hash"] == again["config_hash"]
    transfer = make_record(task="classification", method="MAE", name="t", seed=0)
    transfer["config"] = {**transfer["config"], "backbone": {"weights": {"config_hash": earlier["config_hash"]}}}
    evidence = Evidence({f"{i}.json": r for i, r in enumerate([earlier, again][::order])} | {"t.json": transfer})
    assert evidence.pretraining_of(transfer) is earlier
    transfer["pretrained"] = {"data": {"train": described("a", 60)}}
    assert evidence.pretraining_of(transfer) is again
