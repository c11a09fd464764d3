"""Sources whose images are files, decoded on each access; the base of every data set that is read from folders."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from mlomae.common.errors import DataError, reason_of
from mlomae.common.system import usable_cores
from mlomae.data.images import Images
from mlomae.data.sources import Source

T = TypeVar("T")


def decode(path: str) -> Tensor:
    """The image at ``path`` as (3, H, W) uint8 RGB. Raises DataError naming the file if it cannot be decoded."""
    try:
        with Image.open(path) as image:
            pixels_HWC = np.array(image.convert("RGB"))
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        raise DataError(f"cannot decode {path} ({reason_of(error)}); replace or delete this file") from error
    return torch.from_numpy(pixels_HWC).permute(2, 0, 1).contiguous()


def in_threads(call: Callable[[int], T], indices: Sequence[int]) -> Iterator[T]:
    """Results in order. Threads, because reading waits for the disk and Pillow decodes without the interpreter."""
    with ThreadPoolExecutor(min(8, 2 * usable_cores())) as pool:
        yield from pool.map(call, indices)


class ImageFiles(Images):
    """Image files below one folder.

    ``digest`` covers the bytes of a file; ``fingerprint`` covers label, relative path and size of each file, so that
    a copy elsewhere has the same one and nothing needs to be read.

    Args:
        folder: resolved folder that ``files`` are relative to.
        files: one path an image.
    """

    content = "file"

    def __init__(
        self,
        name: str,
        split: str,
        root: Path,
        folder: Path,
        classes: Sequence[str],
        files: Sequence[str],
        locations: Iterable[str],
    ) -> None:
        self.name, self.split, self.root, self.folder = name, split, str(root), folder
        self.classes, self.locations = classes, frozenset(locations)
        # Workers would copy a list of a million strings, because its reference counts change; one array stays shared.
        self._files = np.array([os.fsencode(file) for file in files])

    def __len__(self) -> int:
        return len(self._files)

    def relative_path(self, i: int) -> str:
        """Path of image ``i`` below ``folder``."""
        return os.fsdecode(self._files[i])

    def path(self, i: int) -> str:
        """Absolute path of image ``i``."""
        return str(self.folder / self.relative_path(i))

    def image(self, i: int) -> Tensor:
        return decode(self.path(i))

    def image_size(self, i: int) -> tuple[int, int]:
        try:
            with Image.open(self.path(i)) as image:  # reads the header only
                return image.height, image.width
        except Exception:  # decode() words the error
            return super().image_size(i)

    def content_size(self, i: int) -> int:
        return os.path.getsize(self.path(i))

    def digest(self, i: int) -> bytes:
        try:
            return hashlib.blake2b(Path(self.path(i)).read_bytes(), digest_size=16).digest()
        except OSError as error:
            raise DataError(
                f"cannot read {self.path(i)} ({error.strerror}); check the file and its permissions"
            ) from error

    def _fingerprint_item(self, i: int) -> bytes:
        return b"%s %d\n" % (os.fsencode(Path(self.relative_path(i)).as_posix()), self.content_size(i))


class FileSource(ImageFiles, Source):
    """Image files below one folder, with one label each.

    Args, besides those of ImageFiles:
        labels: (N,) integers, indices into ``classes``.
    """

    def __init__(
        self,
        name: str,
        split: str,
        root: Path,
        folder: Path,
        classes: Sequence[str],
        files: Sequence[str],
        labels: ArrayLike,
        locations: Iterable[str],
    ) -> None:
        super().__init__(name, split, root, folder, list(classes), files, locations)
        self.labels = np.asarray(labels, dtype=np.int64)
