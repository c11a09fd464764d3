"""A set of scenes as a source of pretraining: its pixels have classes, its images have none.

Shape suffixes: C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

from mlomae.data.scenes import Scenes, build_scenes, list_scenes
from mlomae.data.sources import Source, build_source


class SceneSource(Source):
    """``scenes`` with one class of images, "scene", and the classes of the set for the pixels."""

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes
        self.name, self.split, self.root = scenes.name, scenes.split, scenes.root
        self.locations, self.content = scenes.locations, scenes.content
        self.classes, self.pixel_classes = ["scene"], scenes.classes
        self.labels = np.zeros(len(scenes), dtype=np.int64)

    def image(self, i: int) -> Tensor:
        return self.scenes.image(i)

    def pixel_labels(self, i: int) -> Tensor:
        return self.scenes.labels(i)

    def image_size(self, i: int) -> tuple[int, int]:
        return self.scenes.image_size(i)

    def content_size(self, i: int) -> int:
        return self.scenes.content_size(i)

    def digest(self, i: int) -> bytes:
        return self.scenes.digest(i)

    def fingerprint(self, indices: Iterable[int] | None = None) -> str:
        return self.scenes.fingerprint(indices)

    def describe(self) -> str:
        return self.scenes.describe()


def build_training_source(cfg: dict[str, Any]) -> Source:
    """Build the source of images, or of scenes, that ``cfg`` describes; errors as `build_source` and `build_scenes`."""
    return SceneSource(build_scenes(cfg)) if cfg.get("type") in list_scenes() else build_source(cfg)
