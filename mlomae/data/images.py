"""What data sets of every task share: uint8 images in a fixed order, each with an identity that can be compared.

Shape suffixes: C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from torch import Tensor


class Images:
    """Images in a fixed order. Subclasses set the attributes and override the methods that raise.

    Attributes:
        name: kind of data set, as in the config's ``type``.
        split: which part, named as its publishers name it: ``train`` or ``training``, then ``test``, or ``val`` or
            ``validation`` where the labels of the test part are not public.
        root: resolved folder, or ``"embedded"`` if the images are made by the package.
        classes: one name a class.
        locations: resolved paths the pixels come from (folders or files; a pseudo-path for embedded images). Two
            sources that share one, or of which one contains the other, share images.
        content: what ``digest`` hashes, ``"pixels"`` or ``"file"``; only digests of one kind are comparable.
    """

    name: str
    split: str
    root: str
    classes: Sequence[str]
    locations: frozenset[str]
    content: str = "pixels"

    def __len__(self) -> int:
        raise NotImplementedError

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
        """16-byte blake2b of the content of image ``i``: pixel bytes, or file bytes for sources that read folders."""
        return self.pixel_digest(i)

    def pixel_digest(self, i: int) -> bytes:
        """16-byte blake2b of the shape and the pixel bytes of image ``i``; comparable between all sources."""
        image_CHW = self.image(i)
        content = hashlib.blake2b(repr(tuple(image_CHW.shape)).encode(), digest_size=16)
        content.update(image_CHW.contiguous().numpy().data)
        return content.digest()

    def fingerprint(self, indices: Iterable[int] | None = None) -> str:
        """SHA-256 (hex) of the ordered content, of all images or of ``indices``: labels and pixel bytes.

        Sources that read folders hash relative path, file size and label instead of pixels.
        """
        total = hashlib.sha256()
        for i in range(len(self)) if indices is None else indices:
            total.update(self._fingerprint_label(int(i)) + self._fingerprint_item(int(i)))
        return total.hexdigest()

    def _fingerprint_label(self, i: int) -> bytes:
        raise NotImplementedError

    def _fingerprint_item(self, i: int) -> bytes:
        image_CHW = self.image(i)
        return repr(tuple(image_CHW.shape)).encode() + image_CHW.contiguous().numpy().tobytes()

    def describe(self) -> str:
        """One phrase that identifies the source in messages and records, e.g. ``cifar10 test at /data/cifar``."""
        return f"{self.name} {self.split} at {self.root}"
