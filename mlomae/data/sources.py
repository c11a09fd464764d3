"""What a data set is to pretraining and classification: images with one label each, and a registry that builds one.

Shape suffixes: N images of the set, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mlomae.common.registry import Registry
from mlomae.data.images import Images


class Source(Images):
    """Labelled images in a fixed order. Subclasses set the attributes and override the methods that raise.

    Attributes, besides those of Images:
        labels: (N,) int64, indices into ``classes``.
        has_objects: whether ``object_mask`` gives masks.
        pixel_classes: what ``pixel_labels`` are indices into; empty where pixels have no labels.
    """

    classes: list[str]
    labels: NDArray[np.int64]
    has_objects: bool = False
    pixel_classes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def object_mask(self, i: int) -> Tensor | None:
        """(H, W) bool, True on objects, or None where nothing is known about objects."""
        return None

    def pixel_labels(self, i: int) -> Tensor:
        """(H, W) uint8, the class of every pixel or IGNORE where it is not labelled."""
        raise NotImplementedError

    def _fingerprint_label(self, i: int) -> bytes:
        return b"%d " % self.labels[i]


_SOURCES = Registry[Source]("data source")
register_source = _SOURCES.register


def list_sources() -> list[str]:
    """The values ``type`` can take."""
    return _SOURCES.names()


def build_source(cfg: dict[str, Any]) -> Source:
    """Build the source that ``cfg`` describes: ``type`` names it, every other key is an argument of its builder.

    Raises ConfigError for an unknown type, an unknown key or a missing key, and DataError if the data cannot be read.
    """
    return _SOURCES.build(cfg.get("type"), {k: v for k, v in cfg.items() if k != "type"})
