"""A source whose images all have one size and stay decoded in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlomae.data.sources import Source


class MemorySource(Source):
    """Images as one tensor, ``images_NCHW`` (N, 3, H, W) uint8.

    The tensor is shared, not copied, by forked workers, and sent through shared memory to spawned ones.
    """

    def __init__(
        self,
        name: str,
        split: str,
        root: str,
        classes: list[str],
        images_NCHW: Tensor,
        labels: NDArray[np.int64],
        locations: Iterable[str],
    ) -> None:
        if images_NCHW.dtype != torch.uint8 or images_NCHW.ndim != 4 or images_NCHW.shape[1] != 3:
            raise ValueError(f"images must be uint8 (N, 3, H, W), got {images_NCHW.dtype} {tuple(images_NCHW.shape)}")
        if len(images_NCHW) != len(labels):
            raise ValueError(f"{len(images_NCHW)} images but {len(labels)} labels")
        self.name, self.split, self.root, self.classes = name, split, root, list(classes)
        self.images_NCHW = images_NCHW.contiguous()
        self.labels = np.asarray(labels, dtype=np.int64)
        self.locations = frozenset(locations)

    def image(self, i: int) -> Tensor:
        return self.images_NCHW[i]

    def fingerprint(self, indices: Iterable[int] | None = None) -> str:
        # A block at a time: fast without a second copy of the whole set.
        chosen = np.arange(len(self)) if indices is None else np.fromiter(indices, dtype=np.int64)
        total = hashlib.sha256(repr(tuple(self.images_NCHW.shape[1:])).encode())
        total.update(np.ascontiguousarray(self.labels[chosen], dtype="<i8").tobytes())
        for start in range(0, len(chosen), 4096):
            total.update(self.images_NCHW[torch.from_numpy(chosen[start : start + 4096])].numpy().data)
        return total.hexdigest()
