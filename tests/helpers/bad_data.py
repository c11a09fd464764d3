"""Folders of data with one thing wrong: COCO files, label maps, images, and what is no file at all."""

import copy
import json
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import coco_layouts
import numpy as np
import scene_layouts
from PIL import Image
from run_samples import GONE, with_value

Case = tuple[str, Callable[[Path], object]]
"""A name, and what makes the folder, file or whatever it is at a path."""
_DEEP = "[" * 100_000
VALUES: dict[str, Any] = {
    "gone": GONE,
    "null": None,
    "text": "text",
    "digits": "12",
    "empty": "",
    "lone surrogate": "\ud800",
    "zero byte": "a\0b",
    "negative": -1,
    "fraction": 0.5,
    "nan": float("nan"),
    "inf": float("inf"),
    "huge": 10**400,
    "huge float": 1e300,
    "true": True,
    "a list": [],
    "a dict": {},
    "nested": [[[1, [2]]], {"a": [None]}],
    "texts": ["a", "b", "c", "d"],
}
MASKS: dict[str, Any] = {
    "three numbers": [[1, 2, 3]],
    "one corner": [[1, 2]],
    "nan corner": [[0, 0, float("nan"), 5, 5, 5]],
    "huge corner": [[0, 0, 1e30, 5, 5, 5]],
    "texts in polygon": [["0", "0", "5", "0", "5", "5"]],
    "null polygon": [None],
    "no size": {"counts": [2460]},
    "wrong size": {"size": [1, 1], "counts": [1]},
    "size of texts": {"size": ["41", "60"], "counts": [2460]},
    "nested size": {"size": [[41], [60]], "counts": [2460]},
    "counts too few": {"size": [41, 60], "counts": [1]},
    "negative counts": {"size": [41, 60], "counts": [-1, 2461]},
    "huge counts": {"size": [41, 60], "counts": [2**70]},
    "bad characters": {"size": [41, 60], "counts": "\x00\x7f~~~~"},
    "accents": {"size": [41, 60], "counts": "é"},
    "surrogate": {"size": [41, 60], "counts": "\ud800"},
    "counts of null": {"size": [41, 60], "counts": None},
    "true counts": {"size": [41, 60], "counts": [True, 2459]},
}


def _write(root: Path, content: Any) -> None:
    coco_layouts.write(root, content)


