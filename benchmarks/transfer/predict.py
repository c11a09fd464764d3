"""New images for models of mmseg and mmdet: after the transforms of evaluation, one by one, with a name for what is
written of each."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import Registry

from benchmarks.transfer.dense import TransformedImages
from mlomae.backbones.batches import evaluation_loader
from mlomae.backbones.load_image import as_loaded
from mlomae.common.errors import ConfigError
from mlomae.data import FileSource


class NewImages(TransformedImages):
    """At position i is image i after ``steps``, packed: {"inputs", "data_samples"}, whose ``index`` and ``img_id`` are
    i.

    Raises ConfigError, naming the file, if the steps fail on an image or drop it.
    """

    def __init__(
        self, registry: Registry, steps: list[dict[str, Any]], images: FileSource, pack: Callable[[Any], Any]
    ) -> None:
        super().__init__(registry, steps, train=False, seed=0, name="new")
        self.source, self.pack = images, pack

    def __len__(self) -> int:
        return len(self.source)

    def load(self, epoch: int, i: int) -> dict[str, Any]:
        results = as_loaded(self.source.image(i), self.source.path(i)) | {"index": i, "img_id": i, "seg_fields": []}
        done = self.transform({**results, **dict(zip(("height", "width"), results["img_shape"], strict=True))})
        if done is None:
            raise ConfigError(f"the transforms drop '{self.source.path(i)}'; change {self.section}")
        return dict(self.pack({"scale_factor": (1.0, 1.0), **done}))


@torch.no_grad()
def predictions(model: Any, images: NewImages) -> Iterator[Any]:
    """What the model predicts of each image, in order: a data sample of mmseg or mmdet."""
    for batch in evaluation_loader(images, collate_fn=pseudo_collate):
        yield model.test_step(batch)[0]


def output_names(files: Sequence[str]) -> list[str]:
    """A name without ending for what is written of each file: its own, with a number where it was there before."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        stem, count = Path(file).stem, 1
        name = stem
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name)
        names.append(name)
    return names
