"""The data that a classifier is trained and evaluated on: augmented images, or frozen features computed once.

Shape legend: N images, D backbone width, L patches.
"""

from typing import Any

import torch
from mmengine.dist import get_world_size
from PIL import Image
from torch import Tensor

from mlomae.backbones.batches import ImageLoader, NumberedImages, evaluation_loader
from mlomae.backbones.training import gather
from mlomae.classification.augment import Transform
from mlomae.classification.config import ClassificationConfig
from mlomae.classification.model import Classifier
from mlomae.common.random_keys import root_key, seeded
from mlomae.data import Source
from mlomae.pretraining.evaluation import PlainBatches, check_finite


class LabelledImages(NumberedImages):
    """All images of ``source``, transformed.

    An item is {"image": (3, H, W) float32, "label": int, "index": int into the source}; its augmentation draws from
    (seed, name, epoch, index). ``least_side``: decode large JPEGs at 1/2, 1/4 or 1/8 of their size, in a fraction of
    the time, as long as the shorter side keeps that many pixels; 0 decodes all as they are.
    """

    def __init__(
        self, source: Source, transform: Transform, *, seed: int = 0, name: str = "train", least_side: int = 0
    ) -> None:
        super().__init__(seed, name)
        self.source, self.transform, self.least_side = source, transform, least_side

    def __len__(self) -> int:
        return len(self.source)

    def load(self, epoch: int, index: int) -> dict[str, Any]:
        pixels_HWC = self._decode(index).permute(1, 2, 0).contiguous().numpy()
        key = root_key(self.seed, self.name, epoch, index, 0)  # 40 times faster than folding one number
        with seeded(key):
            image_CHW = self.transform(Image.fromarray(pixels_HWC))
        return {"image": image_CHW, "label": int(self.source.labels[index]), "index": index}

    def _decode(self, index: int) -> Tensor:
        if not self.least_side:
            return self.source.image(index)
        room = min(self.source.image_size(index)) / self.least_side
        return self.source.reduced_image(index, next(factor for factor in (8, 4, 2, 1) if factor <= max(1, room)))


class CachedFeatures(NumberedImages):
    """Features in place of images, in the order that `LabelledImages` of the same seed has."""

    def __init__(self, features_ND: Tensor, label_N: Tensor, index_N: Tensor, seed: int) -> None:
        super().__init__(seed, "train")
        self.features, self.label, self.index = features_ND, label_N, index_N

    def __len__(self) -> int:
        return len(self.features)

    def load(self, epoch: int, position: int) -> dict[str, Any]:
        return {"image": self.features[position], "label": self.label[position], "index": self.index[position]}


def eval_loader(config: ClassificationConfig, source: Source, transform: Transform) -> ImageLoader:
    """Every image once over all ranks, with the evaluation transform."""
    images, data = LabelledImages(source, transform, name="eval"), config.data
    return evaluation_loader(images, max(1, data.batch_size // get_world_size()), num_workers=data.num_workers)


def knn_loader(config: ClassificationConfig, source: Source, transform: Transform) -> ImageLoader:
    """Every image once over all ranks, with the pixels that `mlomae evaluate` reads, so that both report the same k-NN.

    `mlomae evaluate` reads square images, resized bicubically. For a rectangle, another ``interpolation`` or
    ``crop_mode`` images are transformed by ``transform``, the evaluation transform of the other protocols.
    """
    options, (height, width) = dict(config.data.evaluate), config.backbone.height_width
    usual = {"interpolation": "bicubic", "crop_mode": "center"}
    if height != width or any(options.pop(key, value) != value for key, value in usual.items()):
        return eval_loader(config, source, transform)
    batches = PlainBatches(source, height, crop=options.pop("crop_pct", 0.875), **options)
    return evaluation_loader(batches, None, num_workers=config.data.num_workers)


@torch.no_grad()
def extract(model: Classifier, loader: ImageLoader, pooling: str) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, D) float32, of patches (N, L, D), labels (N,) and indices (N,) of all images of a loader, on the
    CPU, sorted by index.

    Every rank computes its share and gets all of them. Raises TrainingError if a feature is not finite.
    """
    device = next(model.parameters()).device
    model.eval()
    parts = []
    for batch in loader:
        features_BD = model.features(batch["image"].to(device, non_blocking=True), pooling)
        parts.append((features_BD.cpu(), batch["label"], batch["index"]))
    features_ND, label_N, index_N = (torch.cat(column) for column in zip(*gather(parts), strict=True))
    check_finite(features_ND.flatten(1))
    order = index_N.argsort(stable=True)
    return features_ND[order], label_N[order], index_N[order]
