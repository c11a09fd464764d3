"""`mlomae embed`: features with the names of files."""

import importlib.util
from pathlib import Path

import cls_runs
import numpy as np
import pandas as pd
import pytest
from photos import write_photos

import mlomae
from mlomae import cli
from mlomae.common.installing import pip_command


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path, _ = cls_runs.pretrain(tmp_path_factory.mktemp("embed") / "run")
    return path


def test_a_file_of_features_has_a_row_for_each_image(checkpoint, tmp_path, capsys):
    photos = write_photos(tmp_path / "pets")
    out, run = tmp_path / "new" / "features.npz", checkpoint.parents[1]
    assert cli.main(["embed", str(run), str(photos), "--out", str(out), "--batch-size", "4"]) == 0
    assert "15 images, 16 features of each" in capsys.readouterr().out
    with np.load(out, allow_pickle=False) as file:
        features, files = file["features"], file["files"].tolist()
    assert files == sorted(str(path) for path in photos.rglob("*.*"))
    expected = mlomae.embed(run, photos).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert np.abs(features[::-1] - expected).max() > 1e-3  # mutation: another order


def test_parquet(checkpoint, tmp_path):
    pytest.importorskip("pyarrow")
    photos, out = write_photos(tmp_path / "pets"), tmp_path / "features.parquet"
    assert cli.main(["embed", str(checkpoint), str(photos), "--out", str(out), "--pooling", "cls"]) == 0
    table = pd.read_parquet(out)
    expected = mlomae.embed(checkpoint, photos, pooling="cls").numpy()
    np.testing.assert_allclose(table.drop(columns="file").to_numpy(), expected, atol=1e-5)
    assert table["file"].tolist() == sorted(str(path) for path in photos.rglob("*.*"))
    assert table.columns.tolist() == ["file", *(str(i) for i in range(16))]
    assert set(table.drop(columns="file").dtypes) == {np.dtype("float32")}


def test_parquet_without_pyarrow_is_refused_before_the_work(checkpoint, tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pyarrow" else find(name))
    assert cli.main(["embed", str(checkpoint), str(tmp_path), "--out", str(tmp_path / "f.parquet")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"needs pyarrow; install it ({pip_command()} pyarrow)" in said


def test_another_ending_is_refused(checkpoint, tmp_path, capsys):
    assert cli.main(["embed", str(checkpoint), str(tmp_path), "--out", str(tmp_path / "f.csv")]) == 2
    assert "must end in .npz or .parquet" in capsys.readouterr().err
