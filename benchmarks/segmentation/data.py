"""Images and label maps as mmseg's transforms take them; a function of (seed, epoch, image), whatever they draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import mmseg.datasets.transforms  # noqa: F401  registers the transforms
import numpy as np
from mmengine.dataset import Compose, pseudo_collate
from mmengine.dist import get_dist_info
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import TRANSFORMS
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.segmentation.config import SegmentationConfig
from benchmarks.transfer.batches import EpochBatches, ImageLoader, Item, check_ranks
from benchmarks.transfer.seeding import seeded
from mlomae import counter
from mlomae.errors import ConfigError, MlomaeError

_META = ("index", "img_path", "ori_shape", "img_shape", "pad_shape", "scale_factor", "flip", "flip_direction")


class Scenes(Protocol):
    """What is read of a source of `mlomae.data`: labels are 0..C-1, and 255 where a pixel has none."""

    name: str
    root: str
    classes: Sequence[str]

    def __len__(self) -> int: ...
    def describe(self) -> str: ...
    def image(self, i: int) -> Tensor: ...
    def labels(self, i: int) -> Tensor: ...
    def image_path(self, i: int) -> Any: ...


def _tuples(value: Any) -> Any:
    """Lists of numbers as tuples: what mmcv's transforms insist on, and what a checked configuration has not."""
    if isinstance(value, dict):
        return {key: _tuples(v) for key, v in value.items()}
    if isinstance(value, list):
        numbers = bool(value) and all(isinstance(v, int | float) for v in value)
        return tuple(value) if numbers else [_tuples(v) for v in value]
    return value


def build_pipeline(steps: list[dict[str, Any]], section: str) -> Compose:
    """mmseg's transforms by name; raises ConfigError for one that it does not have or that refuses its options."""
    try:
        return Compose([TRANSFORMS.build(_tuples(step)) for step in steps])
    except Exception as error:  # constructors assert, and raise anything
        raise ConfigError(f"config section '{section}' is refused by mmseg ({error})") from error


class ScenePairs(Dataset[dict[str, Any]]):
    """Item (epoch, i, copy) is image i of ``scenes`` after ``steps``, packed: {"inputs": (3, H, W) uint8 in BGR,
    "data_samples": SegDataSample with ``gt_sem_seg`` (1, H, W) int64}.

    In training (``train``) the steps see image and labels. In evaluation labels join after them, at the file's size.
    """

    def __init__(self, scenes: Scenes, steps: Compose, *, train: bool, seed: int = 0) -> None:
        self.scenes, self.steps, self.train, self.seed = scenes, steps, train, seed
        self.pack = PackSegInputs(meta_keys=_META)
        self.metainfo = {"classes": list(scenes.classes)}  # where MMEngine looks for it

    def __len__(self) -> int:
        return len(self.scenes)

    def order(self, epoch: int) -> Tensor:
        """The permutation (n,) int64 in which ``epoch`` visits the images."""
        return counter.epoch_order(self.seed, "scenes", epoch, len(self))

    def __getitem__(self, item: int | Item) -> dict[str, Any]:
        epoch, i, again = (0, item, 0) if isinstance(item, int) else item
        image_HWC = self.scenes.image(i).permute(1, 2, 0).numpy()[:, :, ::-1]  # mmcv's colour operations expect BGR
        size = image_HWC.shape[:2]
        results: dict[str, Any] = {"img": np.ascontiguousarray(image_HWC), "img_shape": size, "ori_shape": size}
        results |= {"index": i, "img_path": str(self.scenes.image_path(i)), "seg_fields": []}
        labels = {"gt_seg_map": self.scenes.labels(i).numpy(), "seg_fields": ["gt_seg_map"]}
        if self.train:
            results |= labels
        with seeded(counter.root_key(self.seed, "scenes", epoch, i, again)):
            results = self._run(results)
        if not self.train:
            results |= labels
        return dict(self.pack(results))

    def _run(self, results: dict[str, Any]) -> dict[str, Any]:
        path = results["img_path"]
        try:
            done = self.steps(results)
        except MlomaeError:
            raise
        except Exception as error:  # a transform that does not fit the image
            raise ConfigError(f"the transforms refuse '{path}' ({error}); change data.augment or evaluate") from error
        if done is None:
            raise ConfigError(f"the transforms drop '{path}'; change data.augment or data.evaluate")
        return dict(done)


def train_loader(config: SegmentationConfig, scenes: Scenes) -> ImageLoader:
    """All batches of a run: ``train.iterations`` of ``data.batch_size`` images over all processes."""
    rank, world = get_dist_info()
    pairs = ScenePairs(scenes, build_pipeline(config.data.augment, "data.augment"), train=True, seed=config.seed)
    batches = EpochBatches(
        pairs,
        batch_size=config.data.batch_size,
        iterations=config.train.iterations,
        rank=rank,
        world_size=world,
    )
    return ImageLoader(pairs, batch_sampler=batches, num_workers=config.data.num_workers, collate_fn=pseudo_collate)


def test_loader(config: SegmentationConfig, scenes: Scenes) -> ImageLoader:
    """Every image once over all ranks, one by one; rank r has the r-th contiguous part."""
    rank, world = get_dist_info()
    check_ranks(rank, world)
    pairs = ScenePairs(scenes, build_pipeline(config.data.evaluate, "data.evaluate"), train=False)
    mine = range(rank * len(pairs) // world, (rank + 1) * len(pairs) // world)
    workers = config.data.num_workers
    return ImageLoader(pairs, sampler=mine, batch_size=1, num_workers=workers, collate_fn=pseudo_collate)
