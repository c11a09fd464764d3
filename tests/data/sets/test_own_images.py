"""Image folders: what is read, and what is said about bad input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlomae.common.errors import DataError
from mlomae.data import build_source


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_folder_reads_images_labels_and_names(tmp_path, write_tree):
    root = write_tree(tmp_path / "set")
    source = build_source({"type": "imagefolder", "root": str(root), "split": "train"})
    assert source.classes == ["cat", "dog"]
    assert source.labels.tolist() == [0] * 6 + [1] * 6
    assert source.labels.dtype == np.int64
    expected = np.array(Image.open(root / "train" / "dog" / "001.png"))
    assert torch.equal(source.image(7), torch.from_numpy(expected).permute(2, 0, 1))
    assert source.image_size(7) == (20, 24)
    assert source.object_mask(7) is None
    assert str(root) in source.describe()
    assert "train" in source.describe()


def test_folder_accepts_nested_grey_and_upper_case(tmp_path, write_tree):
    root = write_tree(tmp_path)
    nested = root / "train" / "cat" / "images"
    nested.mkdir()
    Image.fromarray(np.full((8, 8), 77, dtype=np.uint8)).save(nested / "GREY.PNG")
    (nested / "loop").symlink_to(root / "train" / "cat")
    source = build_source({"type": "imagefolder", "root": str(root)})
    assert source.labels.tolist() == [0] * 7 + [1] * 6
    grey = source.image(6)
    assert grey.shape == (3, 8, 8)
    assert (grey == 77).all()


def test_cache_gives_the_same_source(tmp_path, write_tree):
    root = str(write_tree(tmp_path))
    plain, cached = (build_source({"type": "imagefolder", "root": root, "cache": c}) for c in (False, True))
    assert plain.fingerprint() == cached.fingerprint()
    assert plain.pixel_digest(3) == cached.pixel_digest(3)
    assert torch.equal(plain.image(3), cached.image(3))
    for file in (tmp_path / "train").rglob("*.png"):
        file.unlink()
    assert cached.image(3).shape == (3, 20, 24)
    with pytest.raises(DataError, match="cannot read"):
        plain.image(3)


def test_cache_refuses_mixed_sizes(tmp_path, write_tree):
    root = write_tree(tmp_path)
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(root / "train" / "dog" / "odd.png")
    with pytest.raises(DataError) as error:
        build_source({"type": "imagefolder", "root": str(root), "cache": True})
    assert "odd.png" in one_line(error)
    assert "cache=False" in str(error.value)


@pytest.mark.parametrize("kind", ["imagefolder", "cifar10", "cifar100"])
def test_missing_root_and_root_that_is_a_file(tmp_path, kind):
    with pytest.raises(DataError) as error:
        build_source({"type": kind, "root": str(tmp_path / "nowhere")})
    assert str(tmp_path / "nowhere") in one_line(error)
    (tmp_path / "archive.tar").write_bytes(b"x")
    with pytest.raises(DataError, match="is a file, not a folder"):
        build_source({"type": kind, "root": str(tmp_path / "archive.tar")})


def test_missing_split_lists_those_that_exist(tmp_path, write_tree):
    root = write_tree(write_tree(tmp_path, "train"), "val")
    with pytest.raises(DataError) as error:
        build_source({"type": "imagefolder", "root": str(root), "split": "test"})
    assert "(train, val)" in one_line(error)


def test_empty_class_folder_is_named(tmp_path, write_tree):
    root = write_tree(tmp_path)
    (root / "train" / "emu").mkdir()
    (root / "train" / "emu" / "notes.txt").write_text("no image")
    with pytest.raises(DataError) as error:
        build_source({"type": "imagefolder", "root": str(root)})
    assert str(root / "train" / "emu") in one_line(error)


def test_no_class_folder(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        build_source({"type": "imagefolder", "root": str(tmp_path)})


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_and_foreign_files_are_named(tmp_path, write_tree, suffix):
    root = write_tree(tmp_path, size=(64, 64))
    broken: Path = root / "train" / "cat" / f"000a.{suffix}"
    Image.open(root / "train" / "cat" / "000.png").save(broken)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    source = build_source({"type": "imagefolder", "root": str(root)})
    with pytest.raises(DataError) as error:
        source.image(1)
    assert str(broken) in one_line(error)
    broken.write_text("this is not an image")
    with pytest.raises(DataError) as error:
        source.image(1)
    assert str(broken) in one_line(error)


def test_folder_fingerprint_follows_names_sizes_and_labels(tmp_path, write_tree):
    cfg = {"type": "imagefolder", "root": str(write_tree(tmp_path / "a"))}
    before = build_source(cfg).fingerprint()
    assert build_source({"type": "imagefolder", "root": str(write_tree(tmp_path / "b"))}).fingerprint() == before
    assert build_source(cfg).fingerprint([0, 1]) != build_source(cfg).fingerprint([1, 0])
    (tmp_path / "a" / "train" / "cat").rename(tmp_path / "a" / "train" / "cow")
    assert build_source(cfg).fingerprint() != before


def test_a_split_where_there_are_none(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="type='pictures', without `split`"):
        build_source({"type": "imagefolder", "root": str(tmp_path)})
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    with pytest.raises(DataError, match=r"cat, dog\) hold images themselves: if they are classes, set `split` to '.'"):
        build_source({"type": "imagefolder", "root": str(tmp_path)})
    assert build_source({"type": "imagefolder", "root": str(tmp_path), "split": "."}).classes == ["cat", "dog"]
