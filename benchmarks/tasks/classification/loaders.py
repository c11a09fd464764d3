"""Labelled images for training and evaluation; an image's augmentation draws from (seed, name, epoch, index, copy)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.tasks.classification.augment import Transform
from mlomae.backbones.batches import ImageLoader, Item, share_of
from mlomae.common import random_keys as counter
from mlomae.common.errors import ConfigError, DataError
from mlomae.common.random_keys import seeded
from mlomae.data import Source

Indices = Sequence[int] | NDArray[np.int64] | Tensor


class LabelledImages(Dataset[dict[str, Any]]):
    """Images of ``source`` at ``indices`` (all if None), transformed; item (epoch, i, copy) is image ``indices[i]``.

    An item is {"image": (3, H, W) float32, "label": int, "index": int into the source}. Plain ``i`` means (0, i, 0).

    Raises DataError if ``indices`` is empty or reaches outside the source.
    """

    def __init__(
        self,
        source: Source,
        transform: Transform,
        *,
        indices: Indices | None = None,
        seed: int = 0,
        name: str = "train",
    ) -> None:
        chosen = np.arange(len(source)) if indices is None else np.asarray(indices, dtype=np.int64)
        if not len(chosen):
            raise DataError(f"no image of {source.describe()} is left to load; enlarge its share of the split")
        if chosen.min() < 0 or chosen.max() >= len(source):
            raise DataError(f"an index outside 0..{len(source) - 1} of {source.describe()}; make the split again")
        self.source, self.transform, self.indices = source, transform, chosen
        self.seed, self.name = seed, name

    def __len__(self) -> int:
        return len(self.indices)

    def order(self, epoch: int) -> Tensor:
        """The permutation (n,) int64 of 0..n-1 in which ``epoch`` visits the images."""
        return counter.epoch_order(self.seed, self.name, epoch, len(self))

    def key(self, epoch: int, index: int, copy: int = 0) -> int:
        """What decides the augmentation of image ``index`` of the source."""
        return counter.root_key(self.seed, self.name, epoch, index, copy)  # 40 times faster than folding one number

    def __getitem__(self, item: int | Item) -> dict[str, Any]:
        epoch, position, copy = (0, item, 0) if isinstance(item, int) else item
        index = int(self.indices[position])
        pixels_HWC = self.source.image(index).permute(1, 2, 0).contiguous().numpy()
        with seeded(self.key(epoch, index, copy)):
            image_CHW = self.transform(Image.fromarray(pixels_HWC))
        return {"image": image_CHW, "label": int(self.source.labels[index]), "index": index}


def eval_loader(
    source: Source,
    transform: Transform,
    *,
    batch_size: int,
    indices: Indices | None = None,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
) -> ImageLoader:
    """Every image once over all ranks, in order (`share_of`).

    ``batch_size`` is of one process. The length of ``loader.dataset`` is that of the whole set, as MMEngine expects.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size {batch_size} is not positive; give images a batch")
    images = LabelledImages(source, transform, indices=indices, name="eval")
    mine = share_of(len(images), rank, world_size)
    return ImageLoader(images, sampler=mine, batch_size=batch_size, num_workers=num_workers)
