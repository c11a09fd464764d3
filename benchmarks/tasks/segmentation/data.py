"""Images and label maps after mmseg's transforms, whose random draws are functions of (seed, epoch, image)."""

from typing import Any

from benchmarks.transfer.dense import TransformedImages
from mlomae.backbones.load_image import as_loaded
from mlomae.common.errors import ConfigError
from mlomae.common.random_keys import root_key, seeded
from mlomae.data import Scenes

# isort: split
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import TRANSFORMS

_META = ("index", "img_path", "ori_shape", "img_shape", "pad_shape", "scale_factor", "flip", "flip_direction")


class ScenePairs(TransformedImages):
    """At position i is image i of ``scenes`` after ``steps``, packed: {"inputs": (3, H, W) uint8 in BGR,
    "data_samples": SegDataSample with ``gt_sem_seg`` (1, H, W) int64}.

    In training the steps transform image and labels, and must leave at most ``largest`` (height, width) of an image;
    the model pads smaller ones. In evaluation, without ``largest``, the steps transform the image alone, and the labels
    keep the size of the file.

    Raises ConfigError, naming the image, if the steps fail on it, drop it or leave too much of it.
    """

    def __init__(
        self,
        scenes: Scenes,
        steps: list[dict[str, Any]],
        largest: tuple[int, int] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(TRANSFORMS, steps, train=largest is not None, seed=seed, name="scenes")
        self.scenes, self.largest = scenes, largest
        self.pack = PackSegInputs(meta_keys=_META)

    def __len__(self) -> int:
        return len(self.scenes)

    def load(self, epoch: int, i: int) -> dict[str, Any]:
        results = as_loaded(self.scenes.image(i), self.scenes.path(i)) | {"index": i, "seg_fields": []}
        labels = {"gt_seg_map": self.scenes.labels(i).numpy(), "seg_fields": ["gt_seg_map"]}
        if self.largest is not None:
            results |= labels
        with seeded(root_key(self.seed, self.name, epoch, i, 0)):
            done = self.transform(results)
        path, section = self.scenes.path(i), self.section
        if done is None or "img" not in done:
            raise ConfigError(f"the transforms leave no image of '{path}'; change {section}, which is not to pack it")
        height, width = done["img"].shape[:2]
        if self.largest is None:
            done = {**done, **labels}
        elif height > self.largest[0] or width > self.largest[1]:
            limit = "{}x{}".format(*self.largest)
            raise ConfigError(
                f"the transforms leave {height}x{width} pixels of '{path}', more than backbone.img_size ({limit}); "
                f"crop in {section}, or raise it"
            )
        return dict(self.pack(dict(done)))
