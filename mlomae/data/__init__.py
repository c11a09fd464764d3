"""Data: labelled images, scenes and detections by name, the split of a training set, augmentation, batch streams."""

from mlomae.common.registry import import_modules
from mlomae.data.augment import IMAGENET_MEAN, IMAGENET_STD, build_augment
from mlomae.data.copies import check_disjoint
from mlomae.data.detections import Detections, build_detections
from mlomae.data.images import IGNORE, FileSource, Images, MemorySource, Source
from mlomae.data.registry import PUBLISHED, Download, Published, build_source, list_datasets, register_dataset
from mlomae.data.scenes import Scenes, build_scenes
from mlomae.data.splits import Split, check_classes, check_two_classes, shuffle_labels, split_train
from mlomae.data.streams import OuterBatches, Stream
from mlomae.data.textures.source import Textures
from mlomae.data.training import SceneSource, build_training_source
from mlomae.data.write import write_coco, write_scenes

__all__ = [
    "IGNORE",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PUBLISHED",
    "Detections",
    "Download",
    "FileSource",
    "Images",
    "MemorySource",
    "OuterBatches",
    "Published",
    "SceneSource",
    "Scenes",
    "Source",
    "Split",
    "Stream",
    "Textures",
    "build_augment",
    "build_detections",
    "build_scenes",
    "build_source",
    "build_training_source",
    "check_classes",
    "check_disjoint",
    "check_two_classes",
    "list_datasets",
    "register_dataset",
    "shuffle_labels",
    "split_train",
    "write_coco",
    "write_scenes",
]

import_modules("mlomae.data.sets")  # which registers the data sets
