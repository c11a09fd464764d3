"""Batches that are functions of (seed, iteration), whatever the numbers of workers, processes and interruptions."""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sized
from typing import Any

import torch
from mmengine.dist import get_dist_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mlomae.common import random_keys
from mlomae.common.errors import ConfigError, MlomaeError, counted
from mlomae.common.workers import from_worker, worker_options
from mlomae.data.streams import check_divisible

Item = tuple[int, int]
"""(epoch, position in the data set): one augmented image."""


class NumberedImages(Dataset[dict[str, Any]]):
    """A data set that is indexed by an `Item`; a plain position is an item of epoch 0.

    The order of every epoch depends on ``seed`` and ``name``, as in `mlomae.data.Stream`.
    """

    def __init__(self, seed: int, name: str) -> None:
        self.seed, self.name = seed, name

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, epoch: int, position: int) -> dict[str, Any]:
        """The image at a position, augmented as ``epoch`` has it."""

    def __getitem__(self, item: int | Item) -> dict[str, Any]:
        return self.load(0, item) if isinstance(item, int) else self.load(*item)

    def order(self, epoch: int) -> Tensor:
        """The permutation (n,) int64 of positions in which ``epoch`` visits the images."""
        return random_keys.permutation(random_keys.root_key(self.seed, self.name, epoch), len(self))


class EpochBatches(Sampler[list[Item]]):
    """This rank's items of every iteration of a run, or of those from ``start``.

    The length of the run is ``epochs``, or ``iterations``, whose last epoch may end early. ``batch_size`` is over all
    processes; a process gets the contiguous slice of its rank. The images at the end of an epoch that do not fill a
    batch are left out. Raises ConfigError for a batch size that does not fit the images or the processes.
    """

    def __init__(self, images: NumberedImages, batch_size: int, *, epochs: int = 0, iterations: int = 0) -> None:
        self.images, self.batch_size, self.start = images, batch_size, 0
        self.rank, self.world_size = get_dist_info()
        self.per_epoch = len(images) // batch_size
        self.stop = iterations or epochs * self.per_epoch
        if not self.per_epoch:
            most = counted(len(images), "training image")
            raise ConfigError(f"batch_size {batch_size} exceeds the {most}; lower it to at most that")
        check_divisible({"batch_size": batch_size}, self.world_size)

    def starting_at(self, iteration: int) -> "EpochBatches":
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
            share = self.batch_size // self.world_size
            first = iteration % self.per_epoch * self.batch_size + self.rank * share
            yield [(epoch, int(position)) for position in order[first : first + share]]


class ImageLoader(DataLoader[dict[str, Any]]):
    """A DataLoader that raises a worker's MlomaeError, e.g. DataError for an image that cannot be decoded, with its own
    line, without the worker's traceback."""

    def __init__(self, images: Any, num_workers: int = 0, **options: Any) -> None:
        own: dict[str, Any] = {"generator": torch.Generator(), **worker_options(num_workers)}  # else the global one
        super().__init__(images, pin_memory=torch.cuda.is_available(), **own, **options)

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except MlomaeError as error:
            raise from_worker(error) from error


def evaluation_loader(images: Sized, batch_size: int | None = 1, **options: Any) -> ImageLoader:
    """Every item once over all ranks: a rank has the contiguous part of its number; none is padded or dropped.

    ``batch_size`` is of one process, None where the items are batches already.
    """
    (rank, world), n = get_dist_info(), len(images)
    part = range(rank * n // world, (rank + 1) * n // world)
    return ImageLoader(images, sampler=part, batch_size=batch_size, **options)
