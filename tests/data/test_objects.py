"""Objects of real images: published boxes, outlines of a detection set, masks in a folder; what is wrong with them."""

from pathlib import Path
from typing import Any

import coco_layouts
import layouts
import numpy as np
import pytest
import torch
from PIL import Image

from mlomae.common.errors import ConfigError, DataError
from mlomae.data import Stream, build_augment, build_source, build_training_source


def inside(box: tuple[int, int, int, int], height: int, width: int) -> torch.Tensor:
    """(H, W) bool: left, top, right, bottom, the ends outside."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


# --- published boxes --------------------------------------------------------------------------------------------------


def tiny(root: Path, boxes: dict[str, str]) -> dict[str, Any]:
    for wnid in ("n01", "n02"):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (64, 64), (i, 0, 0)).save(folder / f"{wnid}_{i}.JPEG", format="PNG")
        (folder.parent / f"{wnid}_boxes.txt").write_text(boxes[wnid])
    (root / "wnids.txt").write_text("n01\nn02\n")
    return {"type": "tiny_imagenet", "root": str(root), "split": "train"}


ROWS = {
    "n01": "n01_1.JPEG\t0\t10\t63\t58\nn01_0.JPEG\t5\t5\t5\t5\n",
    "n02": "n02_0.JPEG 0 0 63 63\nn02_1.JPEG 1 2 3 4\n",
}


def test_boxes_of_tiny_imagenet_hold_their_last_pixel(tmp_path: Path) -> None:
    source = build_source(tiny(tmp_path, ROWS))
    assert source.has_objects
    assert torch.equal(source.object_mask(0), inside((5, 5, 6, 6), 64, 64)), "by name, not by row"
    assert torch.equal(source.object_mask(1), inside((0, 10, 64, 59), 64, 64))
    assert source.object_mask(2).all()
    assert torch.equal(source.object_mask(3), inside((1, 2, 4, 5), 64, 64))


def test_without_a_box_for_every_image_the_objects_are_unknown(tmp_path: Path) -> None:
    source = build_source(tiny(tmp_path, {**ROWS, "n02": "n02_0.JPEG\t0\t0\t63\t63\n"}))
    assert not source.has_objects
    assert source.object_mask(0) is None


@pytest.mark.parametrize("row", ["n02_0.JPEG\t0\t0\t63\n", "n02_0.JPEG\t0\t0\t63\tx\n", "n02_0.JPEG\t-1\t0\t63\t3\n"])
def test_a_box_that_is_none_is_named(row: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"n02_boxes.txt, line 1: expected the four ends of a box"):
        build_source(tiny(tmp_path, {**ROWS, "n02": row}))


def test_boxes_of_cub(tmp_path: Path) -> None:
    layouts.cub(tmp_path)
    cfg = {"type": "cub200", "root": str(tmp_path), "split": "test", "subset": True}
    assert not build_source(cfg).has_objects
    base = tmp_path / "CUB_200_2011"
    images = dict(line.split() for line in (base / "images.txt").read_text().splitlines())
    rows = [f"{number} {number}.4 2.0 3.0 5.6" for number in images]
    (base / "bounding_boxes.txt").write_text("\n".join(reversed(rows)))
    source = build_source(cfg)
    for i in range(len(source)):
        number = next(int(n) for n, file in images.items() if file == source.relative_path(i))
        height, width = source.image_size(i)
        assert torch.equal(source.object_mask(i), inside((number, 2, number + 3, 8), height, width))
    for damage, said in ((rows[:-3], "lacks image"), ([*rows[:-1], rows[-1] + " 7"], "which is not four numbers")):
        (base / "bounding_boxes.txt").write_text("\n".join(damage))
        with pytest.raises(DataError, match=said):
            build_source(cfg)


# --- outlines and masks -----------------------------------------------------------------------------------------------


def test_objects_of_a_detection_set_are_the_union_of_its_masks(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    coco_layouts.coco(tmp_path)
    source = build_training_source({"type": "coco_folder", "root": str(tmp_path), "split": "train"})
    assert source.has_objects
    assert source.classes == ["scene"]
    for i in range(4):
        expected = np.zeros((40 + i, 60), dtype=bool)
        for box in coco_layouts.BOXES[: i % 4]:
            expected |= coco_layouts.rectangle(box, (40 + i, 60))
        assert torch.equal(source.object_mask(i), torch.from_numpy(expected))


@pytest.fixture
def photos(tmp_path: Path, write_tree) -> Path:
    """Twelve photographs, and masks of them: 2 in a box, 1 elsewhere but in the first row, which is 0."""
    root = write_tree(tmp_path / "photos")
    for image in sorted((root / "train").rglob("*.png")):
        values = np.ones((20, 24), dtype=np.uint8)
        values[0], values[4:10, 6:12] = 0, 2
        mask = tmp_path / "masks" / image.relative_to(root / "train")
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(mask)
    return root


@pytest.mark.parametrize("kind", ["imagefolder", "pictures"])
def test_masks_lie_in_a_folder_as_the_images_do(kind: str, photos: Path) -> None:
    masks = str(photos.parent / "masks")
    cfg: dict[str, Any] = {"type": kind, "root": str(photos), "split": "train", "objects_folder": masks}
    if kind == "pictures":
        cfg["below"] = True
    assert torch.equal(build_source(cfg).object_mask(7), inside((0, 1, 24, 20), 20, 24)), "all but 0"
    trimap = build_source({**cfg, "objects_values": [2]})
    assert trimap.has_objects
    assert torch.equal(trimap.object_mask(7), inside((6, 4, 12, 10), 20, 24))
    plain = build_augment({"type": "Plain", "size": 20})
    batch = Stream(trimap, None, plain, 0, "lower").batch(0, 12)
    assert torch.equal(batch["object"], inside((4, 4, 10, 10), 20, 20).expand(12, -1, -1)), "cut as the image is"


def test_masks_of_one_bit_and_with_the_ending_of_the_image(photos: Path) -> None:
    masks = photos.parent / "masks"
    first = masks / "cat" / "000.png"
    Image.fromarray(np.eye(20, 24).astype(bool)).save(masks / "cat" / "000.png.png")
    first.unlink()
    cfg = {"type": "imagefolder", "root": str(photos), "objects_folder": str(masks)}
    assert torch.equal(build_source(cfg).object_mask(0), torch.eye(20, 24).bool())


def test_masks_that_do_not_fit_are_named(photos: Path) -> None:
    masks = photos.parent / "masks"
    cfg = {"type": "imagefolder", "root": str(photos), "objects_folder": str(masks)}
    with pytest.raises(ConfigError, match="objects_values are of the masks in objects_folder"):
        build_source({**cfg, "objects_folder": None, "objects_values": [1]})
    Image.new("RGB", (24, 20)).save(masks / "dog" / "000.png")
    with pytest.raises(DataError, match=r"dog/000.png has several channels"):
        build_source(cfg).object_mask(6)
    Image.new("L", (20, 24)).save(masks / "dog" / "000.png")
    with pytest.raises(DataError, match=r"1 of 12 masks in .* are no PNG of their image's size \(dog/000.png\)"):
        build_source(cfg)
    (masks / "dog" / "000.png").unlink()
    with pytest.raises(DataError, match=r"1 of 12 images have no mask in .* \(dog/000.png\)"):
        build_source(cfg)
    with pytest.raises(DataError, match="does not exist"):
        build_source({**cfg, "objects_folder": str(masks / "none")})
