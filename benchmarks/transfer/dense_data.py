"""Batches for mmseg's and mmdet's models: lists of packed images, which their preprocessors bring to one size."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import pseudo_collate
from mmengine.dist import get_dist_info

from mlomae.backbones.batches import EpochBatches, ImageLoader, Ordered, share_of


def training_batches(config: Any, images: Ordered) -> ImageLoader:
    """All batches of a run: ``train.iterations`` of ``data.batch_size`` images over all processes.

    The transforms are tried on one image, so that wrong ones are told at once; errors as ``images`` and `EpochBatches`.
    """
    images[0]
    rank, world = get_dist_info()
    size, iterations = config.data.batch_size, config.train.iterations
    batches = EpochBatches(images, batch_size=size, iterations=iterations, rank=rank, world_size=world)
    return ImageLoader(images, batch_sampler=batches, num_workers=config.data.num_workers, collate_fn=pseudo_collate)


def evaluation_batches(config: Any, images: Ordered) -> ImageLoader:
    """Every image once over all ranks, one by one, after a trial as for `training_batches`."""
    images[0]
    mine, workers = share_of(len(images), *get_dist_info()), config.data.num_workers
    return ImageLoader(images, sampler=mine, batch_size=1, num_workers=workers, collate_fn=pseudo_collate)
