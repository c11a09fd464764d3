"""What a data set is: uint8 images in a fixed order, each with an identity that can be compared, and their labels.

Shape suffixes: N images of the data set, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mlomae.common.errors import DataError
from mlomae.data.paths import subfolders

IGNORE = 255
"""Label of pixels without a label: they count neither in the loss nor in the score."""


class Images:
    """Images in a fixed order. Subclasses set the attributes and override the methods that raise.

    Attributes:
        name: the data set's name, the ``type`` of a config; `register_dataset` sets it on the class.
        split: named as its publishers name it: ``train`` or ``training``, then ``test``, or ``val`` or ``validation``
            where the test labels are not public.
        root: resolved folder, or ``"embedded"`` if the package draws the images.
        classes: one name per class.
        locations: resolved paths that the pixels come from (folders or files; a pseudo-path for embedded images). Two
            data sets share images if they share a location or if one location contains the other.
        content: what ``digest`` hashes, ``"pixels"`` or ``"file"``; only digests of one kind are comparable.
        contents, remedy: what data sets of this kind have, and what to do about missing or damaged files; for messages.
    """

    contents = "images"
    remedy = "download the data set again"
    name: str
    split: str
    root: str
    classes: Sequence[str]
    locations: frozenset[str]
    content: str = "pixels"

    def __len__(self) -> int:
        raise NotImplementedError

    @classmethod
    def find_splits(cls, base: Path) -> list[str]:
        """Splits in the folder ``base``, training splits first; here the folders that hold class folders.

        Raises DataError if there is none.
        """
        found = [name for name in subfolders(base) if any(entry.is_dir() for entry in (base / name).iterdir())]
        if not found:
            expected = base / "train" / "<class>" / "*.jpg"
            raise DataError(f"{cls.name}: {base} has no class folders; expected {expected}")
        return sorted(found, key=lambda split: (split != "train", split))

    def image(self, i: int) -> Tensor:
        """Image ``i``: (3, H, W) uint8, RGB. Treat as read-only. Raises DataError if it cannot be decoded."""
        raise NotImplementedError

    def image_size(self, i: int) -> tuple[int, int]:
        """(H, W) of image ``i`` in pixels."""
        _, height, width = self.image(i).shape
        return height, width

    def content_size(self, i: int) -> int:
        """Bytes of what ``digest`` hashes: images of different size cannot have the same digest."""
        return self.image(i).numel()

    def digest(self, i: int) -> bytes:
        """16-byte blake2b of image ``i``: of its pixels, or of the bytes of its file if ``content`` says so."""
        return self.pixel_digest(i)

    def pixel_digest(self, i: int) -> bytes:
        """16-byte blake2b of the shape and the pixels of image ``i``; comparable between all data sets."""
        return hashlib.blake2b(self._pixel_bytes(i), digest_size=16).digest()

    def fingerprint(self, indices: Iterable[int] | None = None) -> str:
        """SHA-256 (hex) of labels and pixels, in order, of all images or of ``indices``.

        Data sets that read files hash relative path and file size instead of pixels.
        """
        total = hashlib.sha256()
        for i in range(len(self)) if indices is None else indices:
            total.update(self._fingerprint_label(int(i)) + self._fingerprint_item(int(i)))
        return total.hexdigest()

    def _fingerprint_label(self, i: int) -> bytes:
        raise NotImplementedError

    def _fingerprint_item(self, i: int) -> bytes:
        return self._pixel_bytes(i)

    def _pixel_bytes(self, i: int) -> bytes:
        image_CHW = self.image(i)
        return repr(tuple(image_CHW.shape)).encode() + image_CHW.contiguous().numpy().tobytes()

    def fault(self, what: str, remedy: str = "") -> DataError:
        """The error that says ``what`` is wrong with this data set and what to do, by default its ``remedy``."""
        return DataError(f"{self.name}: {what}; {remedy or self.remedy}")

    def describe(self) -> str:
        """One phrase that identifies the data set in messages and records, e.g. ``cifar10 test at /data/cifar``."""
        return f"{self.name} {self.split} at {self.root}"


class Source(Images):
    """Images with one label each, for pretraining and classification. Subclasses set the attributes.

    Attributes, besides those of Images:
        labels: (N,) int64, indices into ``classes``.
        has_objects: whether ``object_mask`` gives masks.
        pixel_classes: what ``pixel_labels`` are indices into; empty where pixels have no labels.
    """

    contents = "one label per image"
    classes: list[str]
    labels: NDArray[np.int64]
    has_objects: bool = False
    pixel_classes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def object_mask(self, i: int) -> Tensor | None:
        """(H, W) bool, True on objects, or None where nothing is known about objects."""
        return None

    def pixel_labels(self, i: int) -> Tensor:
        """(H, W) uint8, the class of every pixel, or IGNORE where it has no label."""
        raise NotImplementedError

    def _fingerprint_label(self, i: int) -> bytes:
        return b"%d " % self.labels[i]
