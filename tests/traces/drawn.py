"""Data and weights that the traces start from: functions of their names alone, drawn without the code under test.

No library's generator is used, because a new version may draw other numbers. Shape suffixes: H height, W width.
"""

import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

COLOURS = np.array([[90, 90, 90], [220, 60, 60], [60, 220, 60], [60, 60, 220], [220, 220, 60]])
SCENE_CLASSES = ("grey", "red", "green", "blue", "yellow")
OBJECT_CLASSES = ("box", "wedge", "bar")


def uniform(name: str, *shape: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) of the given shape, a function of ``name``: SplitMix64 of positions (Steele et al., 2014)."""
    start = np.uint64(zlib.crc32(name.encode()) << 32)
    x = (start + np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return ((x >> np.uint64(11)).astype(np.float64) / 2.0**53).reshape(shape)


def whole(name: str, high: int, *shape: int) -> NDArray[np.int64]:
    """Integers in 0..high-1."""
    return (uniform(name, *shape) * high).astype(np.int64)


def _noisy(name: str, base_HW3: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.clip(base_HW3 + whole(name, 60, *base_HW3.shape) - 30, 0, 255).astype(np.uint8)


def write_class_folders(root: Path) -> Path:
    """``SPLIT/CLASS/``: 40 training and 20 test images of 4 classes, 16 to 31 pixels a side, PNG and JPEG in turn;
    of the PNG one in three is grey, one has a palette. JPEG files hold smooth images, so that they stay recognisable.
    """
    for split, count in {"train": 40, "test": 20}.items():
        for i in range(count):
            name, label = f"folder {split} {i}", i % 4
            height, width = (16 + whole(f"{name} size", 16, 2)).tolist()
            slope_HW = np.add.outer(np.arange(height) * (1 + label), np.arange(width) * (4 - label)) * 2
            colour = COLOURS[1 + int(whole(f"{name} colour", 4, 1)[0])]
            image = Image.fromarray(_noisy(name, (colour + slope_HW[..., None]) % 256))
            folder = root / split / f"class_{label}"
            folder.mkdir(parents=True, exist_ok=True)
            if i % 2:
                image.resize((width, height), Image.Resampling.BILINEAR).save(folder / f"{i:03d}.jpg", quality=90)
            else:
                mode = ("RGB", "L", "P")[i // 2 % 3]
                image.convert(mode).save(folder / f"{i:03d}.png")
    return root


def write_cifar10(root: Path) -> Path:
    """The published layout of CIFAR-10's batches, 40 images each: a pattern of the class under as much noise."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    patterns = whole("cifar patterns", 128, 10, 3, 4, 4)
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        labels = whole(f"cifar labels {name}", 10, 40)
        coarse = (patterns[labels] + whole(f"cifar {name}", 128, 40, 3, 4, 4)).repeat(8, axis=2).repeat(8, axis=3)
        data = coarse.astype(np.uint8).reshape(40, -1)
        content = {b"batch_label": name.encode(), b"labels": labels.tolist(), b"data": data}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    meta = {b"label_names": [f"class {c}".encode() for c in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return root


def write_scenes(root: Path) -> Path:
    """A folder of scenes: squares of 4 pixels whose colour tells the class, one in six not labelled, every third image
    narrower: 24 for training, 10 for testing, 16 pixels high."""
    for split, count in {"training": 24, "validation": 10}.items():
        images, annotations = root / "images" / split, root / "annotations" / split
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for i in range(count):
            name, columns = f"scene {split} {i}", 4 if i % 3 else 3
            labels_HW = whole(name, len(SCENE_CLASSES), 4, columns).repeat(4, 0).repeat(4, 1)
            hidden_HW = (uniform(f"{name} hidden", 4, columns) < 1 / 6).repeat(4, 0).repeat(4, 1)
            Image.fromarray(_noisy(f"{name} pixels", COLOURS[labels_HW])).save(images / f"{i:03d}.png")
            values_HW = np.where(hidden_HW, 0, labels_HW + 1).astype(np.uint8)
            Image.fromarray(values_HW).save(annotations / f"{i:03d}.png")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in SCENE_CLASSES))
    return root


def _polygon(kind: int, box: tuple[int, int, int, int]) -> list[int]:
    x, y, width, height = box
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return corners[:6] if kind == 1 else corners


def write_objects(root: Path) -> Path:
    """A set in COCO's format: 20 training and 6 test images of 40 x 32 pixels with two coloured polygons each."""
    categories = [{"id": c + 1, "name": name} for c, name in enumerate(OBJECT_CLASSES)]
    (root / "annotations").mkdir(parents=True)
    for split, count in {"train": 20, "val": 6}.items():
        (root / split).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i in range(count):
            name = f"objects {split} {i}"
            base_HW3 = np.tile(COLOURS[0], (32, 40, 1))
            images.append({"id": i + 1, "file_name": f"{i:03d}.png", "height": 32, "width": 40})
            for n, (left, top, w, h, kind) in enumerate(whole(name, 8, 2, 5).tolist()):
                kind = kind % len(OBJECT_CLASSES)
                x, y, width, height = 2 + 20 * n + left // 2, 2 + top, 9 + w // 2, (5 if kind == 2 else 13) + h
                row_HW, column_HW = np.mgrid[:height, :width]
                inside_HW = row_HW * width <= column_HW * height if kind == 1 else np.ones((height, width), bool)
                base_HW3[y : y + height, x : x + width][inside_HW] = COLOURS[1 + kind]
                area = width * height / (2 if kind == 1 else 1)
                shape = {"bbox": [x, y, width, height], "segmentation": [_polygon(kind, (x, y, width, height))]}
                row = {"id": len(annotations) + 1, "image_id": i + 1, "category_id": kind + 1, "iscrowd": 0}
                annotations.append({**row, **shape, "area": area})
            Image.fromarray(_noisy(f"{name} pixels", base_HW3)).save(root / split / f"{i:03d}.png")
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def encoder_weights(img_size: int, patch_size: int, embed_dim: int, depth: int) -> dict[str, torch.Tensor]:
    """Weights of a plain ViT under timm's names, so that a transfer starts from something that it has to load."""
    d, grid = embed_dim, img_size // patch_size
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, d),
        "pos_embed": (1, 1 + grid * grid, d),
        "patch_embed.proj.weight": (d, 3, patch_size, patch_size),
        "patch_embed.proj.bias": (d,),
    }
    for n in range(depth):
        layers = {"attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}
        for layer, (rows, columns) in layers.items():
            shapes |= {f"blocks.{n}.{layer}.weight": (rows, columns), f"blocks.{n}.{layer}.bias": (rows,)}
        shapes |= {f"blocks.{n}.norm{k}.{kind}": (d,) for k in (1, 2) for kind in ("weight", "bias")}
    shapes |= {"norm.weight": (d,), "norm.bias": (d,)}
    state = {}
    for name, shape in shapes.items():
        spread = 1.0 / np.sqrt(np.prod(shape[1:])) if name.endswith("weight") and len(shape) > 1 else 0.1
        values = (2.0 * uniform(f"weights {name}", *shape) - 1.0) * spread
        values += 1.0 if "norm" in name and name.endswith("weight") else 0.0
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state


def write_backbone(path: Path, **shape: int) -> Path:
    """A file of `encoder_weights`."""
    torch.save(encoder_weights(**shape), path)
    return path
