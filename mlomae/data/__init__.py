"""Data: sources of labelled images, the split of the training set, augmentation, and resumable streams of batches."""

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
from mlomae.data.cifar import cifar10, cifar100
from mlomae.data.cub import Cub200
from mlomae.data.files import FileSource
from mlomae.data.flowers import Flowers102
from mlomae.data.folder import ImageFolder
from mlomae.data.imagenet import ImageNet
from mlomae.data.inat import INat2019
from mlomae.data.memory import MemorySource
from mlomae.data.published import PUBLISHED, Published, PublishedSource
from mlomae.data.sources import Source, build_source, list_sources, register_source
from mlomae.data.splits import Split, check_disjoint, split_train
from mlomae.data.stanford_cars import StanfordCars
from mlomae.data.streams import OuterBatches, Stream
from mlomae.data.textures import Annotation, Textures
from mlomae.data.tiny_imagenet import TinyImageNet

__all__ = [
    "AUGMENT_SALT",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PUBLISHED",
    "Annotation",
    "Augmentation",
    "Cub200",
    "FileSource",
    "Flowers102",
    "INat2019",
    "ImageFolder",
    "ImageNet",
    "MemorySource",
    "OuterBatches",
    "PadCropFlip",
    "Plain",
    "Published",
    "PublishedSource",
    "RandomResizedCropFlip",
    "Source",
    "Split",
    "StanfordCars",
    "Stream",
    "Textures",
    "TinyImageNet",
    "build_augment",
    "build_source",
    "check_disjoint",
    "cifar10",
    "cifar100",
    "list_sources",
    "register_source",
    "split_train",
]
