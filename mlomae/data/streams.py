"""Endless, resumable streams of batches: the sample at position p of a stream is a function of (seed, name, p) alone.

There is no generator state: every worker, every process and every resumed run finds the same sample at a position.
Workers decode and crop; what comes to the training device is uint8, and is normalised there. Images in memory are
cropped on the device, too, and need no workers.

Shape suffixes: B batch, S side of the augmented image.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mlomae.common import random_keys
from mlomae.common.errors import ConfigError, DataError
from mlomae.common.registry import check_range
from mlomae.common.workers import worker_options
from mlomae.data.augment import Augmentation
from mlomae.data.images import IGNORE, Source
from mlomae.data.resample import Crops, resize_crop

Batch = dict[str, Tensor]
LEVELS = ("lower", "head", "upper")
PIECE = 2**23
"""Bytes of the images in a worker's item, at most: 55 images of 224 pixels."""
DECODED = 2**26
"""Bytes of decoded images that a worker holds before it cuts them, about: one of 20 megapixels."""


@contextmanager
def _one_thread() -> Iterator[None]:
    """Many small operations: a second thread makes them no faster, and ten times slower while the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def check_divisible(sizes: Mapping[str, int], processes: int) -> None:
    """Raise ConfigError, naming the key, for a batch size that ``processes`` cannot share equally."""
    for key, size in sizes.items():
        if size < 1 or size % processes:
            raise ConfigError(f"{key} {size} is not a multiple of {processes} processes; change one of the two")


def piece_size(side: int) -> int:
    """Images of a piece: an item of a worker."""
    return max(1, min(256, PIECE // (3 * side**2)))


def _sized(mask_HW: Tensor | None, height: int, width: int) -> Tensor:
    """The mask of an object at the size of an image, which that of another image need not have."""
    assert mask_HW is not None, "the source has objects"
    if mask_HW.shape == (height, width):
        return mask_HW
    rows, columns = (torch.arange(n) * own // n for n, own in zip((height, width), mask_HW.shape, strict=True))
    return mask_HW[rows[:, None], columns]


class Stream:
    """Samples of ``source`` at ``indices`` (all if None), reshuffled every epoch, augmented, without end.

    Position p is in epoch ``p // n`` of the n indices; the order of an epoch follows from (seed, name, epoch), the key
    of a sample from (seed, name, epoch, index). With ``pixels`` batches have labels of pixels, too. With
    ``other_objects``, a control, an image comes with the object of another one, always the same, cut as the image is.

    Raises DataError if ``indices`` is empty or reaches outside the source, or if the source has no labels of pixels.
    """

    def __init__(
        self,
        source: Source,
        indices: Sequence[int] | NDArray[np.int64] | Tensor | None,
        augment: Augmentation,
        seed: int,
        name: str,
        pixels: bool = False,
        other_objects: bool = False,
    ) -> None:
        self.source, self.augment, self.seed, self.name, self.pixels = source, augment, seed, name, pixels
        self.indices = torch.arange(len(source)) if indices is None else torch.as_tensor(indices, dtype=torch.int64)
        what = f"stream {name!r} of {source.describe()}"
        if not len(self.indices):
            raise DataError(f"{what} has no sample; enlarge its share of the split")
        if self.indices.min() < 0 or self.indices.max() >= len(source):
            raise DataError(f"{what} has an index outside 0..{len(source) - 1}; make the split again")
        if pixels and not source.pixel_classes:
            raise DataError(f"{what} lacks a class for every pixel; set data.feedback to a data set of scenes")
        self._object_of = torch.arange(len(source))
        if other_objects:  # of the next image in a fixed order, so that none keeps its own
            order = self.indices[random_keys.permutation(random_keys.root_key(seed, "other objects"), len(self))]
            self._object_of[order] = order.roll(1)
        self._labels = torch.from_numpy(np.asarray(source.labels, dtype=np.int64))
        self.seconds = 0.0  # spent on reading, by this process or its workers
        self._orders: dict[int, Tensor] = {}
        self._images: tuple[str, Tensor] | None = None

    def __len__(self) -> int:
        """Samples of one epoch."""
        return len(self.indices)

    @property
    def labels(self) -> Tensor:
        """(len(self),) int64, in the order of the indices."""
        return self._labels[self.indices]

    def _order(self, epoch: int) -> Tensor:
        """Source indices in the order of ``epoch``; caches the last two, because a batch may span two epochs."""
        if epoch not in self._orders:
            while len(self._orders) >= 2:
                self._orders.pop(next(iter(self._orders)))
            shuffled = random_keys.permutation(random_keys.root_key(self.seed, self.name, epoch), len(self))
            self._orders[epoch] = self.indices[shuffled]
        return self._orders[epoch]

    def locate(self, start: int, size: int) -> tuple[Tensor, Tensor]:
        """Epoch and source index, each (size,) int64, of the positions from ``start``; decodes nothing."""
        position = torch.arange(start, start + size)
        epoch_B = position // len(self)
        index_B = torch.empty_like(position)
        for epoch in torch.unique(epoch_B).tolist():
            here = epoch_B == epoch
            index_B[here] = self._order(epoch)[position[here] % len(self)]
        return epoch_B, index_B

    def batch(self, start: int, size: int, device: torch.device | str = "cpu") -> Batch:
        """Samples at positions ``start`` to ``start + size``, on ``device``.

        Returns:
            ``image`` (B, 3, S, S) float32 normalised; ``label``, ``index`` (into the source), ``epoch`` and ``key``
            (for further draws, with a salt other than AUGMENT_SALT), each (B,) int64; ``object`` (B, S, S) bool if the
            source has objects; ``pixel_label`` (B, S, S) uint8, IGNORE for no label, with ``pixels``.
        """
        return self.join((self.read(*cut) for cut in self.cuts(start, size)), size, device)

    def cuts(self, start: int, size: int) -> list[tuple[int, int]]:
        """First position and size of the pieces in which a batch is read."""
        count = piece_size(self.augment.size)
        return [(start + at, min(count, size - at)) for at in range(0, size, count)]

    def read(self, start: int, size: int) -> Batch:
        """A piece of a batch, as a worker makes it: ``image`` is (B, 3, S, S) uint8, or missing if the images are in
        memory and ``crop`` (5, B) says what `join` cuts; ``seconds`` of work."""
        started = time.perf_counter()
        epoch_B, index_B = self.locate(start, size)
        key_B = random_keys.fold(random_keys.fold(random_keys.root_key(self.seed, self.name), epoch_B), index_B)
        chosen, source = index_B.tolist(), self.source
        batch = {"label": self._labels[index_B], "key": key_B, "index": index_B, "epoch": epoch_B}
        if self.in_memory:
            height_B, width_B = (torch.full((size,), side) for side in source.image(0).shape[-2:])
            crops = self.augment.crops(key_B, height_B, width_B)
            batch["crop"] = torch.stack(crops)
        elif self.augment.reduced_decoding:
            height_B, width_B = torch.tensor([source.image_size(i) for i in chosen]).unbind(dim=1)
            crops = self.augment.crops(key_B, height_B, width_B)
            batch["image"] = self._reduced(chosen, height_B, width_B, crops)
        else:
            crops, height_B, width_B, batch["image"] = self._decoded(chosen, key_B)
        if source.has_objects:
            sizes = zip(self._object_of[index_B].tolist(), height_B.tolist(), width_B.tolist(), strict=True)
            masks = [_sized(source.object_mask(i), *size) for i, *size in sizes]
            batch["object"] = self.augment.cut_maps(masks, crops, height_B, width_B, False)
        if self.pixels:
            labels = [source.pixel_labels(i) for i in chosen]
            batch["pixel_label"] = self.augment.cut_maps(labels, crops, height_B, width_B, IGNORE)
        return batch | {"seconds": torch.tensor(time.perf_counter() - started)}

    def _decoded(self, indices: list[int], key_B: Tensor) -> tuple[Crops, Tensor, Tensor, Tensor]:
        """Boxes, heights and widths of images, and their crops, uint8; of large images few are held at a time."""
        images: list[Tensor] = []
        crops, sizes, cut, held = [], [], [], 0
        for done, i in enumerate(indices, 1):
            images.append(self.source.image(i))
            held += images[-1].nbytes
            if held >= DECODED or done == len(indices):
                sizes.append(torch.tensor([image.shape[-2:] for image in images]))
                crops.append(self.augment.crops(key_B[done - len(images) : done], *sizes[-1].unbind(dim=1)))
                cut.append(self.augment.cut(images, crops[-1]))
                images, held = [], 0
        height_B, width_B = torch.cat(sizes).unbind(dim=1)
        image_BCSS = cut[0] if len(cut) == 1 else torch.cat(cut)
        return Crops._make(map(torch.cat, zip(*crops, strict=True))), height_B, width_B, image_BCSS

    def _reduced(self, indices: list[int], height_B: Tensor, width_B: Tensor, crops: Crops) -> Tensor:
        """`Augmentation.cut` of images that are decoded at a reduced scale where their crop is large."""
        cut, boxes = [], torch.stack(crops, dim=1).tolist()
        for i, rows, columns, (*box, flip) in zip(indices, height_B.tolist(), width_B.tolist(), boxes, strict=True):
            room = min(box[2:]) // (2 * self.augment.size)
            image = self.source.reduced_image(i, next(factor for factor in (8, 4, 2, 1) if factor <= max(1, room)))
            down, across = image.shape[1] / rows, image.shape[2] / columns
            top, left, height, width = (round(v * s) for v, s in zip(box, (down, across, down, across), strict=True))
            small = resize_crop(image, top, left, height, width, self.augment.size)
            cut.append(small.flip(-1) if flip else small)
        return torch.stack(cut)

    @_one_thread()
    def join(self, pieces: Iterable[Batch], size: int, device: torch.device | str) -> Batch:
        """`batch` of ``size`` samples from its pieces; those that follow are not taken."""
        image_BCSS = torch.empty((size, 3, self.augment.size, self.augment.size), device=device)
        parts = []
        for out, piece in zip(image_BCSS.split(piece_size(self.augment.size)), pieces, strict=False):
            self.seconds += piece.pop("seconds").item()
            part = {name: value.to(device, non_blocking=True) for name, value in piece.items()}
            if self.in_memory:
                top, left, height, width, flip = part.pop("crop").unbind()
                crops = Crops(top, left, height, width, flip.bool())
                images = self._on(device).index_select(0, part["index"])
                self.augment.normalise(self.augment.cut(images, crops, out), out)
            else:
                self.augment.normalise(part.pop("image"), out)
            parts.append(part)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} | {"image": image_BCSS}

    @property
    def in_memory(self) -> bool:
        """Whether `join` makes the images, so that workers would have nothing to do."""
        return self.source.images_NCHW is not None

    def _on(self, device: torch.device | str) -> Tensor:
        """The images of a source in memory, on ``device``; a copy is made once."""
        assert self.source.images_NCHW is not None
        if self._images is None or self._images[0] != str(device):
            self._images = (str(device), self.source.images_NCHW.to(device))
        return self._images[1]


@dataclass(eq=False)
class OuterBatches(Dataset[dict[str, Any]]):
    """Item t holds the batches of outer iteration t: ``lower`` (K batches), and ``head`` and ``upper`` if given.

    Each rank gets a contiguous slice of every global batch, so all ranks together see exactly what one process sees.
    `load` gives the items in turn, read by workers in pieces.

    Attributes:
        batch_size, feedback_batch_size: over all ranks, of ``lower``, and of ``head`` and ``upper`` (0: the same).
        steps_per_outer: K, batches of ``lower`` in one item.
        needed: which of "head" and "upper" iteration t reads, by default both; the others are not decoded. What a
            batch holds does not depend on it.

    Raises ConfigError if a batch size cannot be divided by ``world_size``.
    """

    lower: Stream
    head: Stream | None = None
    upper: Stream | None = None
    _: KW_ONLY
    batch_size: int
    feedback_batch_size: int = 0
    steps_per_outer: int = 1
    rank: int = 0
    world_size: int = 1
    needed: Callable[[int], Collection[str]] | None = None

    def __post_init__(self) -> None:
        self.feedback_batch_size = self.feedback_batch_size or self.batch_size
        sizes = {"batch_size": self.batch_size, "feedback_batch_size": self.feedback_batch_size}
        check_divisible(sizes, self.world_size)
        check_range("batches", "[1, inf)", steps_per_outer=self.steps_per_outer)
        if not 0 <= self.rank < self.world_size:
            ranks = f"0..{self.world_size - 1}"
            raise ConfigError(f"rank {self.rank} is outside {ranks}; start the processes with torchrun")

    @property
    def seconds(self) -> float:
        """Spent on reading what was loaded, by this process or its workers."""
        return sum(stream.seconds for level in LEVELS if (stream := getattr(self, level)) is not None)

    def _parts(self, t: int) -> Iterator[tuple[str, int, int]]:
        """Level, first position and size of each batch of iteration t, of this rank's share."""
        first = t * self.steps_per_outer
        numbers = [("lower", step, self.batch_size) for step in range(first, first + self.steps_per_outer)]
        for level in ("head", "upper"):
            if getattr(self, level) is not None and (self.needed is None or level in self.needed(t)):
                numbers.append((level, t, self.feedback_batch_size))
        for level, number, size in numbers:
            share = size // self.world_size
            yield level, number * size + self.rank * share, share

    def __getitem__(self, t: int) -> dict[str, Any]:
        return self._assemble(t, lambda level, start, size: getattr(self, level).batch(start, size))

    def load(
        self, start: int, stop: int, workers: int = 0, device: torch.device | str = "cpu"
    ) -> Iterator[dict[str, Any]]:
        """Items ``start`` to ``stop`` on ``device``. A worker holds two pieces at a time, whatever the batch size."""
        streams = {level: stream for level in LEVELS if (stream := getattr(self, level)) is not None}
        workers = 0 if all(stream.in_memory for stream in streams.values()) else workers
        loader = DataLoader(
            _Pieces(streams),
            batch_size=None,
            sampler=self._pieces(start, stop),  # any iterable of indices
            pin_memory=torch.device(device).type == "cuda",
            generator=torch.Generator(),  # every start would draw from the global one
            **worker_options(workers),
        )
        read = iter(loader)

        def batch(level: str, first: int, size: int) -> Batch:
            stream = streams[level]
            if stream.in_memory:
                return stream.batch(first, size, device)
            return stream.join(read, size, device)

        for t in range(start, stop):
            yield self._assemble(t, batch)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[str, int, int]]:
        """The items of workers, in the order in which `load` needs them."""
        for t in range(start, stop):
            for level, first, size in self._parts(t):
                if not getattr(self, level).in_memory:
                    yield from ((level, *cut) for cut in getattr(self, level).cuts(first, size))

    def _assemble(self, t: int, batch: Callable[[str, int, int], Batch]) -> dict[str, Any]:
        item: dict[str, Any] = {"lower": []}
        for level, first, size in self._parts(t):
            if level == "lower":
                item[level].append(batch(level, first, size))
            else:
                item[level] = batch(level, first, size)
        return item


@dataclass(frozen=True)
class _Pieces(Dataset[Batch]):
    """What workers read: item (level, first position, size)."""

    streams: dict[str, Stream]

    def __getitem__(self, piece: tuple[str, int, int]) -> Batch:
        level, first, size = piece
        return self.streams[level].read(first, size)
