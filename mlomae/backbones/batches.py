"""Batches that are functions of (seed, iteration): for any number of workers, of processes, of interruptions.

An epoch's order is the data set's own (`random_keys.epoch_order` of seed, name and epoch, as in `mlomae.data.Stream`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from mlomae.common.errors import ConfigError, MlomaeError, from_worker

Item = tuple[int, int, int]
"""(epoch, position in the data set, 0): one augmented image; the 0 is part of the keys that augmentations draw from."""


class Ordered(Protocol):
    """A data set that says in which order an epoch visits it, and takes an `Item`."""

    def __len__(self) -> int: ...

    def order(self, epoch: int) -> Tensor: ...

    def __getitem__(self, item: Any) -> dict[str, Any]: ...


def check_ranks(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank {rank} is outside 0..{world_size - 1}; start the processes with torchrun")


def share_of(images: int, rank: int, world_size: int) -> range:
    """What a rank evaluates: rank r has the r-th contiguous part of all images; no padding, nothing dropped."""
    check_ranks(rank, world_size)
    return range(rank * images // world_size, (rank + 1) * images // world_size)


class EpochBatches(Sampler[list[Item]]):
    """This rank's items of every iteration of a run, or of those from ``start`` on.

    Args:
        images: `LabelledImages`, or features in their place.
        batch_size: over all processes; a process gets the contiguous slice of its rank. The images that do not fill a
            batch, others in each epoch, are left out.
        epochs, iterations: the length of the whole run; the last of the epochs that ``iterations`` make may end early.

    ``per_epoch`` is the number of iterations of an epoch, ``stop`` that of the run. Raises ConfigError for a batch size
    that does not fit the data or the processes.
    """

    def __init__(
        self,
        images: Ordered,
        *,
        batch_size: int,
        epochs: int | None = None,
        iterations: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size {batch_size} is not positive; give images a step, over all processes")
        if batch_size > len(images):
            count = len(images)
            raise ConfigError(f"batch_size {batch_size} exceeds the {count} training images; lower it to at most that")
        check_ranks(rank, world_size)
        if batch_size % world_size:
            raise ConfigError(
                f"batch_size {batch_size} is not a multiple of {world_size} processes; change one of them"
            )
        self.images, self.share, self.rank, self.world_size = images, batch_size // world_size, rank, world_size
        self.per_epoch = len(images) // batch_size
        self.start, self.stop = 0, iterations or (epochs or 0) * self.per_epoch

    def starting_at(self, iteration: int) -> EpochBatches:
        """The same batches from ``iteration`` of the run on; ConfigError if that is outside it."""
        if not 0 <= iteration <= self.stop:
            raise ConfigError(f"start_iteration {iteration} is outside 0..{self.stop}, the run")
        other = copy.copy(self)
        other.start = iteration
        return other

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Item]]:
        epoch, order = -1, torch.empty(0)
        for iteration in range(self.start, self.stop):
            if iteration // self.per_epoch != epoch:
                epoch = iteration // self.per_epoch
                order = self.images.order(epoch)
            first = (iteration % self.per_epoch * self.world_size + self.rank) * self.share
            yield [(epoch, position, 0) for position in order[first : first + self.share].tolist()]


class ImageLoader(DataLoader[dict[str, Any]]):
    """A DataLoader that shows a worker's MlomaeError as its one line, without the worker's traceback."""

    def __init__(self, images: Any, **options: Any) -> None:
        # every start would draw from the global generator
        super().__init__(images, pin_memory=torch.cuda.is_available(), generator=torch.Generator(), **options)

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except MlomaeError as error:
            raise from_worker(error) from error
