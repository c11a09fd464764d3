"""Folders of pictures of several sizes, as people have them."""

from pathlib import Path

import numpy as np
from PIL import Image

from mlomae.data import Textures

CLASSES = ("cat", "dog", "owl")
NAMES = ("cat", "dog", "elk", "fox", "owl", "tree")


def write_photos(folder: Path, each: int = 5, classes: int = 3, seed: int = 0) -> Path:
    """``folder``/CLASS/I.png or .jpg, ``each`` of a class, 18 to 30 pixels a side; one is grey, one turned by EXIF."""
    textures = Textures(split="train", size=32, classes=classes, count=each * classes, seed=seed)
    draw = np.random.default_rng(seed)
    seen = [0] * classes
    for i in range(len(textures)):
        label = int(textures.labels[i])
        path = folder / NAMES[label] / f"{seen[label]}.{'jpg' if i % 2 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = draw.integers(18, 31, 2)
        picture = Image.fromarray(textures.image(i).permute(1, 2, 0).numpy()).resize((int(width), int(height)))
        exif = Image.Exif()
        if i == 1:
            exif[0x0112] = 6
        (picture.convert("L") if i == 2 else picture).save(path, exif=exif)
        seen[label] += 1
    return folder


def paint(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> None:
    """An image of noise, (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def paint_classes(folder: Path, each: int = 10, seed: int = 0) -> Path:
    """Class folders of ``each`` images; ``folder``."""
    for c, name in enumerate(CLASSES):
        for i in range(each):
            paint(folder / name / f"{i:02}.png", seed + 100 * c + i, (30 + 10 * c, 60))
    return folder


def paint_heap(folder: Path, count: int, seed: int = 0) -> Path:
    """``count`` images without labels; ``folder``."""
    for i in range(count):
        paint(folder / f"{i}.png", seed + i)
    return folder
