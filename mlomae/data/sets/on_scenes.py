"""Labelled images on photographs: a dial for how much of the image the object covers, with the object known exactly.

Shape suffixes: N images, H height, W width.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.common.registry import check_range
from mlomae.data.images import EMBEDDED, MemorySource, Source, box_mask, evenly_spaced
from mlomae.data.registry import build_inner, register_dataset
from mlomae.data.resample import resize_crop


@register_dataset("on_scenes")
class OnScenes(MemorySource):
    """Image i of ``objects``, resized, at a uniformly random place of a random photograph of ``scenes``, in memory.

    The label is that of the object; the photograph says nothing about it. Photograph and place follow from
    (seed, split, i), so an image is the same whenever it is read. For evaluation, take other objects and other
    photographs: a run refuses sources that share a place on disk.

    Args:
        objects: the labelled images, as a config describes them: dict(type="cifar10", root="data", split="train").
        scenes: the photographs, likewise; their labels are not used.
        share: of the area of the image that its object takes.
        size: side of the images in pixels. count: images, evenly spaced over those of ``objects``; by default all.

    Raises ConfigError for values out of range, and what the two sources raise.
    """

    has_objects = True
    made_of = ("objects", "scenes")
    object_boxes: NDArray[np.float64]

    def __init__(
        self,
        objects: dict[str, Any],
        scenes: dict[str, Any],
        share: float = 0.25,
        size: int = 64,
        count: int | None = None,
        seed: int = 0,
    ) -> None:
        check_range(self.name, "(0, 1]", share=share)
        check_range(self.name, "[1, inf)", size=size)
        if count is not None:
            check_range(self.name, "[1, inf)", count=count)
        front, back = build_inner(self.name, "objects", objects), build_inner(self.name, "scenes", scenes)
        if count is not None and count > len(front):
            raise ConfigError(f"{self.name}: count={count:,} but {front.describe()} has {len(front):,}; give fewer")
        side = max(1, round(size * share**0.5))
        chosen = evenly_spaced(len(front), count)
        keys = random_keys.fold(random_keys.root_key(self.name, seed, front.split), torch.arange(len(chosen)))
        scene_N, top_N, left_N = (
            (draw * room).floor().long().clamp(max=room - 1)
            for draw, room in zip(
                random_keys.uniform(keys, 3).double().unbind(dim=1),
                (len(back), size - side + 1, size - side + 1),
                strict=True,
            )
        )
        images_NCHW = torch.empty((len(chosen), 3, size, size), dtype=torch.uint8)
        places = zip(images_NCHW, chosen, scene_N.tolist(), top_N.tolist(), left_N.tolist(), strict=True)
        for image, i, scene, top, left in places:
            image.copy_(_square(back, scene, size))
            image[:, top : top + side, left : left + side] = _square(front, i, side)
        root = back.root if front.root == EMBEDDED else front.root
        labels, locations = front.labels[chosen], front.locations | back.locations
        super().__init__(self.name, front.split, root, front.classes, images_NCHW, labels, locations)
        self.object_boxes = np.stack([left_N, top_N, left_N + side, top_N + side], axis=1).astype(np.float64)
        self.pixel_classes = ["background", *front.classes]
        self._title = f"{front.title} on photographs, {share:.0%}"
        self._parts = f"{front.name} {front.split} on {back.name} {back.split}, {share:.0%} of the area"

    def object_mask(self, i: int) -> Tensor:
        return box_mask(self.object_boxes[i], *self.image_size(i))

    def pixel_labels(self, i: int) -> Tensor:
        """(H, W) uint8, 0 on the photograph, class + 1 on the object."""
        return self.object_mask(i).to(torch.uint8) * (int(self.labels[i]) + 1)

    def instances(self, i: int) -> tuple[Tensor, Tensor]:
        """The mask (1, H, W) bool and the class (1,) int64, from 0, of the object of image ``i``."""
        return self.object_mask(i)[None], torch.tensor([int(self.labels[i])])

    @property
    def title(self) -> str:
        return self.given_title or self._title

    def describe(self) -> str:
        return f"{self.name}: {self._parts}"


def _square(source: Source, i: int, side: int) -> Tensor:
    """The centred square of image ``i``, (3, side, side) uint8."""
    image = source.image(i)
    height, width = image.shape[-2:]
    short = min(height, width)
    if height == width == side:
        return image
    return resize_crop(image, (height - short) // 2, (width - short) // 2, short, short, side)
