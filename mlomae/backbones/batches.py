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
"""(epoch, position in the data set, copy): one augmented image."""


class Ordered(Protocol):
    """A data set that says in which order an epoch visits it, and takes an `Item`."""

    def __len__(self) -> int: ...

    def order(self, epoch: int) -> Tensor: ...

    def __getitem__(self, item: Any) -> dict[str, Any]: ...


def iterations_per_epoch(images: int, batch_size: int, *, drop_last: bool = True) -> int:
    """Batches of ``batch_size`` (over all processes) in an epoch of ``images``; ConfigError if there is none."""
    if batch_size < 1:
        raise ConfigError(f"batch_size {batch_size} is not positive; give images a step, over all processes")
    count = images // batch_size if drop_last else -(-images // batch_size)
    if not count:
        raise ConfigError(f"batch_size {batch_size} exceeds the {images} training images; lower it to at most that")
    return count


def check_ranks(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank {rank} is outside 0..{world_size - 1}; start the processes with torchrun")


def share_of(images: int, rank: int, world_size: int) -> range:
    """What a rank evaluates: rank r has the r-th contiguous part of all images; no padding, nothing dropped."""
    check_ranks(rank, world_size)
    return range(rank * images // world_size, (rank + 1) * images // world_size)


class EpochBatches(Sampler[list[Item]]):
    """This rank's items of every iteration of a run, or of those from ``start``; arguments as for `batch_loader`.

    The length is ``epochs``, or ``iterations``, whose last epoch may end early.
    """

    def __init__(
        self,
        images: Ordered,
        *,
        batch_size: int,
        epochs: int | None = None,
        iterations: int | None = None,
        rank: int,
        world_size: int,
        drop_last: bool = True,
        repeats: int = 1,
    ) -> None:
        n = len(images)
        self.images, self.batch_size, self.start, self.repeats = images, batch_size, 0, repeats
        self.rank, self.world_size = rank, world_size
        self.per_epoch = iterations_per_epoch(n, batch_size, drop_last=drop_last)
        self.stop = iterations or (epochs or 0) * self.per_epoch
        check_ranks(rank, world_size)
        if batch_size % world_size:
            raise ConfigError(
                f"batch_size {batch_size} is not a multiple of {world_size} processes; change one of them"
            )
        if not drop_last and n % batch_size % world_size:
            raise ConfigError(
                f"the last batch of an epoch, {n % batch_size} images, is not a multiple of {world_size} processes; "
                "use drop_last=True"
            )
        if repeats < 1:
            raise ConfigError(f"repeats {repeats} must be at least 1, how often an epoch shows an image it shows")

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
            first = iteration % self.per_epoch * self.batch_size
            share = min(self.batch_size, len(order) - first) // self.world_size
            mine = range(first + self.rank * share, first + (self.rank + 1) * share)
            yield [(epoch, int(order[place // self.repeats]), place % self.repeats) for place in mine]


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


def batch_loader(
    images: Ordered,
    *,
    batch_size: int,
    epochs: int,
    start_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    drop_last: bool = True,
    repeats: int = 1,
) -> ImageLoader:
    """All batches of a run from ``start_iteration`` on: {"image" (b, ...), "label" (b,), "index" (b,)}.

    Args:
        images: `LabelledImages`, or features in their place.
        batch_size: over all processes; a process gets the contiguous slice of its rank.
        epochs: of the whole run, those before ``start_iteration`` included.
        drop_last: leave out the images, others in each epoch, that do not fill a batch.
        repeats: repeated augmentation (Hoffer et al., CVPR 2020; as in DeiT): an epoch has as many places as without,
            taken by ``repeats`` neighbouring copies of a share of the images, each augmented by itself.

    ``loader.batch_sampler.per_epoch`` is the number of iterations of an epoch. Raises ConfigError for a batch size
    that does not fit the data or the processes, DataError, while iterating, for an image that cannot be decoded.
    """
    batches = EpochBatches(
        images,
        batch_size=batch_size,
        epochs=epochs,
        rank=rank,
        world_size=world_size,
        drop_last=drop_last,
        repeats=repeats,
    )
    return ImageLoader(images, batch_sampler=batches.starting_at(start_iteration), num_workers=num_workers)
