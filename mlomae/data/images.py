"""What a data set is: uint8 images in a fixed order, each with an identity that can be compared, and their labels.

The images are files that are decoded on each access (`ImageFiles`), or decoded in memory (`MemorySource`).

Shape suffixes: N images of the data set, C channels, H height, W width.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mlomae.common.errors import DataError
from mlomae.data.paths import LabelledFiles, folder_title, left_out_phrase, list_images, subfolders
from mlomae.data.reader import decode, header_size, read_bytes

EMBEDDED = "embedded"
"""The root of data sets whose images the package draws."""

IGNORE = 255
"""The value of pixels without a label, which count neither in the loss nor in the score."""


def evenly_spaced(total: int, most: int | None) -> list[int]:
    """Indices of ``most`` of ``total`` items, evenly spaced; of all items if there are no more, or for None."""
    count = total if most is None else min(most, total)
    return [i * total // count for i in range(count)]


def digest_pixels(image_CHW: Tensor) -> bytes:
    """16-byte blake2b of the shape and the pixels of an image; comparable between all data sets."""
    return digest_bytes(_pixel_bytes(image_CHW))


def digest_bytes(content: bytes) -> bytes:
    """16-byte blake2b."""
    return hashlib.blake2b(content, digest_size=16).digest()


def _pixel_bytes(image_CHW: Tensor) -> bytes:
    return repr(tuple(image_CHW.shape)).encode() + image_CHW.contiguous().numpy().tobytes()


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
        fewest_classes, class_remedy: how many are needed to tell classes apart, and what to do about fewer.
        of_one_split: arguments of the constructor that name the files of one split.
        made_of: arguments of the constructor that describe other data sets, of which it is made.
        left_out: what else is in its folders, by kind (`mlomae.data.paths.ImageList`).
        in_memory: whether its images are, so that threads do not read them sooner.
        named_by_folder, given_title: headings call it by the name of its folder, or of its kind; or as the user does.
        provides, remedy, layout: for messages: what data sets of this kind have, what to do about missing or damaged
            files, and where images are below ``root``.
    """

    provides = "images"
    fewest_classes = 1
    class_remedy = ""
    of_one_split: Sequence[str] = ()
    made_of: Sequence[str] = ()
    remedy = "download the data set again"
    layout = "train/<class>/*.jpg"
    name: str
    split: str
    root: str
    classes: Sequence[str]
    locations: frozenset[str]
    left_out: Mapping[str, int] = MappingProxyType({})
    in_memory = False
    named_by_folder = False
    given_title = ""

    @property
    def title(self) -> str:
        """What headings call the data set."""
        return self.given_title or (folder_title(Path(self.root)) if self.named_by_folder else self.name)

    def __len__(self) -> int:
        raise NotImplementedError

    @classmethod
    def find_splits(cls, base: Path) -> list[str]:
        """Splits in the folder ``base``, training splits first. Raises DataError if there is none."""
        found = cls.list_splits(base)
        if not found:
            remedy = "name one (split=NAME)"
            if list_images(base).files:
                remedy = "take its pictures without labels as type 'pictures'"
            raise DataError(f"{cls.name}: {base} has no split; expected {base / cls.layout}, or {remedy}")
        return sorted(found, key=lambda split: (not split.startswith("train"), split))

    @classmethod
    def list_splits(cls, base: Path) -> list[str]:
        """Splits in the folder ``base``, in any order; here the folders that hold class folders, or ``.``
        if several folders hold images themselves."""
        inner = subfolders(base)
        found = [name for name in inner if subfolders(base / name)]
        return found or (["."] if len(inner) > 1 and all(list_images(base / name).files for name in inner) else [])

    def image(self, i: int) -> Tensor:
        """Image ``i``: (3, H, W) uint8, RGB. Treat as read-only. Raises DataError if it cannot be decoded."""
        raise NotImplementedError

    def reduced_image(self, i: int, factor: int) -> Tensor:
        """`image` with its sides divided by ``factor`` (1, 2, 4 or 8), rounded up, where its decoder can do that."""
        return self.image(i)

    def image_size(self, i: int) -> tuple[int, int]:
        """(H, W) of image ``i`` in pixels."""
        _, height, width = self.image(i).shape
        return height, width

    def relative_path(self, i: int) -> str:
        """What messages call image ``i``: the path of its file below the folder, if it has one."""
        return f"image {i}"

    def pixel_digest(self, i: int) -> bytes:
        """16-byte blake2b of the shape and the pixels of image ``i``; comparable between all data sets."""
        return digest_pixels(self.image(i))

    def content_digest(self, i: int) -> bytes:
        """16-byte blake2b of the file of image ``i``, or of its pixels if it has none of its own."""
        return self.pixel_digest(i)

    def label_digest(self, i: int) -> bytes:
        """A text that identifies the labels of image ``i`` by their content."""
        return self._fingerprint_label(i)

    def fingerprint(self, indices: Iterable[int] | None = None) -> str:
        """SHA-256 (hex) of labels and pixels, in order, of all images or of ``indices``.

        Data sets that read files hash relative path and file size instead of pixels: cheap, but blind to an image that
        is replaced by one of as many bytes, which `mlomae.data.content` finds.
        """
        total = hashlib.sha256()
        for i in range(len(self)) if indices is None else indices:
            total.update(self._fingerprint_label(int(i)) + self._fingerprint_item(int(i)))
        return total.hexdigest()

    def _fingerprint_label(self, i: int) -> bytes:
        raise NotImplementedError

    def _fingerprint_item(self, i: int) -> bytes:
        return _pixel_bytes(self.image(i))

    def fault(self, what: str, remedy: str = "") -> DataError:
        """The error that says ``what`` is wrong with this data set and what to do, by default its ``remedy``."""
        return DataError(f"{self.name}: {what}; {remedy or self.remedy}")

    def notes(self) -> list[str]:
        """What a user should know of what was read; `mlomae data check` prints it, a run says it once in its log."""
        return [f"left out: {left_out_phrase(self.left_out)}"] if self.left_out else []

    def describe(self) -> str:
        """One phrase that identifies the data set in messages and records, e.g. ``cifar10 test at /data/cifar``."""
        return f"{self.name} {self.split} at {self.root}"


