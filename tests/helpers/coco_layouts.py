"""Small sets in COCO's format, with masks in its three forms, and ways to write them otherwise."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mlomae.data import Detections
from mlomae.data.formats.coco_masks import encode, mask_tools
from mlomae.data.write import run_lengths

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
BOXES = [(4, 5, 20, 10), (0, 0, 8, 9), (30, 20, 20, 12)]
"""x, y, width, height of the objects of an image: the first is of polygons, the others of run lengths."""

Content = dict[str, Any]


def rectangle(box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool, True in the box."""
    x, y, width, height = box
    mask = np.zeros(size, dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


def compress(runs: list[int]) -> str:
    """Run lengths as text, by the definition of the format."""
    text = ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            bits, value = value & 31, value >> 5
            last = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if last else 32))
            if last:
                break
    return text


def segmentation(box: tuple[int, int, int, int], size: tuple[int, int], form: int) -> Any:
    x, y, width, height = box
    if form == 0:
        return [[x, y, x + width, y, x + width, y + height, x, y + height]]
    runs = run_lengths(torch.from_numpy(rectangle(box, size)))
    return {"size": list(size), "counts": runs if form == 1 else compress(runs)}


def write_image(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32("/".join(path.parts[-2:]).encode()))
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def coco(root: Path, split: str = "train", images: int = 4, categories: list[Content] = CATEGORIES) -> Path:
    """Images of 40 + i by 60 pixels; image i has i % 4 objects and id 100 - i, annotations count from 11."""
    content: Content = {"info": {}, "images": [], "annotations": [], "categories": categories}
    for i in range(images):
        size = (40 + i, 60)
        write_image(root / split / f"{i:03d}.jpg", size)
        content["images"].append({"id": 100 - i, "file_name": f"{i:03d}.jpg", "height": size[0], "width": size[1]})
        for k in range(i % 4):
            box = BOXES[k]
            annotation = {"id": 11 + len(content["annotations"]), "image_id": 100 - i, "iscrowd": 0}
            annotation |= {"category_id": categories[k % len(categories)]["id"], "bbox": list(box)}
            annotation |= {"area": box[2] * box[3], "segmentation": segmentation(box, size, k)}
            content["annotations"].append(annotation)
    write(root, content, split)
    return root


def file_of(root: Path, split: str = "train") -> Path:
    return root / "annotations" / f"instances_{split}.json"


def write(root: Path, content: object, split: str = "train") -> None:
    file_of(root, split).parent.mkdir(parents=True, exist_ok=True)
    file_of(root, split).write_text(json.dumps(content))


def read(root: Path, split: str = "train") -> Content:
    content: Content = json.loads(file_of(root, split).read_text())
    return content


def edit(root: Path, change: Callable[[Content], object], split: str = "train") -> None:
    """Rewrite the annotation file after ``change`` has changed its content in place."""
    content = read(root, split)
    change(content)
    write(root, content, split)


def put(kind: str, at: int, **entries: Any) -> Callable[[Content], None]:
    """A change for ``edit``: set ``entries`` of one entry of the list ``kind``."""

    def change(content: Content) -> None:
        content[kind][at].update(entries)

    return change


def drop(kind: str, at: int, key: str) -> Callable[[Content], None]:
    """A change for ``edit``: take ``key`` from one entry of the list ``kind``."""

    def change(content: Content) -> None:
        del content[kind][at][key]

    return change


def boxes_of(source: Detections, i: int) -> np.ndarray:
    """(n, 4) x, y, width, height in pixels of the objects of image ``i``."""
    return np.array([entry["bbox"] for entry in source.annotations(i)]).reshape(-1, 4)


def masks_of(source: Detections, i: int) -> torch.Tensor:
    """(n, H, W) bool, True on each object of image ``i``, drawn by pycocotools."""
    tools, size = mask_tools(), source.image_size(i)
    drawn = [tools.decode(encode(entry["segmentation"], *size)) for entry in source.annotations(i)]
    return torch.from_numpy(np.array(drawn, dtype=bool).reshape(-1, *size))
