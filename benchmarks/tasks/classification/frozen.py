"""Frozen features of a set, once: what k-NN votes on, and what a linear probe without augmentation trains on.

Shape legend: N images, D backbone width.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import get_dist_info
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.tasks.classification.augment import Transform
from benchmarks.tasks.classification.config import ClassificationConfig
from benchmarks.tasks.classification.loaders import ImageLoader, Item, eval_loader
from benchmarks.tasks.classification.model import Classifier
from mlomae.backbones.batches import share_of
from mlomae.backbones.training import gather
from mlomae.common import random_keys as counter
from mlomae.data import Source
from mlomae.pretraining.evaluation import PlainBatches, check_finite


def knn_loader(config: ClassificationConfig, source: Source, transform: Transform) -> ImageLoader:
    """Every image once over all ranks, with the pixels that `mlomae evaluate` reads: one k-NN for both commands.

    `mlomae evaluate` reads square images, resized bicubically; for a rectangle or another
    ``data.evaluate.interpolation`` images go through ``transform``, the evaluation transform of the other protocols.
    """
    rank, world = get_dist_info()
    options, (height, width) = dict(config.data.evaluate), config.backbone.height_width
    if height != width or options.pop("interpolation", "bicubic") != "bicubic":
        size, workers = max(1, config.data.batch_size // world), config.data.num_workers
        return eval_loader(source, transform, batch_size=size, num_workers=workers, rank=rank, world_size=world)
    batches = PlainBatches(source, height, crop=options.pop("crop_pct", 0.875), **options)
    mine = share_of(len(batches), rank, world)
    return ImageLoader(batches, batch_size=None, sampler=mine, num_workers=config.data.num_workers)


@torch.no_grad()
def extract(model: Classifier, loader: ImageLoader, pooling: str) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, D) float32, labels (N,) and indices (N,) of all images of a loader, on the CPU, sorted by
    index; every rank does its share and gets them all. Raises TrainingError if a feature is not finite."""
    device = next(model.parameters()).device
    model.eval()
    parts = []
    for batch in loader:
        features_BD = model.features(batch["image"].to(device, non_blocking=True), pooling)
        parts.append((features_BD.cpu(), batch["label"], batch["index"]))
    features_ND, label_N, index_N = (torch.cat(column) for column in zip(*gather(parts), strict=True))
    check_finite(features_ND)
    order = index_N.argsort(stable=True)
    return features_ND[order], label_N[order], index_N[order]


class CachedFeatures(Dataset[dict[str, Any]]):
    """Features in place of images, in the order that `LabelledImages` of the same seed and ``name`` has."""

    def __init__(
        self, features_ND: Tensor, label_N: Tensor, index_N: Tensor, source: Source, seed: int, name: str = "train"
    ) -> None:
        self.features, self.label, self.index, self.seed = features_ND, label_N, index_N, seed
        self.name = name

    def __len__(self) -> int:
        return len(self.features)

    def order(self, epoch: int) -> Tensor:
        """The permutation (N,) int64 in which ``epoch`` visits the images."""
        return counter.epoch_order(self.seed, self.name, epoch, len(self))

    def __getitem__(self, item: int | Item) -> dict[str, Any]:
        position = item if isinstance(item, int) else item[1]
        return {
            "image": self.features[position],
            "label": int(self.label[position]),
            "index": int(self.index[position]),
        }