class Source(Images):
    """Images with one label each, for pretraining and classification. Subclasses set the attributes.

    Attributes, besides those of Images:
        labels: (N,) int64, indices into ``classes``.
        has_objects: whether ``object_mask`` gives masks.
        object_boxes: (N, 4) left, top, right and bottom of each image's object in pixels, the ends outside; if known.
        pixel_classes: what ``pixel_labels`` are indices into; empty where pixels have no labels.
        images_NCHW: (N, 3, H, W) uint8, all images, if they are in memory.
    """

    provides = "one label per image"
    fewest_classes = 2
    class_remedy = "give two classes or more, or pretrain with data.eval=None"
    classes: list[str]
    labels: NDArray[np.int64]
    has_objects: bool = False
    object_boxes: NDArray[np.float64] | None = None
    pixel_classes: Sequence[str] = ()
    images_NCHW: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def object_mask(self, i: int) -> Tensor | None:
        """(H, W) bool, True on objects, or None where nothing is known about objects."""
        return None if self.object_boxes is None else box_mask(self.object_boxes[i], *self.image_size(i))

    def pixel_labels(self, i: int) -> Tensor:
        """(H, W) uint8, the class of every pixel, or IGNORE where it has no label."""
        raise NotImplementedError

    def _fingerprint_label(self, i: int) -> bytes:
        return b"%d " % self.labels[i]


def box_mask(box_4: NDArray[np.float64], height: int, width: int) -> Tensor:
    """(H, W) bool, True in a box: left, top, right and bottom in pixels, the ends outside."""
    left, top, right, bottom = (max(0, round(float(end))) for end in box_4)
    mask_HW = torch.zeros((height, width), dtype=torch.bool)
    mask_HW[top:bottom, left:right] = True
    return mask_HW


class ImageFiles(Images):
    """Image files below one folder, which is their location unless a subclass sets ``locations``.

    ``fingerprint`` covers label, relative path and size of each file, so that a copy elsewhere has the same one and no
    file needs to be read.

    Args:
        folder: resolved folder that ``files`` are relative to.
        files: one path per image.
    """

    stated_sizes: NDArray[np.int64] | None = None
    """(N, 2) annotated height and width; an image that has them only before its EXIF rotation is not rotated."""

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
        return os.path.join(self.folder, self.relative_path(i))

    def image(self, i: int) -> Tensor:
        return self.reduced_image(i, 1)

    def reduced_image(self, i: int, factor: int) -> Tensor:
        return decode(self.path(i), self._stated(i), factor)

    def image_size(self, i: int) -> tuple[int, int]:
        return header_size(self.path(i), self._stated(i)) or super().image_size(i)

    def content_digest(self, i: int) -> bytes:
        return digest_bytes(read_bytes(self.path(i)))

    def _stated(self, i: int) -> tuple[int, int] | None:
        return None if self.stated_sizes is None else (int(self.stated_sizes[i, 0]), int(self.stated_sizes[i, 1]))

    def _fingerprint_item(self, i: int) -> bytes:
        return b"%s %d\n" % (os.fsencode(Path(self.relative_path(i)).as_posix()), os.path.getsize(self.path(i)))


class FileSource(ImageFiles, Source):
    """Image files below one folder, with one label each, an index into ``classes``."""

    def __init__(self, name: str, split: str, root: Path, classes: Sequence[str], listed: LabelledFiles) -> None:
        super().__init__(name, split, root, listed.folder, list(classes), listed.files)
        self.labels, self.left_out = np.asarray(listed.labels, dtype=np.int64), listed.left_out


class MemorySource(Source):
    """Labelled images of one size, decoded in memory: ``images_NCHW`` (N, 3, H, W) uint8.

    The tensor is shared, not copied, by forked workers, and sent through shared memory to spawned ones.
    """

    images_NCHW: Tensor
    in_memory = True

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
