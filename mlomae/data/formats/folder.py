"""Images in class folders, ``ROOT/SPLIT/<class>/...`` (the layout of ImageNet and of torchvision's ImageFolder)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlomae.common.errors import DataError
from mlomae.data.files import FileSource, decode
from mlomae.data.paths import existing_folder, split_folder
from mlomae.data.sources import register_source

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def _image_files(folder: Path) -> Iterator[str]:
    """Image files below ``folder``, relative to it, following symlinked folders once (a loop must not hang)."""
    seen: set[str] = set()
    for here, below, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        for file in files:
            if file.lower().endswith(EXTENSIONS) and not file.startswith("."):
                yield os.path.relpath(os.path.join(here, file), folder)


def scan(folder: Path) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """Class names (sorted), image files relative to ``folder`` (sorted within a class) and labels (N,) int64.

    Raises DataError if there is no class folder, or one holds no image.
    """
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise DataError(f"{folder} has no class folders; expected {folder}{os.sep}<class>{os.sep}*.jpg")
    files: list[str] = []
    counts: list[int] = []
    for name in classes:
        found = sorted(_image_files(folder / name))
        if not found:
            raise DataError(f"class folder {folder / name} holds no image; fill it or delete it")
        files += [os.path.join(name, file) for file in found]
        counts.append(len(found))
    return classes, files, np.repeat(np.arange(len(classes), dtype=np.int64), counts)


def decode_all(folder: Path, files: list[str]) -> Tensor:
    """All images decoded: (N, 3, H, W) uint8. Raises DataError naming the first file whose size differs."""
    first = decode(str(folder / files[0]))
    images_NCHW = torch.empty((len(files), *first.shape), dtype=torch.uint8)
    for i, file in enumerate(files):
        image_CHW = first if i == 0 else decode(str(folder / file))
        if image_CHW.shape != first.shape:
            sizes = f"{tuple(image_CHW.shape[1:])} against {tuple(first.shape[1:])}"
            raise DataError(f"{folder / file} differs in size from the first image ({sizes}); use cache=False")
        images_NCHW[i] = image_CHW
    return images_NCHW


@register_source("imagefolder")
class ImageFolder(FileSource):
    """``ROOT/SPLIT/<class>/**/*.jpg`` (or png, bmp, webp, tif), decoded to RGB on each access.

    ``cache=True`` decodes once into memory and needs images of one size; the source still counts as files for
    ``digest`` and ``fingerprint``.

    Raises DataError: missing folder, no or empty class folder, file that cannot be decoded, sizes that differ (cache).
    """

    def __init__(self, root: str, split: str = "train", cache: bool = False) -> None:
        base = existing_folder(root, "imagefolder")
        folder = split_folder(base, split, "imagefolder")
        classes, files, labels = scan(folder)
        super().__init__("imagefolder", split, base, folder, classes, files, labels, [str(folder)])
        self._images_NCHW = decode_all(folder, files) if cache else None

    def image(self, i: int) -> Tensor:
        return super().image(i) if self._images_NCHW is None else self._images_NCHW[i]
