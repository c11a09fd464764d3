"""Where a transfer leaves its record and its predictions, and what it never replaces."""

from pathlib import Path

import pytest
from record_samples import make_record

from mlomae.backbones.config import DataConfig, TransferConfig
from mlomae.backbones.provenance import Provenance
from mlomae.backbones.results import write_results
from mlomae.backbones.run import TransferRun
from mlomae.common.errors import DataError
from mlomae.records import read_records, sealed


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "predictions.npz").write_bytes(b"first")
    return tmp_path / "work"


RECORD = make_record(name="knn_cub", method="MLO-MAE (nca)", seed=3, task="classification")


def test_predictions_lie_beside_the_records_under_the_records_name(work: Path, tmp_path: Path) -> None:
    write_results(RECORD, work, tmp_path / "results" / "runs", work / "predictions.npz")
    assert read_records(tmp_path / "results" / "runs") == [sealed(RECORD, "a")] == read_records(work)
    files = [path.relative_to(tmp_path / "results").as_posix() for path in (tmp_path / "results").rglob("*.*")]
    assert sorted(files) == ["runs/knn_cub_mlo-mae-nca_seed3.json", "runs/predictions/knn_cub_mlo-mae-nca_seed3.npz"]
    assert (tmp_path / "results" / "runs" / "predictions" / "knn_cub_mlo-mae-nca_seed3.npz").read_bytes() == b"first"


def test_predictions_of_a_record_that_is_there_are_not_replaced(work: Path, tmp_path: Path) -> None:
    write_results(RECORD, work, tmp_path / "results" / "runs", work / "predictions.npz")
    (work / "predictions.npz").write_bytes(b"second")
    with pytest.raises(DataError, match="exists and differs"):
        write_results(
            {**RECORD, "metrics": {"top1": 9.0}}, work, tmp_path / "results" / "runs", work / "predictions.npz"
        )
    assert (tmp_path / "results" / "runs" / "predictions" / "knn_cub_mlo-mae-nca_seed3.npz").read_bytes() == b"first"


def test_predictions_that_an_interrupted_run_left_are(work: Path, tmp_path: Path) -> None:
    left = tmp_path / "results" / "runs" / "predictions" / "knn_cub_mlo-mae-nca_seed3.npz"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left over")
    write_results(RECORD, work, tmp_path / "results" / "runs", work / "predictions.npz")
    assert left.read_bytes() == b"first"


def test_without_predictions_or_records_nothing_is_beside(work: Path, tmp_path: Path) -> None:
    write_results(RECORD, work, tmp_path / "results" / "runs", None)
    assert not (tmp_path / "results" / "runs" / "predictions").exists()
    write_results(RECORD, tmp_path / "alone", None, work / "predictions.npz")
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["record.json"]


def test_a_file_of_predictions_names_the_record_it_belongs_to(work: Path) -> None:
    config = TransferConfig(name="knn_cub", seed=3, data=DataConfig())
    origin = Provenance("MLO-MAE (nca)", {"method": "MLO-MAE (nca)"}, {})
    identity = TransferRun(config, origin, work, False, (None, None), {}, {}).identity()
    assert identity["run"] == "MLO-MAE (nca), knn_cub, seed 3"
    assert len(identity["config_hash"]) == 16
