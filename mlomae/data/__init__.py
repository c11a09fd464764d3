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
from mlomae.data.folder import ImageFolder
from mlomae.data.memory import MemorySource
from mlomae.data.sources import Source, build_source, list_sources, register_source
from mlomae.data.splits import Split, check_disjoint, split_train
from mlomae.data.streams import OuterBatches, Stream
from mlomae.data.textures import Annotation, Textures
from mlomae.data.tiny_imagenet import TinyImageNet

__all__ = [
    "AUGMENT_SALT",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Annotation",
    "Augmentation",
    "ImageFolder",
    "MemorySource",
    "OuterBatches",
    "PadCropFlip",
    "Plain",
    "RandomResizedCropFlip",
    "Source",
    "Split",
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
