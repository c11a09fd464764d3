"""One transfer: a backbone and a recipe in; accuracies, predictions, confusion matrix and one JSON record out."""

from __future__ import annotations

import datetime
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_dist_info, is_main_process

from benchmarks import records
from benchmarks.classification.augment import Transform
from benchmarks.classification.backbone import create_backbone
from benchmarks.classification.config import TransferConfig
from benchmarks.classification.confusion import save_confusion
from benchmarks.classification.frozen import CachedFeatures, extract
from benchmarks.classification.inputs import Inputs, build_mix, open_inputs, values_of
from benchmarks.classification.loaders import ImageLoader, LabelledImages, Ordered, batch_loader, eval_loader
from benchmarks.classification.metrics import ClassificationMetric, PerImage, rank_scores, summarise
from benchmarks.classification.model import Classifier
from benchmarks.classification.origin import Origin, describe_weights
from benchmarks.classification.predictions import save_predictions
from benchmarks.classification.trainer import TransferModel, TransferRunner, build_runner
from mlomae.data import Source
from mlomae.engine.checkpoint import list_checkpoints
from mlomae.engine.exact_runner import check_same_config, join_process_group
from mlomae.errors import CheckpointError, ConfigError, DataError
from mlomae.evaluation import knn_votes


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(started: tuple[float, float]) -> dict[str, float]:
    return {kind: now - then for kind, now, then in zip(("wall", "cpu"), _now(), started, strict=True)}


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
    started = _now()
    train_f, train_y, _ = extract(model, _eval_loader(config, inputs.train, inputs.plain), config.pooling)
    test_f, test_y, index = extract(model, _eval_loader(config, inputs.test, inputs.plain), config.pooling)
    votes_NC = knn_votes(train_f, train_y, test_f, len(inputs.train.classes), config.knn.k, config.knn.temperature)
    return Outcome(rank_scores(votes_NC.log(), test_y, index), {}, _since(started))  # a score is up to a constant


def run_training(
    config: TransferConfig, inputs: Inputs, model: TransferModel, work_dir: Path, meta: dict[str, Any], resume: bool
) -> Outcome:
    """Fine-tuning, or a linear head on frozen features: computed once where training images are not augmented."""
    rank, world = get_dist_info()
    if config.protocol == "linear" and config.data.batch_size < 2 * world:
        raise ConfigError("config key 'data.batch_size' must give each process 2 images, for the head's BatchNorm")
    started, before = _now(), {"wall": 0.0, "cpu": 0.0}
    images: Ordered = LabelledImages(inputs.train, inputs.augment, seed=config.seed)
    workers = config.data.num_workers
    if config.protocol == "linear" and config.data.augment is None:
        features = extract(model, _eval_loader(config, inputs.train, inputs.plain), config.pooling)
        images, workers = CachedFeatures(*features, source=inputs.train, seed=config.seed), 0
        before = _since(started)
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
    clock = {kind: before[kind] + seconds for kind, seconds in runner.train_loop.clock.items()}
    return Outcome(metric.per_image, runner.last_logged(), clock, runner.max_iters)


def described(config: TransferConfig, origin: Origin) -> dict[str, Any]:
    """The configuration as a record keeps it: what the backbone is, not the path, under which anything may lie."""
    plain = config.to_dict()
    plain["backbone"]["weights"] = origin.identity
    return dict(records.strip_paths(plain))


def check_folder(work_dir: Path, resume: bool, portable: dict[str, Any]) -> None:
    """Raise ConfigError if ``work_dir`` holds a run, finished or not, that ``resume`` does not ask for, CheckpointError
    if it holds a finished run of another configuration: its results would be replaced."""
    path = work_dir / "record.json"
    if (list_checkpoints(work_dir) or path.exists()) and not resume:
        raise ConfigError(
            f"'{work_dir}' already holds a run; add --resume to go on with it, or choose another --work-dir"
        )
    if not path.exists():
        return
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))["config"]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"'{path}' is damaged; remove it, or choose another work dir") from error
    check_same_config(saved, portable, path, TransferRunner.free_to_change)


def run_transfer(
    config: TransferConfig,
    work_dir: Path,
    resume: bool = False,
    records_dir: Path | None = None,
    origin: Origin | None = None,
) -> dict[str, Any]:
    """Transfer, evaluate on the test split, write record, predictions and confusion matrix into ``work_dir``.

    ``origin``: of the configuration's weights, where the caller has read them already.
    Returns the record on the main process, {} on others. Raises ConfigError if the folder already holds a run and
    ``resume`` is off, CheckpointError if it holds another one, and the errors of its parts.
    """
    origin = origin or describe_weights(config.backbone.weights or "")
    check_folder(work_dir, resume, described(config, origin))
    join_process_group()
    commit, dirty = records.git_state(Path(__file__).parent)  # now: the checkout may have moved on when the run ends
    inputs = open_inputs(config)
    model, report = build_model(config, len(inputs.train.classes))
    if is_main_process():
        print(report.splitlines()[0] + "".join(f"\n{line}" for line in report.splitlines()[1:] if "note" in line))
    if config.protocol == "knn":
        outcome = run_knn(config, inputs, model)
    else:
        meta = {"name": config.name, "seed": config.seed, "git_commit": commit}
        meta["origin"] = {**origin.identity, "sha256": origin.details.get("sha256")}
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
    portable = described(config, origin)
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
        "config": portable,
        "config_hash": records.config_hash(portable),
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
