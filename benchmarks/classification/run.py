"""One transfer: a backbone and a recipe in; accuracies, predictions, confusion matrix and one JSON record out."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_dist_info, is_main_process

from benchmarks import records
from benchmarks.classification import frozen
from benchmarks.classification.augment import BatchMix, build_transform, eval_transform
from benchmarks.classification.backbone import create_backbone
from benchmarks.classification.config import TransferConfig
from benchmarks.classification.confusion import write_confusion
from benchmarks.classification.loaders import EpochBatches, ImageLoader, eval_loader, train_loader
from benchmarks.classification.metrics import ClassificationMetric, PerImage, rank_scores, summarise
from benchmarks.classification.model import Classifier
from benchmarks.classification.origin import Origin, describe_weights
from benchmarks.classification.predictions import save_predictions
from benchmarks.classification.trainer import TransferModel, build_runner
from mlomae.data import Source, build_source, check_disjoint
from mlomae.engine import checkpoint
from mlomae.engine.exact_runner import join_process_group
from mlomae.errors import ConfigError, DataError
from mlomae.evaluation import knn_votes


@dataclass
class Outcome:
    """What a protocol returns: per-image results, metrics of training, images seen and seconds spent."""

    images: PerImage
    metrics: dict[str, float]
    images_seen: int
    iterations: int
    clock: dict[str, float]
