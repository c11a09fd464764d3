"""Data sets of the transfers as sources for pretraining: scenes, whose pixels have classes, and detections.

Shape suffixes: H height, W width.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from mlomae.data.detections import Detections, build_detections
from mlomae.data.formats.coco_masks import encode, mask_tools
from mlomae.data.images import FileSource, ImageFiles, Source
from mlomae.data.paths import LabelledFiles
from mlomae.data.registry import build_source, list_datasets
from mlomae.data.scenes import Scenes, build_scenes

D = TypeVar("D", bound=ImageFiles)


class TransferImages(FileSource, Generic[D]):
    """The images of ``original``, a data set that has no label for an image; all are of the class "scene"."""

    def __init__(self, original: D) -> None:
        files = [original.relative_path(i) for i in range(len(original))]
        listed = LabelledFiles(original.folder, files, np.zeros(len(original)))
        super().__init__(original.name, original.split, Path(original.root), ["scene"], listed)
        self.original, self.left_out, self.locations = original, original.left_out, original.locations
        self.stated_sizes, self.given_title = original.stated_sizes, original.title

    def fingerprint(self, indices: Iterable[int] | None = None) -> str:
        return self.original.fingerprint(indices)

    def describe(self) -> str:
        return self.original.describe()


class SceneSource(TransferImages[Scenes]):
    """Scenes; pixels have the classes of the data set."""

    def __init__(self, scenes: Scenes) -> None:
        super().__init__(scenes)
        self.pixel_classes = scenes.classes

    def pixel_labels(self, i: int) -> Tensor:
        return self.original.labels(i)


class DetectionSource(TransferImages[Detections]):
    """Detections; all their objects together, crowds too, are the object of an image."""

    has_objects = True

    def __init__(self, detections: Detections) -> None:
        super().__init__(detections)
        mask_tools()  # raises BackendError now, not in a worker

    def object_mask(self, i: int) -> Tensor:
        height, width = self.original.stated_sizes[i].tolist()
        mask_HW = torch.zeros((height, width), dtype=torch.bool)
        if known := [encode(mask["segmentation"], height, width) for mask in self.original.annotations(i)]:
            tools = mask_tools()
            mask_HW |= torch.from_numpy(tools.decode(tools.merge(known)).astype(bool))
        return mask_HW


def build_training_source(cfg: dict[str, Any]) -> Source:
    """Build the labelled images, the scenes or the detections that ``cfg`` describes, for pretraining; errors as
    `build_dataset`."""
    if cfg.get("type") in list_datasets(Scenes):
        return SceneSource(build_scenes(cfg))
    return DetectionSource(build_detections(cfg)) if cfg.get("type") in list_datasets(Detections) else build_source(cfg)
