"""The user's own images: class folders, a folder of pictures, a torch Dataset.

Shape suffixes: N images, C channels, H height, W width.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mlomae.common.errors import ConfigError, DataError
from mlomae.data.images import FileSource, Source, digest_bytes, digest_pixels
from mlomae.data.objects import MaskFiles
from mlomae.data.paths import (
    LabelledFiles,
    existing_folder,
    folder_title,
    list_images,
    scan_classes,
    split_folder,
    subfolders,
)
from mlomae.data.reader import IMAGE_ENDINGS, decode, decode_all, header_size, in_threads, read_bytes, rgb
from mlomae.data.registry import register_dataset

HELD_OUT = 0.2
"""Share of the images of every class that ``part="held_out"`` has, where a folder has no split of its own."""


class WithObjects(FileSource):
    """Image files of which a folder of masks may say where their objects are."""

    masks: MaskFiles | None = None

    def read_objects(self, folder: str | None, values: Sequence[int] | None) -> None:
        if folder is None and values is not None:
            raise ConfigError(f"{self.name}: objects_values are of the masks in objects_folder; set that, too")
        self.masks = None if folder is None else MaskFiles(folder, self, values)
        self.has_objects = self.masks is not None

    def object_mask(self, i: int) -> Tensor | None:
        return None if self.masks is None else self.masks.read(i)


@register_dataset("imagefolder")
class ImageFolder(WithObjects):
    """``ROOT/SPLIT/<class>/**/*.jpg`` (or png, bmp, webp, tif), as in torchvision's ImageFolder; decoded on access.

    ``cache=True`` decodes once into memory and needs images of one size; ``digest`` and ``fingerprint`` are still those
    of the files. ``part`` takes the "train" or the "held_out" images of a folder that has no split of its own
    (`held_out_images`). ``objects_folder`` has a PNG for every image of ``ROOT/SPLIT``, ``<class>/a.png`` for
    ``<class>/a.jpg``, that says where its object is: the pixels that are not 0, or of ``objects_values``
    (`mlomae.data.objects`).

    Raises DataError: missing folder, no or empty class folder, file that cannot be decoded, sizes that differ (cache),
    a part without images, an image without a mask.
    """

    named_by_folder = True

    def __init__(
        self,
        root: str,
        split: str = "train",
        cache: bool = False,
        part: Literal["all", "train", "held_out"] = "all",
        objects_folder: str | None = None,
        objects_values: list[int] | None = None,
    ) -> None:
        base = existing_folder(root, "imagefolder")
        folder = split_folder(base, split, "imagefolder")
        classes, listed = scan_classes(folder)
        if part != "all":
            labels = np.asarray(listed.labels)
            chosen = held_out_images(folder, listed.files, labels) == (part == "held_out")
            if not chosen.any():
                raise DataError(f"imagefolder: no class of {folder} has two different images; add some to each")
            files = [file for file, taken in zip(listed.files, chosen, strict=True) if taken]
            listed = LabelledFiles(folder, files, labels[chosen], listed.left_out)
        super().__init__("imagefolder", split if part == "all" else part, base, classes, listed)
        if part != "all":  # the parts share folders and no image
            self.locations = frozenset([str(folder / f"<{part}>")])
        self.images_NCHW = decode_all(folder, listed.files) if cache else None
        self.read_objects(objects_folder, objects_values)

    def image(self, i: int) -> Tensor:
        return super().image(i) if self.images_NCHW is None else self.images_NCHW[i]


def held_out_images(folder: Path, files: Sequence[str], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,), which of ``files`` are held out: `HELD_OUT` of every class, at least one of two, by the order of digests of
    their contents: copies of an image stay together, in whatever format, and an image stays where it is when others
    are added or renamed, but for those at the border."""
    digests = digest_pictures(folder, files)
    chosen = np.zeros(len(files), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        different = np.unique(digests[members])
        count = max(round(len(different) * HELD_OUT), 1) if len(different) > 1 else 0
        chosen[members] = np.isin(digests[members], different[:count])
    return chosen & ~np.isin(digests, digests[~chosen])  # an image in two classes


_PIXELS: dict[bytes, bytes] = {}  # digest of a file -> of its pixels; both parts of a split ask, and so does each run


def digest_pictures(folder: Path, files: Sequence[str]) -> NDArray[np.bytes_]:
    """(N,), the digests of ``files``, where files of equal pixels (of other formats or metadata) have the first in
    order of theirs. Only files whose size another one has are decoded."""
    path = lambda i: str(folder / files[i])  # noqa: E731
    digests = np.array(list(in_threads(lambda i: digest_bytes(read_bytes(path(i))), range(len(files)))))
    different, first = np.unique(digests, return_index=True)
    sizes = list(in_threads(lambda i: header_size(path(i)), first.tolist()))
    count = Counter(sizes)

    def pixels_of(k: int) -> bytes:
        own = bytes(different[k])
        if sizes[k] is None or count[sizes[k]] == 1:
            return own
        if own not in _PIXELS:
            try:
                _PIXELS[own] = digest_pixels(decode(path(first[k])))
            except DataError:  # who reads its pixels says so
                return own
        return _PIXELS[own]

    names: dict[bytes, bytes] = {}
    pixels = in_threads(pixels_of, range(len(first)))
    same = [names.setdefault(found, own) for found, own in zip(pixels, different, strict=True)]
    return np.array(same)[np.searchsorted(different, digests)]


@register_dataset("pictures")
class Pictures(WithObjects):
    """The pictures in ROOT, or in its folder ``split``, sorted by name, without labels; those in folders below are
    ignored unless ``below``. ``objects_folder`` and ``objects_values`` as in `ImageFolder`.

    All are of one class, so that a strategy that learns from labels has nothing to learn from. Raises DataError for a
    folder that does not exist or holds no picture.
    """

    named_by_folder = True

    def __init__(
        self,
        root: str,
        split: str = ".",
        below: bool = False,
        objects_folder: str | None = None,
        objects_values: list[int] | None = None,
    ) -> None:
        base = existing_folder(root, "pictures")
        folder = split_folder(base, split, "pictures")
        files, left_out = list_images(folder, below=below)
        if not files:
            raise DataError(
                f"pictures: {folder} holds no picture ({', '.join(IMAGE_ENDINGS)}); give a folder that does"
            )
        listed = LabelledFiles(folder, files, [0] * len(files), left_out)
        super().__init__("pictures", folder.name, base, ["picture"], listed)
        self.read_objects(objects_folder, objects_values)

    @classmethod
    def list_splits(cls, base: Path) -> list[str]:
        return ["."]


class TorchDataset(Source):
    """The items of a map-style torch Dataset: (image, label), or an image alone, which gives all the label 0.

    An image is a PIL image, or a tensor (3, H, W) or (1, H, W), uint8 or float in [0, 1] and then rounded to 8 bits.
    It must be the same at every access: crops and flips belong to ``data.augment``. Labels are ``targets``
    of the dataset if it has them (as those of torchvision do), else all items are read once.

    Raises DataError for an item that is none of these, and for a dataset whose transform is random.
    """

    def __init__(self, dataset: Dataset[Any], split: str) -> None:
        self.dataset, self.name, self.split, self.root = dataset, type(dataset).__name__, split, "memory"
        self.locations = frozenset({f"dataset {id(dataset)}"})
        if not len(dataset):  # type: ignore[arg-type]
            raise DataError(f"{self.name}: the dataset is empty")
        self.labels = self._read_labels()
        known = list(map(str, getattr(dataset, "classes", ())))
        self.classes = known if len(known) > self.labels.max() else list(map(str, range(self.labels.max() + 1)))
        if self.pixel_digest(0) != self.pixel_digest(0):
            raise DataError(
                f"{self.name}: item 0 differs between two accesses; remove random transforms, data.augment has them"
            )

    def _read_labels(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        count = len(self.dataset)  # type: ignore[arg-type]
        targets = getattr(self.dataset, "targets", None)
        if targets is None or len(targets) != count or getattr(self.dataset, "target_transform", None) is not None:
            items = (self.dataset[i] for i in range(count))
            targets = [item[1] if isinstance(item, tuple | list) else 0 for item in items]
        labels = np.asarray(targets)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
            raise DataError(f"{self.name}: labels must be integers from 0; give items (image, index of the class)")
        return labels.astype(np.int64)

    def image(self, i: int) -> Tensor:
        item = self.dataset[i]
        image = item[0] if isinstance(item, tuple | list) else item
        if isinstance(image, Image.Image):
            return rgb(image)
        if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] not in (1, 3):
            shape = f" of shape {tuple(image.shape)}" if isinstance(image, Tensor) else ""
            what = f"item {i} is a {type(image).__name__}{shape}"
            raise DataError(f"{self.name}: {what}; give PIL images or tensors (3, H, W)")
        if image.dtype != torch.uint8:
            if not image.is_floating_point() or image.min() < 0 or image.max() > 1:
                raise DataError(f"{self.name}: item {i} has values outside [0, 1]; give images that are not normalised")
            image = (255 * image).round().to(torch.uint8)
        return image.expand(3, -1, -1)


def folder_config(root: str | os.PathLike[str]) -> dict[str, Any]:
    """How a config describes a folder: of class folders, or of pictures without labels.

    Raises DataError for a folder that does not exist.
    """
    base = existing_folder(root, "images")
    if subfolders(base):
        title = folder_title(base)
        return {"type": "imagefolder", "root": str(base.parent), "split": base.name, "title": title}
    return {"type": "pictures", "root": str(base)}