def bad_coco(root: Path) -> Iterator[Case]:
    """Sets like the one at ``root`` (`coco_layouts.coco`), each with a fault in its annotation file."""
    good = coco_layouts.read(root)

    def case(content: Any) -> Callable[[Path], object]:
        def make(target: Path) -> None:
            os.symlink(root / "train", target / "train")
            path = coco_layouts.file_of(target)
            path.parent.mkdir()
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

        return make

    for kind in ("images", "categories", "annotations"):
        for name, value in VALUES.items():
            yield f"{kind}: {name}", case(with_value(good, (kind,), value))
            rows = copy.deepcopy(good[kind])
            rows[0] = value
            yield f"{kind}[0]: {name}", case({**good, kind: rows[1:] if value is GONE else rows})
            for key in good[kind][0]:
                rows = [with_value(good[kind][0], (key,), value), *good[kind][1:]]
                yield f"{kind}[0].{key}: {name}", case({**good, kind: rows})
        yield f"{kind} twice", case({**good, kind: good[kind] * 2})
    for name, mask in MASKS.items():
        rows = [{**good["annotations"][0], "segmentation": mask}, *good["annotations"][1:]]
        yield f"segmentation: {name}", case({**good, "annotations": rows})
    for at in range(4):
        for name, value in VALUES.items():
            box = list(good["annotations"][0]["bbox"])
            box[at] = None if value is GONE else value
            rows = [{**good["annotations"][0], "bbox": box}, *good["annotations"][1:]]
            yield f"bbox[{at}]: {name}", case({**good, "annotations": rows})
    text = json.dumps(good).encode()
    raw = {
        "empty": b"",
        "cut": text[: len(text) // 2],
        "deep": _DEEP.encode(),
        "latin": b'{"a": "\xe9"}',
        "zeros": bytes(99),
    }
    raw |= {
        "long number": b'{"images": ' + b"1" * 5000 + b"}",
        "two values": text + text,
        "bom": b"\xef\xbb\xbf" + text,
    }
    yield from ((f"file: {name}", case(content)) for name, content in raw.items())


def bad_scenes() -> Iterator[Case]:
    """Scenes whose first annotation is at fault."""
    first = Path("annotations", "training", "scene_0.png")
    labels = scene_layouts.values(5, 0)
    rgb = np.repeat(labels[..., None], 3, axis=2)
    drawn: dict[str, Any] = {
        "larger": np.pad(labels, 3),
        "rgb": rgb,
        "alpha": np.dstack([rgb, labels]),
        "grey alpha": Image.fromarray(labels).convert("LA"),
        "one bit": Image.fromarray(labels > 2),
        "16 bits": labels.astype(np.uint16) * 300,
        "high values": labels + 200,
        "nothing": labels * 0,
        "palette": Image.fromarray(labels).convert("P"),
    }

    def of(image: Any) -> Callable[[Path], object]:
        def make(target: Path) -> None:
            scene_layouts.scenes(target)
            (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(target / first)

        return make

    yield from ((f"annotation: {name}", of(image)) for name, image in drawn.items())
    for kind, make in bad_files():
        for place in (first, Path("images", "training", "scene_0.jpg"), Path("classes.txt")):

            def put(target: Path, make: Callable[[Path], object] = make, place: Path = place) -> None:
                scene_layouts.scenes(target)
                (target / place).unlink()
                make(target / place)

            yield f"{place.name}: {kind}", put


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *more: bytes) -> bytes:
    """A small PNG file whose header claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    end = _chunk(b"IDAT", zlib.compress(bytes(1000))) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + b"".join(more) + end


def bombs() -> dict[str, bytes]:
    """Small files that claim to be more than memory holds, by name."""
    side = 100_000
    text = _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(8 << 20)))
    jpeg = b"\xff\xd8\xff\xc0\x00\x0b\x08" + struct.pack(">HH", 65_500, 65_500) + b"\x01\x01\x11\x00"
    jpeg += b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(100) + b"\xff\xd9"
    entries = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, 100)]
    tiff = b"II*\0" + struct.pack("<IH", 8, len(entries))
    tiff += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries) + bytes(104)
    vp8x = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16_383).to_bytes(3, "little") * 2
    webp = b"RIFF" + struct.pack("<I", 4 + len(vp8x)) + b"WEBP" + vp8x
    gif = (
        b"GIF89a"
        + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0)
    )
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return {
        "png": png(side, side),
        "png text": png(4, 4, text),
        "jpeg": jpeg,
        "tiff": tiff,
        "webp": webp,
        "gif": gif + b"\x02\x02\x4c\x01\x00;",
        "bmp": bmp,
        "ppm": b"P6 100000 100000 255\n" + bytes(99),
    }


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(path.parent)  # the path of a socket is short
        try:
            server.bind(path.name)
        finally:
            os.chdir(before)


def bad_files() -> Iterator[Case]:
    """What may be found under the name of a file."""
    yield "pipe", os.mkfifo
    yield "socket", _socket
    yield "device", lambda path: os.symlink("/dev/zero", path)
    yield "folder", Path.mkdir
    yield "dangling link", lambda path: os.symlink("nowhere", path)
    yield "link to itself", lambda path: os.symlink(path.name, path)
    yield "empty", lambda path: path.write_bytes(b"")
    yield "text", lambda path: path.write_text("hello")
    yield "zeros", lambda path: path.write_bytes(bytes(5000))
    for name, content in bombs().items():
        yield f"bomb {name}", lambda path, content=content: path.write_bytes(content)


def bad_images() -> Iterator[Case]:
    """Folders of two classes, in one of which something else has the name of an image."""

    def of(make: Callable[[Path], object]) -> Callable[[Path], object]:
        def folder(target: Path) -> None:
            rng = np.random.default_rng(0)
            for n, part in enumerate(("train/a", "train/b", "test/a", "test/b") * 3):
                path = target / part / f"{n}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
            make(target / "train" / "a" / "odd.png")

        return folder

    yield from ((name, of(make)) for name, make in bad_files())
    yield "loop of links", of(lambda path: os.symlink("..", path.with_name("loop")))
