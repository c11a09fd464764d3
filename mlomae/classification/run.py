"""The steps of a transfer to classification by any of its protocols: accuracies, predictions, confusion matrix.

Shape suffixes: N images, C classes, B images of a batch, K = min(5, C) classes kept.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size
from torch import Tensor

from mlomae.backbones.batches import EpochBatches, ImageLoader, NumberedImages
from mlomae.backbones.config import values_of
from mlomae.backbones.create import create_backbone
from mlomae.backbones.run import Outcome, TransferRun, TransferSteps, open_pair
from mlomae.backbones.training import GatheringMetric
from mlomae.classification.augment import BatchMix, Transform, build_transform, eval_transform
from mlomae.classification.config import ClassificationConfig
from mlomae.classification.confusion import save_confusion
from mlomae.classification.loaders import CachedFeatures, LabelledImages, eval_loader, extract, knn_loader
from mlomae.classification.model import Classifier, ClassifierStep
from mlomae.classification.per_image import FORMAT, TOP, PerImage, summarise
from mlomae.classification.table import FILE as TABLE
from mlomae.classification.table import predictions_table, write_table
from mlomae.common.errors import ConfigError, DataError, TrainingError
from mlomae.common.registry import Registry
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD, Source, build_source, check_two_classes
from mlomae.models.architecture import section_of
from mlomae.pretraining.devices import training_device
from mlomae.pretraining.evaluation import knn_votes, neighbours
from mlomae.pretraining.log import warn
from mlomae.pretraining.trainer import elapsed, seconds

CACHE = 2**33
"""Bytes of features that a run keeps in memory. More, as of the patches of ImageNet, are computed in every epoch."""
_SECTIONS = Registry[Any]("config section")
_SECTIONS.register("data.evaluate")(eval_transform)
_SECTIONS.register("data.mix")(BatchMix)


class ClassificationSteps(TransferSteps):
    """Fine-tunes, trains a linear head, or votes by k-NN; ``images`` are the predictions for each test image."""

    config: ClassificationConfig
    train: Source
    test: Source
    images: PerImage

    def open_data(self) -> tuple[Source, Source]:
        train, test = open_pair(self.config.data, build_source)
        check_two_classes(train, train.labels, "a classifier", "add images of another class to data.train")
        self.augment, self.plain = build_transforms(self.config)
        self.lowered = neighbours(self.config.knn.k, len(train)) if self.config.protocol == "knn" else {}
        if self.lowered:
            warn(f"knn.k is {self.config.knn.k}, lowered to the number of training images, {len(train)}")
        return train, test

    def open_images(self, source: dict[str, Any]) -> Any:
        return build_source(source)

    def build_model(self) -> tuple[Classifier, str]:
        return build_model(self.config, len(self.train.classes))

    def train_and_test(self, model: Classifier, run: TransferRun) -> Outcome:
        outcome = self._vote(model) if self.config.protocol == "knn" else self._train(model, run)
        return replace(outcome, metrics=summarise(self.images, len(self.train.classes)) | outcome.metrics)

    def create_test(self) -> tuple[ImageLoader, "ClassificationMetric"]:
        loader = eval_loader(self.config, self.test, self.plain)
        return loader, ClassificationMetric(len(self.train.classes))

    def save(self, run: TransferRun) -> Path:
        """Write the predictions for every test image, also with its file's name, and the confusion matrix."""
        path, classes, test_set = run.work_dir / "predictions.npz", self.test.classes, self.test.fingerprint()
        files = [self.test.relative_path(i) for i in range(len(self.test))]
        write_table(predictions_table(self.images, files, classes), run.work_dir / TABLE)
        FORMAT.save(path, self.images, class_names=classes, test_set=test_set, **run.identity())
        save_confusion(run.work_dir, self.images, classes, f"{run.source.method}: {self.config.name}")
        return path

    def _vote(self, model: Classifier) -> Outcome:
        """Votes of the nearest training images, in the space of frozen features."""
        knn, pooling = self.config.knn, self.config.pooling
        started = seconds()
        train_f, train_y, _ = extract(model, knn_loader(self.config, self.train, self.plain), pooling)
        test_f, test_y, index = extract(model, knn_loader(self.config, self.test, self.plain), pooling)
        k = self.lowered.get("knn_k", knn.k)
        votes_NC = knn_votes(train_f, train_y, test_f, len(self.train.classes), k, knn.temperature)
        self.images = rank_scores(votes_NC.log(), test_y, index)  # a score is up to a constant
        return Outcome({**self.lowered}, elapsed(started))

    def _fits(self, model: Classifier) -> bool:
        """Whether the features of the training images take at most `CACHE` bytes."""
        vit = model.backbone
        numbers = vit.embed_dim * (vit.patch_embed.num_patches if self.config.pooling == "attentive" else 1)
        return 4 * numbers * len(self.train) <= CACHE

    def _train(self, model: Classifier, run: TransferRun) -> Outcome:
        """Fine-tuning, or a head on frozen features: computed once where training images are not augmented and the
        features fit into memory."""
        config = self.config
        if config.protocol == "linear" and config.data.batch_size < 2 * get_world_size():
            raise ConfigError("config key 'data.batch_size' must give each process 2 images, for the head's BatchNorm")
        started, before = seconds(), {"wall": 0.0, "cpu": 0.0}
        least = least_side(config)
        images: NumberedImages = LabelledImages(self.train, self.augment, seed=config.seed, least_side=least)
        workers = config.data.num_workers
        if config.protocol == "linear" and config.data.augment is None and self._fits(model):
            features = extract(model, eval_loader(config, self.train, self.plain), config.pooling)
            images, workers = CachedFeatures(*features, seed=config.seed), 0
            before = elapsed(started)
        batches = EpochBatches(images, config.data.batch_size, epochs=config.train.epochs)
        loader = ImageLoader(images, batch_sampler=batches, num_workers=workers)
        tests, metric = self.create_test()
        section = section_of(model.backbone) if config.protocol == "finetune" else None
        outcome = run.train(ClassifierStep(model, config), loader, tests, metric, section)
        self.images = metric.per_image
        return replace(outcome, clock={kind: before[kind] + seconds for kind, seconds in outcome.clock.items()})


