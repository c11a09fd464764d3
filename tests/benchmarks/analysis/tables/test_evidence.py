"""Predictions beside records: those of their record, of nothing else, and read without torch; FLOPs."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prediction_samples import some_counts, transfer_record, write_classified, write_segmented
from record_samples import make_record

from benchmarks.analysis.evidence import read_evidence, read_tested
from benchmarks.tasks.segmentation.pixel_counts import FORMAT, class_ious
from mlomae.backbones.task import check_same_test
from mlomae.common.errors import DataError
from mlomae.common.ownership import owned
from mlomae.records import read_record, write_record


def rewrite(path: Path, **changes: Any) -> None:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files} | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_classified(tmp_path / "runs", "mae_0", "MAE", 0, 0.7)
    write_segmented(tmp_path / "runs", "sub/mae_0", "MAE", 0)
    return tmp_path / "runs"


def test_predictions_give_the_metric_of_their_record(runs: Path) -> None:
    write_record(make_record(), runs / "pretraining.json")
    evidence = read_evidence(runs)
    assert list(evidence.tested) == ["mae_0.json", "sub/mae_0.json"]
    for name, metric in (("mae_0.json", "top1"), ("sub/mae_0.json", "mIoU")):
        record = evidence.records[name]
        tested = evidence.tested_of(record)
        assert tested is not None
        assert tested.metric == metric
        assert tested.sums.whole() == pytest.approx(record["metrics"][metric], abs=1e-9)
    assert evidence.tested_of(evidence.records["pretraining.json"]) is None


def other_run(path: Path) -> None:
    rewrite(path, run="MAE, linear_cub, seed 1")


def other_config(path: Path) -> None:
    rewrite(path, config_hash="0" * 16)


def other_answers(path: Path) -> None:
    with np.load(path) as file:
        ranked = file["top_classes"].copy()
    ranked[0] = np.roll(ranked[0], 1)
    rewrite(path, top_classes=ranked)


def fewer_images(path: Path) -> None:
    with np.load(path) as file:
        cut = {name: file[name][:0:-1][::-1] for name in ("index", "label", "top_classes", "top_log_probs")}
    rewrite(path, **cut)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_run, "belong to the run 'MAE, linear_cub, seed 1', not to 'MAE, linear_cub, seed 0'"),
        (other_config, "belong to the configuration 0000000000000000, the record's is"),
        (other_answers, "give top1 .* on 60 images, the record says"),
        (fewer_images, "on 59 images, the record says .* on 60"),
        (lambda path: path.write_bytes(b"text\nof two lines"), "cannot read"),
        (
            lambda path: shutil.copy(path.parents[1] / "sub" / "predictions" / "mae_0.npz", path),
            "is not a usable file of predictions",
        ),
        (lambda path: shutil.copy(path, path.with_name("mae_1.npz")), "'mae_1.npz' have no record of that name"),
        (lambda path: path.rename(path.with_name("MAE_0.npz")), "'MAE_0.npz' have no record of that name"),
    ],
)
def test_predictions_of_another_run_are_refused(runs: Path, change: Callable[[Path], Any], message: str) -> None:
    change(runs / "predictions" / "mae_0.npz")
    with pytest.raises(DataError, match=message) as error:
        read_evidence(runs)
    assert "\n" not in str(error.value)


def test_predictions_of_neighbours_do_not_meet(tmp_path: Path) -> None:
    for folder, share in (("a", 0.7), ("b", 0.4)):
        write_classified(tmp_path / folder, "mae_0", "MAE", 0, share, name=f"linear_{folder}")
    for folder in ("a", "b"):
        assert [t.run for t in read_evidence(tmp_path / folder).tested.values()] == [f"MAE, linear_{folder}, seed 0"]


def test_predictions_where_version_0_1_put_them_are_those_of_their_run(runs: Path) -> None:
    (runs / "predictions").rename(runs.parent / "predictions")
    (runs.parent / "predictions" / "sub").mkdir()
    (runs / "sub" / "predictions" / "mae_0.npz").rename(runs.parent / "predictions" / "sub" / "mae_0.npz")
    assert list(read_evidence(runs).tested) == ["mae_0.json", "sub/mae_0.json"]
    write_classified(runs.parent / "neighbour", "mae_0", "MAE", 0, 0.4, name="linear_cars")  # of the same file name
    assert list(read_evidence(runs.parent / "neighbour").tested) == ["mae_0.json"]
    (runs.parent / "neighbour" / "predictions" / "mae_0.npz").replace(runs.parent / "predictions" / "mae_0.npz")
    assert list(read_evidence(runs.parent / "neighbour").tested) == ["mae_0.json"]
    assert list(read_evidence(runs).tested) == ["sub/mae_0.json"], "those of another run are not taken"


def test_a_run_that_ends_while_records_are_read_is_no_error(runs: Path) -> None:
    placed = runs / "mae_0.json"
    text, hidden = placed.read_text(), threading.Event()
    placed.unlink()

    def ends() -> None:
        with owned(runs):  # as a run does from its predictions to its record
            hidden.set()
            time.sleep(0.2)
            placed.write_text(text)

    run = threading.Thread(target=ends)
    run.start()
    hidden.wait()
    assert list(read_evidence(runs).tested) == ["sub/mae_0.json"]
    run.join()
    assert list(read_evidence(runs).tested) == ["mae_0.json", "sub/mae_0.json"]


def test_a_task_without_predictions_has_none(runs: Path) -> None:
    write_record(make_record(task="pretrain"), runs / "pretraining.json")
    shutil.copy(runs / "predictions" / "mae_0.npz", runs / "predictions" / "pretraining.npz")
    with pytest.raises(DataError, match=r"'pretraining.npz' are of a pretrain record, which has none"):
        read_evidence(runs)


def test_a_record_that_lacks_the_metric_is_not_taken_to_agree(runs: Path) -> None:
    path = runs / "predictions" / "mae_0.npz"
    record = {**read_record(runs / "mae_0.json", "mae_0.json"), "metrics": {"top5": 90.0}}
    with pytest.raises(DataError, match="the record says nan on 60"):
        read_tested(path, record)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_set": "a" * 64}, "different test sets"),
        ({"class_names": np.array(["dog", "cat", "horse"])}, "different classes"),
        ({"index": np.arange(60) * 2}, "different images"),
    ],
)
def test_runs_on_different_images_are_not_compared(runs: Path, changes: dict[str, Any], message: str) -> None:
    other = write_classified(runs, "mlo_0", "MLO-MAE", 0, 0.8)
    a, b = read_evidence(runs).tested["mae_0.json"], read_evidence(runs).tested["mlo_0.json"]
    check_same_test(a, b, "remedy")
    rewrite(other, **changes)
    with pytest.raises(DataError, match=f"'mae_0.npz' and 'mlo_0.npz' are of {message}"):
        check_same_test(a, read_evidence(runs).tested["mlo_0.json"], "remedy")


def test_areas_survive_the_file(tmp_path: Path) -> None:
    counts = some_counts(3)
    path = tmp_path / "new" / "a.npz"
    FORMAT.save(path, counts, class_names=("a", "b", "c"), test_set="t", run="r", config_hash="c")
    found, identity = FORMAT.read(path)
    for name in ("index", "intersect", "predicted", "true", "union"):
        assert np.array_equal(getattr(found, name), getattr(counts, name))
    expected = {"class_names": ("a", "b", "c"), "test_set": "t", "run": "r", "config_hash": "c", "file": "a.npz"}
    assert identity == expected
    by_hand = 100 * counts.intersect.sum(0) / (counts.predicted + counts.true - counts.intersect).sum(0)
    np.testing.assert_allclose(class_ious(found), by_hand)
    rewrite(path, run=None)  # a file of before the run was written
    assert FORMAT.read(path)[1]["run"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intersect": None}, "lacks 'intersect'"),
        ({"format": "mlomae segmentation areas 9"}, "its format is .* 9'"),
        ({"run": np.zeros(2)}, "'run' is not text"),
        ({"true": np.zeros((12, 3))}, "'true' has type float64"),
        ({"true": np.zeros((12, 2), int)}, r"shape \(12, 2\), not int64 and \(12, 3\)"),
        ({"index": np.zeros(12, int)}, "not sorted, or one is there twice"),
        ({"index": np.array(3)}, "'index' has type"),
        ({"true": np.zeros((12, 3), int)}, "more pixels are right than there are"),
        ({"intersect": np.full((12, 3), -1)}, "more pixels are right than there are"),
    ],
)
def test_damaged_areas_are_one_line(runs: Path, changes: dict[str, Any], message: str) -> None:
    path = runs / "sub" / "predictions" / "mae_0.npz"
    rewrite(path, **changes)
    with pytest.raises(DataError, match=message) as error:
        read_evidence(runs)
    assert "\n" not in str(error.value)
    assert "mae_0.npz" in str(error.value)


def test_flops_by_configuration(tmp_path: Path) -> None:
    write_record(transfer_record("MAE", 0, {"top1": 1.0}), tmp_path / "runs" / "a.json")
    assert read_evidence(tmp_path / "runs").flops == {}
    entry = {"lower_step": 1, "upper": 0, "total": 15, "batch": 8}
    (tmp_path / "flops.json").write_text(json.dumps({"a" * 16: entry}))
    assert read_evidence(tmp_path / "runs").flops == {"a" * 16: 15.0}
    (tmp_path / "flops.json").write_text(json.dumps({"a" * 16: {**entry, "total": 1.5}}))
    with pytest.raises(DataError, match=r"flops.json'.*`make flops`"):
        read_evidence(tmp_path / "runs")


def test_a_demo_is_no_evidence(tmp_path: Path) -> None:
    write_record(transfer_record("MAE", 0, {"top1": 1.0}, demo=True), tmp_path / "runs" / "a.json")
    with pytest.raises(DataError, match="is a demo run"):
        read_evidence(tmp_path / "runs")
