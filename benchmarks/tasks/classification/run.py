"""One transfer: a backbone and a recipe in; accuracies, predictions, confusion matrix and one JSON record out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_dist_info, is_main_process

from benchmarks.tasks.classification.augment import Transform
from benchmarks.tasks.classification.config import TransferConfig
from benchmarks.tasks.classification.confusion import save_confusion
from benchmarks.tasks.classification.frozen import CachedFeatures, extract
from benchmarks.tasks.classification.inputs import Inputs, build_mix, open_inputs
from benchmarks.tasks.classification.loaders import LabelledImages, eval_loader
from benchmarks.tasks.classification.metrics import ClassificationMetric, rank_scores
from benchmarks.tasks.classification.model import Classifier
from benchmarks.tasks.classification.per_image import PerImage, summarise
from benchmarks.tasks.classification.predictions import save_predictions
from benchmarks.tasks.classification.trainer import TransferModel, build_step
from mlomae.backbones.batches import ImageLoader, Ordered, batch_loader
from mlomae.backbones.create import create_backbone
from mlomae.backbones.origin import Origin
from mlomae.backbones.records import now, since
from mlomae.backbones.run import TransferRun, begin_transfer, print_loaded
from mlomae.backbones.sources import values_of
from mlomae.common.errors import ConfigError
from mlomae.data import Source
from mlomae.models.architecture import section_of
from mlomae.pretraining.evaluation import knn_votes


@dataclass
class Outcome:
    """What a protocol returns. ``clock``: wall and processor seconds of training, and of the features computed once."""

    images: PerImage
    metrics: dict[str, float]
    clock: dict[str, float]
    iterations: int = 0


def build_model(config: TransferConfig, num_classes: int) -> tuple[TransferModel, str]:
    """The model of the protocol, and what was loaded."""
    b, protocol = config.backbone, config.protocol
    if not b.weights:
        raise ConfigError("no backbone was named; give CKPT=... (or --weights), or 'random' as the floor")
    with values_of("backbone.model"):
        backbone, report = create_backbone(
            b.weights,
            num_classes=num_classes,
            img_size=b.side,  # type: ignore[arg-type]
            drop_path=b.drop_path,
            global_pool=b.global_pool,
            model=b.model,
            keep_norm=protocol != "finetune",
            seed=config.seed,
        )
    mix = build_mix(config, num_classes) if protocol != "knn" else None
    smoothing = config.train.label_smoothing if mix is None else 0.0
    loss = "soft_target" if mix is not None else "label_smoothing" if smoothing else "cross_entropy"
    model = TransferModel(
        backbone,
        seed=config.seed,
        mix=mix,
        ema=config.train.ema,
        loss=loss,
        smoothing=smoothing,
        linear=None if protocol == "finetune" else config.pooling,
    )
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), str(report)


def _eval_loader(config: TransferConfig, source: Source, transform: Transform) -> ImageLoader:
    rank, world = get_dist_info()
    size, workers = max(1, config.data.batch_size // world), config.data.num_workers
    return eval_loader(source, transform, batch_size=size, num_workers=workers, rank=rank, world_size=world)


def run_knn(config: TransferConfig, inputs: Inputs, model: Classifier) -> Outcome:
    """Votes of the nearest training images, by frozen features."""
    if config.knn.k > len(inputs.train):
        raise ConfigError(f"config key 'knn.k' exceeds the {len(inputs.train)} training images; got {config.knn.k}")
    started = now()
    train_f, train_y, _ = extract(model, _eval_loader(config, inputs.train, inputs.plain), config.pooling)
    test_f, test_y, index = extract(model, _eval_loader(config, inputs.test, inputs.plain), config.pooling)
    votes_NC = knn_votes(train_f, train_y, test_f, len(inputs.train.classes), config.knn.k, config.knn.temperature)
    return Outcome(rank_scores(votes_NC.log(), test_y, index), {}, since(started))  # a score is up to a constant


def run_training(config: TransferConfig, inputs: Inputs, model: TransferModel, run: TransferRun) -> Outcome:
    """Fine-tuning, or a linear head on frozen features: computed once where training images are not augmented."""
    rank, world = get_dist_info()
    if config.protocol == "linear" and config.data.batch_size < 2 * world:
        raise ConfigError("config key 'data.batch_size' must give each process 2 images, for the head's BatchNorm")
    started, before = now(), {"wall": 0.0, "cpu": 0.0}
    images: Ordered = LabelledImages(inputs.train, inputs.augment, seed=config.seed)
    workers = config.data.num_workers
    if config.protocol == "linear" and config.data.augment is None:
        features = extract(model, _eval_loader(config, inputs.train, inputs.plain), config.pooling)
        images, workers = CachedFeatures(*features, source=inputs.train, seed=config.seed), 0
        before = since(started)
    loader = batch_loader(
        images,
        batch_size=config.data.batch_size,
        epochs=config.train.epochs,
        rank=rank,
        world_size=world,
        num_workers=workers,
    )
    metric = ClassificationMetric(len(inputs.train.classes))
    test = _eval_loader(config, inputs.test, inputs.plain)
    section = section_of(model.backbone) if config.protocol == "finetune" else None
    trainer = run.train(build_step(model, config), loader, test, metric, section)
    assert metric.per_image is not None
    clock = {kind: before[kind] + seconds for kind, seconds in trainer.clock.items()}
    return Outcome(metric.per_image, trainer.logged, clock, trainer.iterations)


def run_transfer(
    config: TransferConfig,
    work_dir: Path,
    resume: bool = False,
    records_dir: Path | None = None,
    origin: Origin | None = None,
) -> dict[str, Any]:
    """Transfer, evaluate on the test split, write record, predictions and confusion matrix into ``work_dir``.

    Returns the record on the main process, {} on others. Arguments as for `begin_transfer`; raises its errors and those
    of the other parts.
    """
    run = begin_transfer(config, work_dir, resume, records_dir, origin)
    inputs = open_inputs(config)
    run.check_test(inputs.test)
    model, report = build_model(config, len(inputs.train.classes))
    print_loaded(report)
    outcome = run_knn(config, inputs, model) if config.protocol == "knn" else run_training(config, inputs, model, run)
    if not is_main_process():
        return {}
    record = run.record(
        "classification",
        inputs.train,
        inputs.test,
        iterations=outcome.iterations,
        clock=outcome.clock,
        metrics=summarise(outcome.images, len(inputs.train.classes)) | outcome.metrics,
    )
    predictions, classes = work_dir / "predictions.npz", inputs.test.classes
    test_set = inputs.test.fingerprint()
    save_predictions(predictions, outcome.images, class_names=classes, test_set=test_set, **run.identity())
    save_confusion(work_dir, outcome.images, classes, f"{record['method']}: {config.name}")
    run.write(record, predictions)
    return record