def build_transforms(config: ClassificationConfig) -> tuple[Transform, Transform]:
    """Of training and of evaluation; the same object without ``data.augment``."""
    data, size = config.data, config.backbone.height_width
    with values_of("data.evaluate"):
        plain: Transform = _SECTIONS.build("data.evaluate", data.evaluate, img_size=size)
    with values_of("data.augment"):
        return (plain if data.augment is None else build_transform(data.augment, size)), plain


def least_side(config: ClassificationConfig) -> int:
    """Pixels of the shorter side of a training image of which the smallest crop is twice as large as what the model
    sees; 0 without ``data.reduced_decoding``."""
    if not config.data.reduced_decoding:
        return 0
    given = config.data.augment or {}
    (smallest, _), (narrow, wide) = given.get("scale", (0.08, 1.0)), given.get("ratio", (3 / 4, 4 / 3))
    share = 1.0 if given.get("type") == "pad_crop" else math.sqrt(smallest * min(narrow, 1 / wide))
    return math.ceil(2 * max(config.backbone.height_width) / share)


def build_mix(config: ClassificationConfig, num_classes: int) -> BatchMix | None:
    """Mixup and cutmix, if ``data.mix`` asks for them."""
    if config.data.mix is None:
        return None
    smoothing = config.train.label_smoothing
    with values_of("data.mix"):
        mix: BatchMix = _SECTIONS.build("data.mix", config.data.mix, num_classes=num_classes, label_smoothing=smoothing)
    mix.check_batch(config.data.batch_size // get_world_size())
    return mix


def build_model(config: ClassificationConfig, num_classes: int) -> tuple[Classifier, str]:
    """The model of the protocol, and what was loaded."""
    b, protocol = config.backbone, config.protocol
    weights = b.named_weights()
    with values_of("backbone.model"):
        backbone, report = create_backbone(
            weights,
            num_classes=num_classes,
            img_size=b.height_width,
            drop_path=b.drop_path,
            global_pool=b.global_pool,
            model=b.model,
            keep_norm=protocol != "finetune",
            seed=config.seed,
        )
    for section in ("evaluate", "augment"):
        given = getattr(config.data, section) or {}
        statistics = given.get("mean", IMAGENET_MEAN), given.get("std", IMAGENET_STD)
        report.check_pixels(f"data.{section}", *statistics)
    model = Classifier(
        backbone,
        linear=None if protocol == "finetune" else config.pooling,
        queries=config.queries,
        seed=config.seed,
        mix=build_mix(config, num_classes) if protocol != "knn" else None,
        smoothing=config.train.label_smoothing,
        ema=config.train.ema,
    )
    return model.to(training_device()), str(report)


# --- the metric -------------------------------------------------------------------------------------------------------


def rank_scores(scores_NC: Tensor, label_N: Tensor, index_N: Tensor) -> PerImage:
    """Rank classes by score: logits, or log-probabilities, of which -inf ("impossible") is one; ties as in `per_image`.

    Raises TrainingError for NaN, +inf or no finite score in a row, DataError for a label outside the classes.
    """
    scores_NC = scores_NC.detach().float()
    finite_N = torch.isfinite(scores_NC.amax(dim=1)) & ~scores_NC.isnan().any(dim=1)
    if not bool(finite_N.all()):
        first = int(index_N.cpu()[~finite_N.cpu()][0])
        raise TrainingError(
            f"scores of {int((~finite_N).sum())} of {len(finite_N)} images are not finite (first: image {first}); "
            "training has diverged: start again in another --work-dir with a lower optim.lr"
        )
    if len(label_N) and not 0 <= int(label_N.min()) <= int(label_N.max()) < scores_NC.shape[1]:
        raise DataError(
            f"test labels reach outside the model's {scores_NC.shape[1]} classes; train on the same classes"
        )
    top_NK = scores_NC.sort(dim=1, descending=True, stable=True).indices[:, :TOP]  # log_softmax would make ties
    return PerImage(
        index_N.cpu().numpy().astype(np.int64),
        label_N.cpu().numpy().astype(np.int64),
        top_NK.cpu().numpy(),
        scores_NC.log_softmax(dim=1).gather(1, top_NK).cpu().numpy(),
    )


class ClassificationMetric(GatheringMetric):
    """`summarise` of data samples with ``score`` (C,), ``label`` and ``index``, over all processes.

    After ``evaluate`` every rank has the images in ``per_image``, sorted. ``num_classes``: C, whatever classes the test
    set has.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.per_image: PerImage

    def process(self, data_samples: Sequence[dict[str, Any]]) -> None:
        scores_BC = torch.stack([sample["score"] for sample in data_samples])
        label_B, index_B = (torch.tensor([int(sample[key]) for sample in data_samples]) for key in ("label", "index"))
        images = rank_scores(scores_BC, label_B, index_B)
        self.rows += zip(images.index, images.label, images.top_classes, images.top_log_probs, strict=True)

    def compute(self, rows: list[Any]) -> dict[str, float]:
        self.per_image = PerImage(*map(np.array, zip(*rows, strict=True)))
        return summarise(self.per_image, self.num_classes)
