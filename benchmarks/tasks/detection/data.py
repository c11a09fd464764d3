"""Images with boxes and masks after mmdet's transforms, whose random draws are functions of (seed, epoch, image)."""

from typing import Any

import numpy as np

from benchmarks.transfer.dense import TransformedImages
from mlomae.backbones.load_image import as_loaded
from mlomae.common.errors import ConfigError
from mlomae.common.random_keys import root_key, seeded
from mlomae.data import Detections

# isort: split
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS

_META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
_ATTEMPTS = 20
_ON_ITSELF = 5  # attempts on one image before another replaces it
_TRUTH = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}


class CocoImages(TransformedImages):
    """At position i is image i after ``steps``, packed: {"inputs": (3, H, W) uint8 in BGR, "data_samples":
    DetDataSample}. In training the steps transform boxes and masks as well, and images without objects, or with crowds
    alone, are left out.

    If the transforms remove all objects of a training image, it is drawn again with other keys, then replaced by
    another image, as in mmdet: an image of tiny objects must not end a run of days. Raises ConfigError if that fails
    repeatedly, too.
    """

    def __init__(self, source: Detections, steps: list[dict[str, Any]], *, train: bool, seed: int = 0) -> None:
        super().__init__(TRANSFORMS, [_TRUTH, *steps] if train else steps, train=train, seed=seed, name="coco")
        self.source = source
        self.pack = PackDetInputs(meta_keys=_META)
        single = np.concatenate([[0], np.cumsum(~source.objects.crowds)])
        populated = np.flatnonzero(np.diff(single[source.objects.first]))
        self.indices = populated if train else np.arange(len(source))

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, epoch: int, i: int) -> dict[str, Any]:
        for attempt in range(_ATTEMPTS):
            key = root_key(self.seed, self.name, epoch, i, 0, attempt)
            results = self._results(int(self.indices[i if attempt < _ON_ITSELF else key % len(self)]))
            with seeded(key):
                done = self._run(results)
            if done is not None:
                return dict(self.pack(done))
        raise ConfigError(
            f"the transforms leave no object of '{self.source.path(int(self.indices[i]))}', nor of "
            f"{_ATTEMPTS - _ON_ITSELF} others; change {self.section}"
        )

    def _results(self, i: int) -> dict[str, Any]:
        """Image ``i`` of the source and its objects, as mmdet's transforms take them after loading."""
        source = self.source
        results = as_loaded(source.image(i), source.path(i))
        instances = []
        for known in source.annotations(i):
            x, y, across, down = known["bbox"]
            box = {"bbox": [x, y, x + across, y + down], "bbox_label": known["category"]}
            instances.append({**box, "ignore_flag": known["iscrowd"], "mask": known["segmentation"]})
        size = dict(zip(("height", "width"), results["img_shape"], strict=True))
        return results | size | {"img_id": int(source.image_ids[i]), "instances": instances}

    def _run(self, info: dict[str, Any]) -> Any:
        path = info["img_path"]
        done = self.transform(info)
        if done is None and not self.train:
            raise ConfigError(f"the transforms drop '{path}'; change {self.section}")
        if done is None or (self.train and np.all(done["gt_ignore_flags"])):  # also if there is none
            return None
        return {"scale_factor": (1.0, 1.0), **done}  # mmdet needs it even where nothing was resized
