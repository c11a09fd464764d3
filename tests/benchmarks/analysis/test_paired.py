"""Two runs of any task, compared on the same images: the interval of the tables, and what cannot be compared."""

from pathlib import Path

import numpy as np
import pytest
from prediction_samples import some_counts

from benchmarks.analysis.paired import main, read_any
from benchmarks.analysis.statistics import bootstrap_interval
from benchmarks.tasks.detection.image_shares import FORMAT as SHARES
from benchmarks.tasks.detection.image_shares import UNIT, ImageShares
from benchmarks.tasks.segmentation.pixel_counts import FORMAT as COUNTS
from benchmarks.tasks.segmentation.pixel_counts import PixelCounts

IMAGES = 60


def identity(run: str, test_set: str = "a") -> dict:
    return {"class_names": ["x", "y", "z"], "test_set": test_set, "run": run, "config_hash": run * 4}


def shares_file(path: Path, run: str, gain: float, test_set: str = "a") -> Path:
    draw = np.random.default_rng(0)
    noise = np.random.default_rng(ord(run)).normal(scale=5.0, size=IMAGES)
    values = np.rint((20.0 + gain + 30.0 * draw.normal(size=IMAGES) + noise) / UNIT).astype(np.int64)
    images = ImageShares(np.arange(IMAGES), values, draw.integers(0, 3, (IMAGES, 3)))
    SHARES.save(path / f"{run}.npz", images, **identity(run, test_set))
    return path / f"{run}.npz"


def test_detectors_are_compared_image_by_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What differs from image to image in both alike does not widen the interval."""
    a, b = shares_file(tmp_path, "a", 4.0), shares_file(tmp_path, "b", 0.0)
    assert main([str(a), str(b)]) == 0
    said = capsys.readouterr().out
    runs = read_any(a), read_any(b)
    found = bootstrap_interval([(runs[0].sums, runs[1].sums)], "box_AP|aaaa|bbbb")
    assert f"A - B: {found.mean:+.2f} points, 95 % interval [{found.low:+.2f}, {found.high:+.2f}]" in said
    assert found.mean == pytest.approx(runs[0].sums.whole() - runs[1].sums.whole())
    assert 0 < found.low < found.high < 8
    alone = [
        bootstrap_interval([(run.sums, run.sums.__class__(0 * run.sums.numbers_NF, run.sums.metric))], "x")
        for run in runs
    ]
    assert min(e.high - e.low for e in alone) > 3 * (found.high - found.low), "too blunt: not paired"


def test_runs_that_agree_on_every_image_have_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = shares_file(tmp_path, "a", 4.0)
    assert main([str(file), str(file)]) == 0
    assert "A - B: +0.00 points, no interval: they agree on every image, over" in capsys.readouterr().out


def test_segmenters_are_compared_image_by_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = some_counts(0, IMAGES)
    worse = PixelCounts(one.index, one.intersect // 2, one.predicted, one.true)
    for name, counts in {"a": one, "b": worse}.items():
        COUNTS.save(tmp_path / f"{name}.npz", counts, **identity(name) | {"class_names": names_of(counts)})
    assert main([str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]) == 0
    said = capsys.readouterr().out
    assert "mIoU" in said
    assert "A - B: +" in said


def names_of(counts: PixelCounts) -> list[str]:
    return [str(k) for k in range(counts.true.shape[1])]


def test_what_cannot_be_compared_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, other = shares_file(tmp_path, "a", 0.0), shares_file(tmp_path, "o", 0.0, "b")
    counts = some_counts(0, IMAGES)
    COUNTS.save(tmp_path / "c.npz", counts, **identity("c") | {"class_names": names_of(counts)})
    (tmp_path / "text.npz").write_text("no file of numbers")
    np.savez(tmp_path / "odd.npz", x=np.zeros(3))
    for second, said in (
        (other, "different test sets"),
        (tmp_path / "c.npz", "compare runs of one task"),
        (tmp_path / "text.npz", "it is no npz file"),
        (tmp_path / "odd.npz", "not a usable file of predictions: it lacks"),
        (tmp_path / "none.npz", "does not exist"),
    ):
        assert main([str(a), str(second)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
