"""Loaders that are compared: equal batches by shape and statistics, and a table of them."""

import itertools
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks.cost.loading.__main__ import BATCHES, OLD, main
from benchmarks.cost.loading.loaders import LOADERS, tensor_bytes, write_jpegs
from mlomae.common.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jpegs")
    write_jpegs(folder, 32, count=48)
    return folder


@pytest.mark.parametrize("name", [name for name in LOADERS if name != OLD])
def test_loaders_give_normalised_batches_of_the_same_images(name: str, root: Path) -> None:
    if name == "lightly":
        pytest.importorskip("lightly", reason="the extra 'peers' is not installed")
    batches, send = LOADERS[name](str(root), 32, 16, 0)
    images = torch.cat(list(itertools.islice(batches, 9)))
    assert (images.shape, images.dtype) == ((144, 3, 32, 32), torch.float32)
    reference = torch.cat(list(itertools.islice(LOADERS["torchvision_pillow"](str(root), 32, 16, 0)[0], 9)))
    for moment in (torch.mean, torch.std):
        assert (moment(images, (0, 2, 3)) - moment(reference, (0, 2, 3))).abs().max() < 0.25
    if name.startswith("mlomae"):
        assert tensor_bytes(send()) <= 0.26 * images[:16].nbytes


def test_a_loader_that_fails_is_named_with_what_it_said(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"loader 'torchvision_own' failed \(FileNotFoundError: .*--loaders"):
        main.__wrapped__(["--root", str(tmp_path), "--sides", "32", "--loaders", "torchvision_own"])  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_table_has_ratios_with_intervals(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BATCHES, 32, 16)
    out = tmp_path / "loading.csv"
    options = ["--root", str(root), "--sides", "32", "--rounds", "3", "--out", str(out)]
    assert not main([*options, "--loaders", "mlomae,mlomae_memory,torchvision_own"])
    frame = pd.read_csv(out).set_index("loader")
    assert (frame["images_per_s"] > 0).all()
    assert frame.loc["torchvision_own", "low"] <= frame.loc["torchvision_own", "mlomae_is_faster_by"]
    assert frame.loc["mlomae", "bytes_per_image"] * 3.8 < frame.loc["torchvision_own", "bytes_per_image"]
