"""Endless, resumable streams of batches: the sample at position p of a stream is a function of (seed, name, p) alone.

There is no generator state: every worker, every process and every resumed run finds the same sample at a position.

Shape suffixes: B batch, S side of the augmented image.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mlomae.common import random_keys
from mlomae.common.errors import ConfigError, DataError
from mlomae.common.registry import check_range
from mlomae.data.augment import Augmentation
from mlomae.data.images import Source

Batch = dict[str, Tensor]


class Stream:
    """Samples of ``source`` at ``indices`` (all if None), reshuffled every epoch, augmented, without end.

    Position p is in epoch ``p // n`` of the n indices; the order of an epoch follows from (seed, name, epoch), the key
    of a sample from (seed, name, epoch, index). With ``pixels`` batches have labels of pixels, too.

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
        self._labels = torch.from_numpy(np.asarray(source.labels, dtype=np.int64))
        self._orders: dict[int, Tensor] = {}

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

    def batch(self, start: int, size: int) -> Batch:
        """Samples at positions ``start`` to ``start + size``.

        Returns:
            ``image`` (B, 3, S, S) float32 normalised; ``label``, ``index`` (into the source), ``epoch`` and ``key``
            (for further draws, with a salt other than AUGMENT_SALT), each (B,) int64; ``object`` (B, S, S) bool if the
            source has objects; ``pixel_label`` (B, S, S) uint8, IGNORE for no label, with ``pixels``.
        """
        epoch_B, index_B = self.locate(start, size)
        key_B = random_keys.fold(random_keys.fold(random_keys.root_key(self.seed, self.name), epoch_B), index_B)
        chosen = index_B.tolist()
        masks = [self.source.object_mask(i) for i in chosen] if self.source.has_objects else None
        image, objects = self.augment([self.source.image(i) for i in chosen], key_B, masks)  # type: ignore[arg-type]
        batch = {"image": image, "label": self._labels[index_B], "key": key_B, "index": index_B, "epoch": epoch_B}
        if objects is not None:
            batch["object"] = objects
        if self.pixels:
            batch["pixel_label"] = self.augment.cut_labels([self.source.pixel_labels(i) for i in chosen], key_B)
        return batch


@dataclass(eq=False)
class OuterBatches(Dataset[dict[str, Any]]):
    """Item t holds the batches of outer iteration t: ``lower`` (K batches), and ``head`` and ``upper`` if given.

    Each rank gets a contiguous slice of every global batch, so all ranks together see exactly what one process sees.
    Use as ``DataLoader(outer, batch_size=None, sampler=range(start, stop), num_workers=w)``.

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
        for key in ("batch_size", "feedback_batch_size"):
            value, processes = getattr(self, key), self.world_size
            if value < 1 or value % processes:
                raise ConfigError(f"{key} {value} is not a multiple of {processes} processes; change one of the two")
        check_range("batches", "[1, inf)", steps_per_outer=self.steps_per_outer)
        if not 0 <= self.rank < self.world_size:
            ranks = f"0..{self.world_size - 1}"
            raise ConfigError(f"rank {self.rank} is outside {ranks}; start the processes with torchrun")

    def _slice(self, stream: Stream, number: int, size: int) -> Batch:
        share = size // self.world_size
        return stream.batch(number * size + self.rank * share, share)

    def __getitem__(self, t: int) -> dict[str, Any]:
        first = t * self.steps_per_outer
        steps = range(first, first + self.steps_per_outer)
        item: dict[str, Any] = {"lower": [self._slice(self.lower, step, self.batch_size) for step in steps]}
        for level, stream in (("head", self.head), ("upper", self.upper)):
            if stream is not None and (self.needed is None or level in self.needed(t)):
                item[level] = self._slice(stream, t, self.feedback_batch_size)
        return item
