"""Records of a comparison: pretrainings of five methods, and transfers of their backbones."""

import csv
import io
from pathlib import Path
from typing import Any

from prediction_samples import transfer_record
from record_samples import CONFIG, make_record

from benchmarks.analysis.tables.build import build_tables
from mlomae.records import RANDOM, write_record

MLO, LONG = "MLO-MAE (nca)", "MAE, same processor time"
Row = dict[str, str]


def pretraining(method: str, seed: int, knn: float, images: int = 1000, mask: str = "random", **changes: Any) -> Any:
    config = {**CONFIG, "method": method, "mask": {"type": mask}, "images": images, **changes.pop("config", {})}
    metrics = {"knn_top1_avg": knn, "linear_top1_avg": 80.0 + 2 * seed}
    seen = {"lower": images, "head": 0, "upper": 0}
    name = f"{method}_{images}"
    return make_record(
        **{"method": method, "seed": seed, "name": name, "config": config, "metrics": metrics, "images_seen": seen}
        | {"outer_iterations": 500, "cpu_s": 20.0 + seed, "wall_clock_s": 30.0}
        | changes
    )


PRETRAININGS = [
    *(pretraining("MAE", seed, knn) for seed, knn in enumerate([50.0, 40.0, 45.0])),
    *(pretraining(MLO, seed, knn, mask="learned") for seed, knn in enumerate([78.0, 77.0, 70.0])),
    *(pretraining("oracle", seed, knn, mask="oracle") for seed, knn in enumerate([90.0, 85.0, 80.0])),
    pretraining(LONG, 0, 60.0, images=1400),
    pretraining("MAE", 0, 90.0, images=9000),
    pretraining("block", 0, 55.0, images=2000),
]
HASH = {(r["method"], r["images_seen"]["lower"]): r["config_hash"] for r in PRETRAININGS}


def transfer(method: str, seed: int, top1: float, images: int | None = 1000, **changes: Any) -> dict[str, Any]:
    digest = HASH.get((method, images or 0), "0" * 16)
    return transfer_record(method, seed, {"top1": top1, "top5": 99.0, "mean_per_class": top1}, pretraining=digest,
                           images=images, **changes)  # fmt: skip


def write(folder: Path, records: list[dict[str, Any]]) -> Path:
    for i, record in enumerate(records):
        write_record(record, folder / f"{i:03d}.json")
    return folder


def build(folder: Path) -> list[Row]:
    build_tables(folder, folder.parent)
    return list(csv.DictReader(io.StringIO((folder.parent / "comparison.csv").read_text(encoding="utf-8"))))


def rows_of(tmp_path: Path, records: list[dict[str, Any]], **where: str) -> list[Row]:
    found = build(write(tmp_path / "runs", records))
    return [row for row in found if all(row[key] == value for key, value in where.items())]


def one(rows: list[Row], **where: str) -> Row:
    (row,) = [row for row in rows if all(row[key] == value for key, value in where.items())]
    return row


TRANSFERS = [
    *(transfer("MAE", seed, top1) for seed, top1 in enumerate([50.0, 40.0])),
    *(transfer(MLO, seed, top1) for seed, top1 in enumerate([58.0, 51.0])),
    *(transfer("oracle", seed, top1) for seed, top1 in enumerate([60.0, 60.0])),
    *(transfer(RANDOM, seed, top1) for seed, top1 in enumerate([20.0, 22.0])),
    transfer(LONG, 0, 53.0, images=1400),
]
