"""Where a transfer leaves its record and its predictions, and what it never replaces."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from record_samples import make_record

from mlomae.backbones.origin import Origin
from mlomae.backbones.run import TransferRun
from mlomae.common.errors import DataError
from mlomae.records import read_records


@dataclass
class Config:
    name: str = "knn_cub"
    seed: int = 3
    demo: bool = False
    backbone: Any = None
    data: Any = None
    values: dict[str, Any] = field(default_factory=lambda: {"name": "knn_cub", "seed": 3, "backbone": {}})

    def to_dict(self) -> dict[str, Any]:
        return {**self.values, "backbone": {}}


@pytest.fixture
def run(tmp_path: Path) -> TransferRun:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "predictions.npz").write_bytes(b"first")
    origin = Origin("MLO-MAE (nca)", {"method": "MLO-MAE (nca)"}, {})
    return TransferRun(Config(), origin, tmp_path / "work", False, tmp_path / "results" / "runs", (None, None))


RECORD = make_record(name="knn_cub", method="MLO-MAE (nca)", seed=3, task="classification")


def test_predictions_lie_beside_the_records_under_the_records_name(run: TransferRun, tmp_path: Path) -> None:
    run.write(RECORD, run.work_dir / "predictions.npz")
    assert read_records(tmp_path / "results" / "runs") == [RECORD] == read_records(run.work_dir)
    files = [path.relative_to(tmp_path / "results").as_posix() for path in (tmp_path / "results").rglob("*.*")]
    assert sorted(files) == ["predictions/knn_cub_mlo-mae-nca_seed3.npz", "runs/knn_cub_mlo-mae-nca_seed3.json"]
    assert (tmp_path / "results" / "predictions" / "knn_cub_mlo-mae-nca_seed3.npz").read_bytes() == b"first"


def test_predictions_of_a_record_that_is_there_are_not_replaced(run: TransferRun, tmp_path: Path) -> None:
    run.write(RECORD, run.work_dir / "predictions.npz")
    (run.work_dir / "predictions.npz").write_bytes(b"second")
    with pytest.raises(DataError, match="exists and differs"):
        run.write({**RECORD, "cpu_s": 99}, run.work_dir / "predictions.npz")
    assert (tmp_path / "results" / "predictions" / "knn_cub_mlo-mae-nca_seed3.npz").read_bytes() == b"first"


def test_predictions_that_an_interrupted_run_left_are(run: TransferRun, tmp_path: Path) -> None:
    left = tmp_path / "results" / "predictions" / "knn_cub_mlo-mae-nca_seed3.npz"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left over")
    run.write(RECORD, run.work_dir / "predictions.npz")
    assert left.read_bytes() == b"first"


def test_without_predictions_or_records_nothing_is_beside(run: TransferRun, tmp_path: Path) -> None:
    run.write(RECORD)
    assert not (tmp_path / "results" / "predictions").exists()
    alone = TransferRun(run.config, run.origin, tmp_path / "alone", False, None, (None, None))
    alone.write(RECORD, run.work_dir / "predictions.npz")
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["record.json"]


def test_a_file_of_predictions_names_the_record_it_belongs_to(run: TransferRun) -> None:
    identity = run.identity()
    assert identity["run"] == "MLO-MAE (nca), knn_cub, seed 3"
    assert len(identity["config_hash"]) == 16
