"""One transfer: a backbone and a recipe in; accuracies, predictions, confusion matrix and one JSON record out."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_dist_info, is_main_process

from benchmarks import records
from benchmarks.classification.augment import Transform, build_transform, eval_transform
from benchmarks.classification.backbone import create_backbone
from benchmarks.classification.config import TransferConfig
from benchmarks.classification.confusion import save_confusion
from benchmarks.classification.frozen import CachedFeatures, extract
from benchmarks.classification.loaders import ImageLoader, LabelledImages, Ordered, batch_loader, eval_loader
from benchmarks.classification.metrics import ClassificationMetric, PerImage, rank_scores, summarise
from benchmarks.classification.mixing import BatchMix
from benchmarks.classification.model import Classifier
from benchmarks.classification.origin import Origin, describe_weights
from benchmarks.classification.predictions import save_predictions
from benchmarks.classification.trainer import TransferModel, build_runner
from mlomae.data import Source, build_source, check_disjoint
from mlomae.engine.checkpoint import list_checkpoints
from mlomae.engine.exact_runner import join_process_group
from mlomae.errors import ConfigError, DataError
from mlomae.evaluation import knn_votes


@dataclass
class Outcome:
    """What a protocol returns. ``clock``: wall and processor seconds of training (k-NN: of features and votes)."""

    images: PerImage
    metrics: dict[str, float]
    clock: dict[str, float]
    iterations: int = 0


@dataclass
class Inputs:
    """Sources, checked, and their transforms; ``plain`` has nothing random."""

    train: Source
    test: Source
    augment: Transform
    plain: Transform


def open_inputs(config: TransferConfig) -> Inputs:
    """Both sources; raises DataError if their classes differ or if a test image is also a training image."""
    train, test = build_source(config.data.train), build_source(config.data.test)
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes)) or ["the order"]
        raise DataError(
            f"classes of {train.describe()} and {test.describe()} differ ({odd[0]}); give both splits of one data set"
        )
    check_disjoint(train, test)
    size = config.backbone.img_size if isinstance(config.backbone.img_size, int) else tuple(config.backbone.img_size)
    plain = eval_transform(size, **config.data.evaluate)
    return Inputs(train, test, build_transform(config.data.augment, size) if config.data.augment else plain, plain)


def build_model(config: TransferConfig, num_classes: int) -> tuple[TransferModel, str]:
    """The model of the protocol, and what was loaded."""
    b, protocol = config.backbone, config.protocol
    if not b.weights:
        raise ConfigError("no backbone was named; give CKPT=... (or --weights), or 'random' as the floor")
    size = b.img_size if isinstance(b.img_size, int) else tuple(b.img_size)
    backbone, report = create_backbone(
        b.weights,
        num_classes=num_classes,
        img_size=size,
        drop_path=b.drop_path,
        global_pool=b.global_pool,
        model=b.model,
        keep_norm=protocol != "finetune",
        seed=config.seed,
    )
    mix = None
    if config.data.mix is not None:
        mix = BatchMix(num_classes, **{"label_smoothing": config.train.label_smoothing, **config.data.mix})
        mix.check_batch(config.data.batch_size // get_dist_info()[1])
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
    size, workers = config.data.batch_size, config.data.num_workers
    return eval_loader(source, transform, batch_size=size, num_workers=workers, rank=rank, world_size=world)


def run_knn(config: TransferConfig, inputs: Inputs, model: Classifier) -> Outcome:
    """Votes of the nearest training images, by frozen features."""
    started = time.perf_counter(), time.process_time()
    train_f, train_y, _ = extract(model, _eval_loader(config, inputs.train, inputs.plain), config.pooling)
    test_f, test_y, index = extract(model, _eval_loader(config, inputs.test, inputs.plain), config.pooling)
    k = min(config.knn.k, len(train_y))
    votes_NC = knn_votes(train_f, train_y, test_f, len(inputs.train.classes), k, config.knn.temperature)
    clock = {"wall": time.perf_counter() - started[0], "cpu": time.process_time() - started[1]}
    return Outcome(rank_scores((votes_NC / votes_NC.sum(dim=1, keepdim=True)).log(), test_y, index), {}, clock)


def run_training(
    config: TransferConfig, inputs: Inputs, model: TransferModel, work_dir: Path, meta: dict[str, Any], resume: bool
) -> Outcome:
    """Fine-tuning, or a linear head on frozen features: computed once where training images are not augmented."""
    rank, world = get_dist_info()
    images: Ordered = LabelledImages(inputs.train, inputs.augment, seed=config.seed)
    workers, extraction = config.data.num_workers, {"wall": 0.0, "cpu": 0.0}
    if config.protocol == "linear" and config.data.augment is None:
        started = time.perf_counter(), time.process_time()
        features = extract(model, _eval_loader(config, inputs.train, inputs.plain), config.pooling)
        images, workers = CachedFeatures(*features, source=inputs.train, seed=config.seed), 0
        extraction = {"wall": time.perf_counter() - started[0], "cpu": time.process_time() - started[1]}
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
    runner = build_runner(config, model, loader, test, metric, work_dir, meta, resume)
    try:
        runner.train()
    except OSError as error:
        raise DataError(f"training stopped: {error}; free disk space or fix the path, then resume") from error
    runner.test_loop.run()
    assert metric.per_image is not None
    clock = {kind: seconds + extraction[kind] for kind, seconds in runner.train_loop.clock.items()}
    return Outcome(metric.per_image, runner.last_logged(), clock, runner.max_iters)


def described(config: TransferConfig, origin: Origin) -> dict[str, Any]:
    """The configuration as a record keeps it: the backbone by what it is, as anything may lie under a path."""
    plain = config.to_dict()
    plain["backbone"]["weights"] = origin.identity
    return dict(records.strip_paths(plain))


def run_transfer(
    config: TransferConfig, work_dir: Path, resume: bool = False, records_dir: Path | None = None
) -> dict[str, Any]:
    """Transfer, evaluate on the test split, write record, predictions and confusion matrix into ``work_dir``.

    Returns the record on the main process, {} on others. Raises ConfigError if the folder already holds a run and
    ``resume`` is off, and the errors of its parts.
    """
    if list_checkpoints(work_dir) and not resume:
        raise ConfigError(
            f"'{work_dir}' already holds a run; add --resume to go on with it, or choose another --work-dir"
        )
    join_process_group()
    commit, dirty = records.git_state(Path(__file__).parent)  # now: the checkout may have moved on when the run ends
    inputs = open_inputs(config)
    model, report = build_model(config, len(inputs.train.classes))
    origin = describe_weights(config.backbone.weights or "")
    if is_main_process():
        print(report.splitlines()[0] + "".join(f"\n{line}" for line in report.splitlines()[1:] if "note" in line))
    if config.protocol == "knn":
        outcome = run_knn(config, inputs, model)
    else:
        meta = {"name": config.name, "seed": config.seed, "git_commit": commit, "origin": origin.identity}
        outcome = run_training(config, inputs, model, work_dir, meta, resume)
    if not is_main_process():
        return {}
    record = _record(config, inputs, origin, outcome) | {"git_commit": commit, "git_dirty": dirty}
    save_predictions(
        work_dir / "predictions.npz",
        outcome.images,
        class_names=inputs.test.classes,
        test_set=inputs.test.fingerprint(),
        run=f"{record['method']}, {config.name}, seed {config.seed}",
        config_hash=record["config_hash"],
    )
    save_confusion(work_dir, outcome.images, inputs.test.classes, f"{record['method']}: {config.name}")
    path = work_dir / "record.json"
    path.unlink(missing_ok=True)  # of the same run, evaluated again; in records_dir nothing is ever replaced
    records.write_record(record, path)
    if records_dir is not None:
        name = f"{config.name}_{records.slug(origin.method)}_seed{config.seed}.json"
        records.write_record(record, records_dir / name)
    return record


def _record(config: TransferConfig, inputs: Inputs, origin: Origin, outcome: Outcome) -> dict[str, Any]:
    """Schema of `benchmarks.records`; ``pretrained`` says which backbone, its identity is part of the configuration."""
    plain = described(config, origin)
    seen = outcome.iterations * config.data.batch_size
    source = lambda s: f"{s.describe()}, {len(s)} images".replace(s.root, Path(s.root).name)  # noqa: E731
    return {
        "schema": records.SCHEMA,
        "name": config.name,
        "method": origin.method,
        "task": "classification",
        "dataset": inputs.train.name,
        "demo": config.demo,
        "seed": config.seed,
        "config": plain,
        "config_hash": records.config_hash(plain),
        "versions": records.versions(),
        "hardware": records.hardware(),
        "images_seen": {"lower": seen, "head": 0, "upper": 0},
        "outer_iterations": outcome.iterations,
        "wall_clock_s": round(outcome.clock["wall"], 2),
        "cpu_s": round(outcome.clock["cpu"], 2),
        "split_hash": None,
        "train_source": source(inputs.train),
        "eval_source": source(inputs.test),
        "pretrained": origin.details,
        "metrics": summarise(outcome.images, len(inputs.train.classes)) | outcome.metrics,
        "finished_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
