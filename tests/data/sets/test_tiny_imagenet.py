"""Tiny-ImageNet's layout: labels of both parts, and folders that are wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlomae.common.errors import ConfigError, DataError
from mlomae.data import build_source

WNIDS = ["n03", "n01", "n02"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, format="PNG")

    (tmp_path / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    for wnid in WNIDS:
        for i in range(2):
            write(tmp_path / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
    lines = []
    for i, wnid in enumerate(["n02", "n02", "n01"]):
        write(tmp_path / "val" / "images" / f"val_{i}.JPEG")
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t0\t63\t63")
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_labels_of_both_parts(root: Path) -> None:
    train = build_source({"type": "tiny_imagenet", "root": str(root), "split": "train"})
    assert train.classes == ["n01", "n02", "n03"]
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    val = build_source({"type": "tiny_imagenet", "root": str(root), "split": "val"})
    assert val.classes == train.classes
    assert val.labels.tolist() == [1, 1, 0]
    pixels = np.array(Image.open(root / "val" / "images" / "val_2.JPEG"))
    assert torch.equal(val.image(2), torch.from_numpy(pixels).permute(2, 0, 1))
    assert not train.locations & val.locations


@pytest.mark.parametrize(
    ("spoil", "split", "message"),
    [
        (lambda r: (r / "wnids.txt").unlink(), "train", "wnids.txt is missing"),
        (lambda r: (r / "wnids.txt").write_text("n01 n02"), "train", "differ in class 'n03'"),
        (lambda r: (r / "wnids.txt").write_text("n01 n03"), "val", "line 1: class 'n02'"),
        (lambda r: (r / "val" / "val_annotations.txt").unlink(), "val", "have no labels"),
        (lambda r: (r / "val" / "val_annotations.txt").write_text(""), "val", "is empty"),
        (lambda r: (r / "val" / "images" / "val_1.JPEG").unlink(), "val", "names val_1.JPEG"),
    ],
)
def test_wrong_folders_say_what_is_missing(root: Path, spoil, split: str, message: str) -> None:
    spoil(root)
    with pytest.raises(DataError, match=message):
        build_source({"type": "tiny_imagenet", "root": str(root), "split": split})


def test_the_unlabelled_part_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="valid splits: train, val"):
        build_source({"type": "tiny_imagenet", "root": str(root), "split": "test"})
