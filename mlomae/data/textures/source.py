"""The embedded data set: images whose class is the texture of their objects, with masks of objects and instances.

It replaces the real data sets of every task in tests and demos: class labels, semantic maps and instance masks are
exact, the size is free, and weights on object patches can help because the background is independent of the class.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mlomae.common import random_keys
from mlomae.common.numerics import declare_numerics
from mlomae.common.registry import check_choice, check_range
from mlomae.data.images import EMBEDDED, MemorySource
from mlomae.data.registry import register_dataset
from mlomae.data.textures.scene import TEXTURES, Scene, draw_block

DEFAULT_COUNTS = {"train": 10_000, "val": 2_000, "test": 2_000}
_BLOCK_PIXELS = 128 * 32 * 32  # pixels drawn at once: few enough to stay in the processor's cache


declare_numerics("data.textures", 1)


@register_dataset("textures")
class Textures(MemorySource):
    """``count`` images of ``size`` pixels, drawn into memory; image i follows from (seed, split, i) and the options.

    Args:
        split: ``train``, ``val`` or ``test``; no two share an image.
        size: side in pixels. count: images, by default 10,000 for train and 2,000 for val and test.
        classes: 2 to 12. Image i has class ``i % classes``, so any prefix is balanced.
        objects: least and most objects in an image.
        mixed: each object draws its own class; the class of the image is that of its first, rearmost object.
        radius, contrast, clutter, noise, jitter, scale, colour: how hard the images are, see ``Scene``.

    Raises ConfigError for values out of range.
    """

    has_objects = True

    def __init__(
        self,
        split: str = "train",
        size: int = 32,
        count: int | None = None,
        seed: int = 0,
        classes: int = 8,
        objects: tuple[int, int] = Scene.objects,
        mixed: bool = False,
        radius: tuple[float, float] = Scene.radius,
        contrast: tuple[float, float] = Scene.contrast,
        clutter: float = Scene.clutter,
        noise: float = Scene.noise,
        jitter: float = Scene.jitter,
        scale: float = Scene.scale,
        colour: float = Scene.colour,
    ) -> None:
        scene = Scene(size, objects, radius, contrast, clutter, noise, jitter, scale, colour)
        check_choice("textures", DEFAULT_COUNTS, split=split)
        count = DEFAULT_COUNTS[split] if count is None else count
        check_range("textures", "[1, inf)", count=count)
        check_range("textures", f"[2, {len(TEXTURES)}]", classes=classes)
        index = torch.arange(count)
        keys = random_keys.fold(random_keys.root_key("textures", seed, split), index)
        labels = np.repeat((index.numpy() % classes)[:, None], scene.objects[1], axis=1)
        if mixed:
            others = random_keys.uniform(keys, scene.objects[1], salt=9).numpy()[:, 1:]
            labels[:, 1:] = np.floor(others * classes)
        images = torch.empty((count, 3, size, size), dtype=torch.uint8)
        instances = torch.empty((count, size, size), dtype=torch.uint8)
        step = max(1, _BLOCK_PIXELS // size**2)
        for block in (slice(start, start + step) for start in range(0, count, step)):
            drawn = draw_block(keys[block], labels[block], scene)
            images[block], instances[block] = (torch.from_numpy(array) for array in drawn)
        names = [texture.name for texture in TEXTURES[:classes]]
        place = f"embedded:textures:seed={seed}:{split}"
        super().__init__("textures", split, EMBEDDED, names, images, labels[:, 0], [place])
        self.seed = seed
        self.pixel_classes = ["background", *names]
        self.instances_NHW = instances
        self._object_labels = torch.from_numpy(labels)

    @classmethod
    def find_splits(cls, base: Path) -> list[str]:
        """All splits, as they are drawn and not read from ``base``."""
        return list(DEFAULT_COUNTS)

    def object_mask(self, i: int) -> Tensor:
        return self.instances_NHW[i] > 0

    def pixel_labels(self, i: int) -> Tensor:
        """(H, W) uint8, 0 on the background, class + 1 on objects."""
        values = torch.cat([torch.zeros(1, dtype=torch.int64), self._object_labels[i] + 1])
        return values[self.instances_NHW[i].long()].to(torch.uint8)

    def instances(self, i: int) -> tuple[Tensor, Tensor]:
        """Masks (n, H, W) bool, disjoint, and classes (n,) int64, from 0, of the visible instances of image ``i``."""
        instances_HW = self.instances_NHW[i]
        visible = torch.unique(instances_HW)
        visible = visible[visible > 0].long()
        return instances_HW[None] == visible[:, None, None], self._object_labels[i][visible - 1]

    def describe(self) -> str:
        return f"textures {self.split} (embedded, seed {self.seed})"
