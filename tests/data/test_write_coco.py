"""The COCO layout of the embedded images: exact, deterministic, never overwriting, never partial."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from mlomae.common.errors import ConfigError, DataError
from mlomae.data import Textures
from mlomae.data.write import run_lengths, write_coco


def textures(split: str = "train", count: int = 12, **knobs: Any) -> Textures:
    return Textures(split, size=24, count=count, objects=(1, 4), mixed=True, **knobs)


@pytest.fixture(scope="module")
def source() -> Textures:
    return textures()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, source: Textures) -> Path:
    return write_coco(tmp_path_factory.mktemp("sets") / "new" / "coco", {"train": source, "val": textures("val", 5)})


def annotations(root: Path, split: str = "train") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    return content


def decode(counts: list[int], height: int, width: int) -> np.ndarray:
    """By the definition of the format, a pixel at a time."""
    mask, at = np.zeros((height, width), dtype=bool), 0
    for run, length in enumerate(counts):
        for _ in range(length):
            mask[at % height, at // height] = run % 2 == 1
            at += 1
    assert at == height * width
    return mask


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.booleans()))
def test_run_lengths_decode_to_the_mask(mask: np.ndarray) -> None:
    counts = run_lengths(torch.from_numpy(mask))
    assert np.array_equal(decode(counts, *mask.shape), mask)
    assert all(counts[1:])  # one way to write a mask: only the first run may be empty


def test_run_lengths_go_down_the_columns() -> None:
    assert run_lengths(torch.tensor([[False, True, True], [False, False, True]])) == [2, 1, 1, 2]
    assert run_lengths(torch.tensor([[True], [False]])) == [0, 1, 1]


def test_layout_and_pixels(written: Path, source: Textures) -> None:
    files = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}
    images = {f"train/{i:06d}.png" for i in range(12)} | {f"val/{i:06d}.png" for i in range(5)}
    assert files == images | {"annotations/instances_train.json", "annotations/instances_val.json"}
    for image in annotations(written)["images"]:
        pixels = np.array(Image.open(written / "train" / image["file_name"]))
        assert np.array_equal(pixels, source.image(image["id"] - 1).permute(1, 2, 0).numpy())
        assert (image["height"], image["width"]) == pixels.shape[:2]
    assert [path.name for path in written.parent.iterdir()] == ["coco"]


def test_annotations_are_the_instances(written: Path, source: Textures) -> None:
    content = annotations(written)
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert list(names.values()) == source.classes
    assert min(names) == 1
    assert [entry["id"] for entry in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    for i in range(len(source)):
        masks, labels = source.instances(i)
        entries = [entry for entry in content["annotations"] if entry["image_id"] == i + 1]
        assert [names[entry["category_id"]] for entry in entries] == [source.classes[c] for c in labels]
        for entry, mask_HW in zip(entries, masks.numpy(), strict=True):
            assert entry["segmentation"]["size"] == [24, 24]
            assert np.array_equal(decode(entry["segmentation"]["counts"], 24, 24), mask_HW)
            assert entry["area"] == mask_HW.sum()
            assert entry["iscrowd"] == 0
            x, y, width, height = entry["bbox"]
            inside = np.zeros_like(mask_HW)
            inside[y : y + height, x : x + width] = True
            assert not (mask_HW & ~inside).any()
            edges = mask_HW[y], mask_HW[y + height - 1], mask_HW[:, x], mask_HW[:, x + width - 1]
            assert all(edge.any() for edge in edges)


def test_pycocotools_reads_the_same_masks(written: Path, source: Textures, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO(written / "annotations" / "instances_train.json")
    encode = pytest.importorskip("pycocotools.mask")
    assert len(coco.getImgIds()) == len(source)
    assert len(coco.getCatIds()) == len(source.classes)
    for i in range(len(source)):
        entries = coco.loadAnns(coco.getAnnIds(imgIds=i + 1))
        masks = np.stack([coco.annToMask(entry) for entry in entries]).astype(bool)
        assert np.array_equal(masks, source.instances(i)[0].numpy())
        for entry in entries:
            rle = coco.annToRLE(entry)
            assert encode.area(rle) == entry["area"]
            assert encode.toBbox(rle).tolist() == entry["bbox"]


def test_same_sources_same_bytes(written: Path, tmp_path: Path, source: Textures) -> None:
    again = write_coco(tmp_path / "again", {"train": textures(), "val": textures("val", 5)})
    for path in sorted(p for p in written.rglob("*") if p.is_file()):
        assert path.read_bytes() == (again / path.relative_to(written)).read_bytes()
    other = write_coco(tmp_path / "other", {"train": textures(seed=1)})
    assert annotations(other)["annotations"] != annotations(written)["annotations"]


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "dangling link"])
def test_nothing_is_overwritten(kind: str, tmp_path: Path, source: Textures) -> None:
    root = tmp_path / "coco"
    if kind == "file":
        root.write_text("mine")
    elif kind == "dangling link":
        root.symlink_to(tmp_path / "nowhere")
    else:
        root.mkdir()
        if kind == "folder":
            (root / "mine").touch()
    with pytest.raises(ConfigError, match="coco exists; name a new folder or remove this one"):
        write_coco(root, {"train": source})
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]
    assert kind != "folder" or [path.name for path in root.iterdir()] == ["mine"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Textures) -> None:
    save, saved = Image.Image.save, []

    def full_disk(image: Image.Image, path: Path) -> None:
        if len(saved) == 3:
            raise OSError(28, "No space left on device")
        save(image, path)
        saved.append(path)

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); free space or name another"):
        write_coco(tmp_path / "coco", {"train": source})
    assert len(saved) == 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", ".", "..", "annotations", "a/b", "/train"])
def test_bad_split_names(name: str, tmp_path: Path, source: Textures) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a split"):
        write_coco(tmp_path / "coco", {name: source})
    assert not list(tmp_path.iterdir())


def test_bad_splits(tmp_path: Path, source: Textures) -> None:
    with pytest.raises(ConfigError, match="no split to write; give at least one"):
        write_coco(tmp_path / "coco", {})
    with pytest.raises(ConfigError, match=r"images of val and train differ in classes \(.*\); give both the same"):
        write_coco(tmp_path / "coco", {"train": source, "val": textures("val", classes=4)})
    assert not list(tmp_path.iterdir())
