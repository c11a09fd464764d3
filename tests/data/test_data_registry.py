"""The registry of data sets: names and kinds, configs that are wrong, and a class of one's own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mlomae.common.errors import ConfigError
from mlomae.data import (
    PUBLISHED,
    Detections,
    Images,
    MemorySource,
    Published,
    Scenes,
    Source,
    build_detections,
    build_scenes,
    build_source,
    list_datasets,
    register_dataset,
)
from mlomae.data import registry as module
from mlomae.data.registry import build_dataset


def test_every_kind_is_listed() -> None:
    assert {"cifar10", "cub200", "imagefolder", "pictures", "textures", "tiny_imagenet"} <= set(list_datasets(Source))
    assert {"ade20k", "camvid", "scene_folder"} <= set(list_datasets(Scenes)) - set(list_datasets(Source))
    assert {"coco", "coco_folder"} <= set(list_datasets(Detections)) - set(list_datasets(Scenes))
    assert list_datasets() == sorted(name for kind in (Source, Scenes, Detections) for name in list_datasets(kind))


@pytest.mark.parametrize(
    ("build", "cfg", "named"),
    [
        (build_source, {"type": "cifar11"}, ["unknown data set 'cifar11'", "cifar10", "textures"]),
        (build_source, {"root": "x"}, ["without a type"]),
        (build_source, {"type": "textures", "sizes": 32}, ["'sizes'", "did you mean 'size'", "contrast"]),
        (build_source, {"type": "imagefolder", "split": "train"}, ["needs the option 'root'"]),
        (build_source, {"type": "camvid"}, ["'camvid' does not have one label per image", "choose one of cifar10"]),
        (build_scenes, {"type": "scenes"}, ["unknown data set 'scenes'", "ade20k, camvid, scene_folder"]),
        (build_scenes, {"type": "cub200"}, ["'cub200' does not have a class for every pixel"]),
        (build_scenes, {"type": "scene_folder"}, ["needs the option 'root'"]),
        (build_scenes, {"type": "scene_folder", "root": "x", "subset": True}, ["no option 'subset'"]),
        (build_scenes, {"type": "ade20k", "root": "x", "spilt": "training"}, ["did you mean 'split'"]),
        (build_detections, {"type": "scenes"}, ["unknown data set 'scenes'", "coco, coco_folder"]),
        (build_detections, {"type": "ade20k"}, ["'ade20k' does not have boxes and masks of objects"]),
        (build_detections, {"type": "coco_folder"}, ["needs the option 'root'"]),
        (build_detections, {"type": "coco_folder", "root": "x", "subset": True}, ["no option 'subset'"]),
        (build_detections, {"type": "coco", "root": "x", "spilt": "train"}, ["did you mean 'split'"]),
    ],
)
def test_bad_config_names_key_and_choices(build: Callable[..., Images], cfg: dict[str, Any], named: list[str]) -> None:
    before = dict(cfg)
    with pytest.raises(ConfigError) as error:
        build(cfg)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in named), str(error.value)
    assert cfg == before


def test_build_does_not_change_the_config() -> None:
    cfg = {"type": "textures", "count": 2}
    build_source(cfg)
    assert cfg == {"type": "textures", "count": 2}


def test_a_class_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DATASETS", module.Registry("data set"))
    monkeypatch.setitem(PUBLISHED, "mine", Published({}, 0))  # put back afterwards

    @register_dataset("mine", Published({"train": 2}, 1))
    class Mine(MemorySource):
        def __init__(self, size: int) -> None:
            images = torch.zeros(2, 3, size, size, dtype=torch.uint8)
            super().__init__(self.name, "train", "/mine", ["one"], images, np.zeros(2), ["/mine"])

    assert (Mine.name, PUBLISHED["mine"].classes) == ("mine", 1)
    assert build_dataset({"type": "mine", "size": 4}, Source).describe() == "mine train at /mine"
    with pytest.raises(TypeError, match="'other' is not a class derived from Source, Scenes or Detections"):
        register_dataset("other")(lambda root: None)  # type: ignore[arg-type]
    assert list_datasets() == ["mine"]
