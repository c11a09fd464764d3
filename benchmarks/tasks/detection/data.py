"""Images with boxes and masks after mmdet's transforms, whose random draws are functions of (seed, epoch, image)."""

from typing import Any

import numpy as np

from benchmarks.transfer.dense import TransformedImages
from mlomae.common.errors import ConfigError, DataError
from mlomae.common.random_keys import root_key, seeded
from mlomae.data import Detections

# isort: split
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS

_META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
_ATTEMPTS = 20
_ON_ITSELF = 5  # attempts on one image before another replaces it
_LOAD = {"type": "LoadImageFromFile"}
_TRUTH = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}


class _ById(CocoDataset.COCOAPI):
    """Orders categories by their ids, as `Detections` does; mmdet takes the order of the file, and files may differ."""

    def get_cat_ids(self, *given: Any, **options: Any) -> list[int]:
        return sorted(super().get_cat_ids(*given, **options))


class _Coco(CocoDataset):
    COCOAPI = _ById


class CocoImages(TransformedImages):
    """At position i is image i after ``steps``, packed: {"inputs": (3, H, W) uint8 in BGR, "data_samples":
    DetDataSample}. In training the steps transform boxes and masks as well, and images without objects, or with crowds
    alone, are left out.

    If the transforms remove all objects of a training image, it is drawn again with other keys, then replaced by
    another image, as in mmdet: an image of tiny objects must not end a run of days. Raises ConfigError if that fails
    repeatedly, too, and DataError if every object is a crowd.
    """

    def __init__(self, source: Detections, steps: list[dict[str, Any]], *, train: bool, seed: int = 0) -> None:
        before = [_LOAD, _TRUTH] if train else [_LOAD]
        super().__init__(TRANSFORMS, [*before, *steps], train=train, seed=seed, name="coco")
        self.pack = PackDetInputs(meta_keys=_META)
        self.coco = _Coco(
            ann_file=str(source.annotation_file),
            data_prefix={"img": str(source.folder)},
            metainfo={"classes": tuple(source.classes)},
            test_mode=not train,
        )
        single = np.concatenate([[0], np.cumsum(~source.objects.crowds)])
        populated = np.flatnonzero(np.diff(single[source.objects.first]))
        if not len(populated):
            raise DataError(f"every object of {source.describe()} is a crowd; annotate objects one by one")
        if train:  # mmdet's own filter keeps images whose objects are all left out
            self.coco.get_subset_(populated.tolist())
        self.category_ids = list(self.coco.cat_ids)  # of the labels 0, 1, ...

    def __len__(self) -> int:
        return len(self.coco)

    def load(self, epoch: int, i: int) -> dict[str, Any]:
        for attempt in range(_ATTEMPTS):
            key = root_key(self.seed, self.name, epoch, i, 0, attempt)
            info = self.coco.get_data_info(i if attempt < _ON_ITSELF else key % len(self))
            with seeded(key):
                done = self._run(info)
            if done is not None:
                return dict(self.pack(done))
        raise ConfigError(
            f"the transforms leave no object of '{self.coco.get_data_info(i)['img_path']}', nor of "
            f"{_ATTEMPTS - _ON_ITSELF} others; change {self.section}"
        )

    def _run(self, info: dict[str, Any]) -> Any:
        path = info["img_path"]
        done = self.transform(info)
        if done is None and not self.train:
            raise ConfigError(f"the transforms drop '{path}'; change {self.section}")
        if done is None or (self.train and np.all(done["gt_ignore_flags"])):  # also if there is none
            return None
        return {"scale_factor": (1.0, 1.0), **done}  # mmdet needs it even where nothing was resized
