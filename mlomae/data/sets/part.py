"""Two parts of the training images of any data set, so that rates can be tuned without a look at the evaluation images.

Shape suffixes: H height, W width.
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from mlomae.data.images import Source
from mlomae.data.registry import build_inner, register_dataset
from mlomae.data.splits import split_train


@register_dataset("part")
class Part(Source):
    """The images of ``of`` to train on, or those held out: a fifth of every class, the same in every run.

    ``of`` describes the whole as a config does: dict(type="cifar10", root="data", split="train"). The two parts share
    no image; a part and the whole share some, and a run refuses them as training and evaluation.

    Raises ConfigError for another ``part``, and what ``of`` raises; DataError if no class has two images.
    """

    made_of = ("of",)

    def __init__(self, of: dict[str, Any], part: Literal["train", "held_out"] = "train", share: float = 0.2) -> None:
        self.whole = build_inner(self.name, "of", of)
        split = split_train(self.whole, share)
        self.indices = split.train_indices if part == "train" else split.val_indices
        self.name, self.root, self.classes = self.whole.name, self.whole.root, self.whole.classes
        self.split = f"{self.whole.split}, {part}"
        self.labels = self.whole.labels[self.indices]
        self.locations = frozenset(f"{location}/<{part} of {split.hash[:8]}>" for location in self.whole.locations)
        self.has_objects, self.pixel_classes = self.whole.has_objects, self.whole.pixel_classes
        self.in_memory, self.left_out = self.whole.in_memory, self.whole.left_out
        if self.whole.images_NCHW is not None:
            self.images_NCHW = self.whole.images_NCHW[torch.from_numpy(self.indices)]

    def image(self, i: int) -> Tensor:
        return self.whole.image(self._of(i))

    def reduced_image(self, i: int, factor: int) -> Tensor:
        return self.whole.reduced_image(self._of(i), factor)

    def image_size(self, i: int) -> tuple[int, int]:
        return self.whole.image_size(self._of(i))

    def relative_path(self, i: int) -> str:
        return self.whole.relative_path(self._of(i))

    def content_digest(self, i: int) -> bytes:
        return self.whole.content_digest(self._of(i))

    def object_mask(self, i: int) -> Tensor | None:
        """(H, W) bool, as the whole has it."""
        return self.whole.object_mask(self._of(i))

    def pixel_labels(self, i: int) -> Tensor:
        return self.whole.pixel_labels(self._of(i))

    def fingerprint(self, indices: Iterable[int] | None = None) -> str:
        return self.whole.fingerprint(self.indices if indices is None else [self._of(int(i)) for i in indices])

    @property
    def title(self) -> str:
        return self.given_title or self.whole.title

    def describe(self) -> str:
        return f"{self.split} of {self.whole.describe()}"

    def _of(self, i: int) -> int:
        return int(self.indices[i])
