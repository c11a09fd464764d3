"""Where the images of a data set are kept: in files that are decoded on each access, or decoded in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mlomae.data.images import Images, Source
from mlomae.data.paths import LabelledFiles
from mlomae.data.reader import decode, header_size, read_bytes


class ImageFiles(Images):
    """Image files below one folder, which is their location unless a subclass sets ``locations``.

    ``digest`` covers the bytes of a file; ``fingerprint`` covers label, relative path and size of each file, so that
    a copy elsewhere has the same one and no file needs to be read.

    Args:
        folder: resolved folder that ``files`` are relative to.
        files: one path per image.
    """

    content = "file"

    def __init__(
        self, name: str, split: str, root: Path, folder: Path, classes: Sequence[str], files: Sequence[str]
    ) -> None:
        self.name, self.split, self.root, self.folder = name, split, str(root), folder
        self.classes, self.locations = classes, frozenset([str(folder)])
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
        return header_size(self.path(i)) or super().image_size(i)

    def content_size(self, i: int) -> int:
        return os.path.getsize(self.path(i))

    def digest(self, i: int) -> bytes:
        return hashlib.blake2b(read_bytes(self.path(i)), digest_size=16).digest()

    def _fingerprint_item(self, i: int) -> bytes:
        return b"%s %d\n" % (os.fsencode(Path(self.relative_path(i)).as_posix()), self.content_size(i))


class FileSource(ImageFiles, Source):
    """Image files below one folder, with one label each, an index into ``classes``."""

    def __init__(self, name: str, split: str, root: Path, classes: Sequence[str], listed: LabelledFiles) -> None:
        super().__init__(name, split, root, listed.folder, list(classes), listed.files)
        self.labels = np.asarray(listed.labels, dtype=np.int64)


class MemorySource(Source):
    """Labelled images of one size, decoded in memory: ``images_NCHW`` (N, 3, H, W) uint8.

    The tensor is shared, not copied, by forked workers, and sent through shared memory to spawned ones.
    """

    def __init__(
        self,
        name: str,
        split: str,
        root: str,
        classes: Sequence[str],
        images_NCHW: Tensor,
        labels: ArrayLike,
        locations: Iterable[str],
    ) -> None:
        if images_NCHW.dtype != torch.uint8 or images_NCHW.ndim != 4 or images_NCHW.shape[1] != 3:
            raise ValueError(f"images must be uint8 (N, 3, H, W), got {images_NCHW.dtype} {tuple(images_NCHW.shape)}")
        self.labels = np.asarray(labels, dtype=np.int64)
        if len(images_NCHW) != len(self.labels):
            raise ValueError(f"{len(images_NCHW)} images but {len(self.labels)} labels")
        self.name, self.split, self.root, self.classes = name, split, root, list(classes)
        self.images_NCHW, self.locations = images_NCHW.contiguous(), frozenset(locations)

    def image(self, i: int) -> Tensor:
        return self.images_NCHW[i]

    def fingerprint(self, indices: Iterable[int] | None = None) -> str:
        # A block at a time: fast without a second copy of the whole data set.
        chosen = np.arange(len(self)) if indices is None else np.fromiter(indices, dtype=np.int64)
        total = hashlib.sha256(repr(tuple(self.images_NCHW.shape[1:])).encode())
        total.update(np.ascontiguousarray(self.labels[chosen], dtype="<i8").tobytes())
        for start in range(0, len(chosen), 4096):
            total.update(self.images_NCHW[torch.from_numpy(chosen[start : start + 4096])].numpy().data)
        return total.hexdigest()
