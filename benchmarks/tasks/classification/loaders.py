"""What a classifier is trained and evaluated on: augmented images, or frozen features that were computed once.

Shape legend: N images, D backbone width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.tasks.classification.augment import Transform
from benchmarks.tasks.classification.config import ClassificationConfig
from benchmarks.tasks.classification.model import Classifier
from mlomae.backbones.batches import ImageLoader, NumberedImages, evaluation_loader
from mlomae.backbones.training import gather
from mlomae.common import random_keys
from mlomae.common.errors import DataError
from mlomae.common.random_keys import seeded
from mlomae.data import Source
from mlomae.pretraining.evaluation import PlainBatches, check_finite

Indices = Sequence[int] | NDArray[np.int64] | Tensor


class LabelledImages(NumberedImages):
    """Images of ``source`` at ``indices`` (all if None), transformed; at position i is image ``indices[i]``.

    An item is {"image": (3, H, W) float32, "label": int, "index": int into the source}; its augmentation draws from
    (seed, name, epoch, index). Raises DataError if ``indices`` is empty or reaches outside the source.
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
        super().__init__(seed, name)
        chosen = np.arange(len(source)) if indices is None else np.asarray(indices, dtype=np.int64)
        if not len(chosen):
            raise DataError(f"no image of {source.describe()} is left to load; enlarge its share of the split")
        if chosen.min() < 0 or chosen.max() >= len(source):
            raise DataError(f"an index outside 0..{len(source) - 1} of {source.describe()}; make the split again")
        self.source, self.transform, self.indices = source, transform, chosen

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, epoch: int, index: int) -> int:
        """What decides the augmentation of image ``index`` of the source."""
        return random_keys.root_key(self.seed, self.name, epoch, index, 0)  # 40 times faster than folding one number

    def load(self, epoch: int, position: int) -> dict[str, Any]:
        index = int(self.indices[position])
        pixels_HWC = self.source.image(index).permute(1, 2, 0).contiguous().numpy()
        with seeded(self.key(epoch, index)):
            image_CHW = self.transform(Image.fromarray(pixels_HWC))
        return {"image": image_CHW, "label": int(self.source.labels[index]), "index": index}


class CachedFeatures(NumberedImages):
    """Features in place of images, in the order that `LabelledImages` of the same seed and ``name`` has."""

    def __init__(self, features_ND: Tensor, label_N: Tensor, index_N: Tensor, seed: int, name: str = "train") -> None:
        super().__init__(seed, name)
        self.features, self.label, self.index = features_ND, label_N, index_N

    def __len__(self) -> int:
        return len(self.features)

    def load(self, epoch: int, position: int) -> dict[str, Any]:
        label, index = int(self.label[position]), int(self.index[position])
        return {"image": self.features[position], "label": label, "index": index}


def eval_loader(config: ClassificationConfig, source: Source, transform: Transform) -> ImageLoader:
    """Every image once over all ranks, through the evaluation transform."""
    images, data = LabelledImages(source, transform, name="eval"), config.data
    return evaluation_loader(images, max(1, data.batch_size // get_world_size()), num_workers=data.num_workers)


def knn_loader(config: ClassificationConfig, source: Source, transform: Transform) -> ImageLoader:
    """Every image once over all ranks, with the pixels that `mlomae evaluate` reads: one k-NN for both commands.

    `mlomae evaluate` reads square images, resized bicubically; for a rectangle or another
    ``data.evaluate.interpolation`` images go through ``transform``, the evaluation transform of the other protocols.
    """
    options, (height, width) = dict(config.data.evaluate), config.backbone.height_width
    if height != width or options.pop("interpolation", "bicubic") != "bicubic":
        return eval_loader(config, source, transform)
    batches = PlainBatches(source, height, crop=options.pop("crop_pct", 0.875), **options)
    return evaluation_loader(batches, None, num_workers=config.data.num_workers)


@torch.no_grad()
def extract(model: Classifier, loader: ImageLoader, pooling: str) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, D) float32, labels (N,) and indices (N,) of all images of a loader, on the CPU, sorted by index;
    every rank does its share and gets them all. Raises TrainingError if a feature is not finite."""
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
