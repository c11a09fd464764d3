"""Data: sources of labelled images, scenes and detections, the split of a training set, augmentation, batch streams."""

from __future__ import annotations

from mlomae.data.augment import (
    AUGMENT_SALT,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    PadCropFlip,
    Plain,
    RandomResizedCropFlip,
    build_augment,
)
from mlomae.data.detections import Detections, MaskCheck, build_detections, list_detections, register_detections
from mlomae.data.files import FileSource
from mlomae.data.formats.folder import ImageFolder
from mlomae.data.formats.scene_folder import SceneFolder
from mlomae.data.images import Images
from mlomae.data.label_maps import IGNORE
from mlomae.data.memory import MemorySource
from mlomae.data.published import PUBLISHED, Published, PublishedSource
from mlomae.data.scene_source import SceneSource, build_training_source
from mlomae.data.scenes import LabelCounts, Scenes, build_scenes, list_scenes, register_scenes
from mlomae.data.sets.ade20k import ADE20K
from mlomae.data.sets.camvid import CamVid
from mlomae.data.sets.cifar import cifar10, cifar100
from mlomae.data.sets.coco import Coco, CocoFolder
from mlomae.data.sets.cub import Cub200
from mlomae.data.sets.flowers import Flowers102
from mlomae.data.sets.imagenet import ImageNet
from mlomae.data.sets.inat import INat2019
from mlomae.data.sets.stanford_cars import StanfordCars
from mlomae.data.sets.tiny_imagenet import TinyImageNet
from mlomae.data.sources import Source, build_source, list_sources, register_source
from mlomae.data.splits import Split, check_disjoint, shuffle_labels, split_train
from mlomae.data.streams import OuterBatches, Stream
from mlomae.data.textures.source import Annotation, Textures
from mlomae.data.textures.write_coco import write_coco
from mlomae.data.textures.write_scenes import write_scenes

__all__ = [
    "ADE20K",
    "AUGMENT_SALT",
    "IGNORE",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PUBLISHED",
    "Annotation",
    "Augmentation",
    "CamVid",
    "Coco",
    "CocoFolder",
    "Cub200",
    "Detections",
    "FileSource",
    "Flowers102",
    "INat2019",
    "ImageFolder",
    "ImageNet",
    "Images",
    "LabelCounts",
    "MaskCheck",
    "MemorySource",
    "OuterBatches",
    "PadCropFlip",
    "Plain",
    "Published",
    "PublishedSource",
    "RandomResizedCropFlip",
    "SceneFolder",
    "SceneSource",
    "Scenes",
    "Source",
    "Split",
    "StanfordCars",
    "Stream",
    "Textures",
    "TinyImageNet",
    "build_augment",
    "build_detections",
    "build_scenes",
    "build_source",
    "build_training_source",
    "check_disjoint",
    "cifar10",
    "cifar100",
    "list_detections",
    "list_scenes",
    "list_sources",
    "register_detections",
    "register_scenes",
    "register_source",
    "shuffle_labels",
    "split_train",
    "write_coco",
    "write_scenes",
]
