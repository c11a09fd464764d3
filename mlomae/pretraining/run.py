"""A pretraining run: configuration in, checkpoint, pictures, curves and one JSON record out."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from mmengine.dist import is_main_process

from mlomae import placing, records
from mlomae.common import checkpoint, system
from mlomae.common.errors import ConfigError, DataError, counted, first_names
from mlomae.common.numerics import numerics_of
from mlomae.config.plugins import recorded_plugins
from mlomae.config.schema import PretrainConfig
from mlomae.data import (
    OuterBatches,
    Source,
    Split,
    Stream,
    build_augment,
    build_source,
    build_training_source,
    check_classes,
    check_disjoint,
    shuffle_labels,
    split_train,
)
from mlomae.data.content import describe_contents
from mlomae.data.copies import check_trained_on, digests_of, save_digests
from mlomae.feedback import is_dense, is_joint
from mlomae.masking import is_trainable
from mlomae.models.places import weights_path
from mlomae.pretraining.checks import build_augments, check_kinds, check_labels, check_sizes, lowered_batches
from mlomae.pretraining.collapse import CollapseGuard
from mlomae.pretraining.continuing import check_continues, finished_record
from mlomae.pretraining.curves import LossCurves
from mlomae.pretraining.devices import join_process_group, owned_by_run, to_device, training_device
from mlomae.pretraining.evaluation import PlainBatches, check_probe, evaluate
from mlomae.pretraining.feedback_gate import FeedbackProbe, is_probe, moves_phi, needed_levels
from mlomae.pretraining.health import MaskHealth
from mlomae.pretraining.log import ReadingShare, log_notes, warn
from mlomae.pretraining.optim import build_optimizers, deferred_rate, rates
from mlomae.pretraining.pictures import picture_hook
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.step import PretrainStep
from mlomae.pretraining.trainer import Hook, Rate, Task, Trainer

PROBE_IMAGES = 64  # fixed training images on which the health of the mask is read
TASK = Task(
    format=checkpoint.FORMAT,
    recorded=(
        "loss_lower",
        "loss_beside",
        "loss_head",
        "loss_upper",
        "reconstruction_error",
        "feedback_accuracy",
        "feedback_chance",
        "phi_started",
        "sigma_saturated",
        "sigma_object_auroc",
        "influence_object_auroc",
        "influence_object_gap",
        "feature_rank",
        "feature_spread",
    ),
    free_to_change=frozenset(
        {
            "data.num_workers",
            *(f"data.{part}.title" for part in ("train", "eval", "feedback")),
            "data.probe_limit",
            "train.log_interval",
            "train.picture_interval",
            "train.checkpoint_interval",
            "train.keep_checkpoints",
        }
    ),
    remedy="a lower optim.theta.lr, or from weights that are sound by init_from=iter_N.pth",
)


@dataclass
class PretrainData:
    """The sources of a run, its split, and the batches of every outer iteration.

    ``feedback`` has the labels that the feedback sees, ``train`` the true ones. ``num_classes`` are the feedback's, of
    images or of pixels. ``copies`` counts the evaluation images that training has too, as records keep it. ``lowered``:
    batch sizes in place of those of ``config.data`` that are larger than their images. ``sources``: as `open_sources`.
    """

    train: Source
    feedback: Source
    evaluation: Source | None
    split: Split
    batches: OuterBatches
    probe: dict[str, torch.Tensor]
    num_classes: int
    copies: dict[str, Any]
    lowered: dict[str, int]
    sources: dict[str, Source]


Announce: TypeAlias = Callable[[PretrainData, Pretrainer], None]


def probe_batches(config: PretrainConfig, train: Source, evaluation: Source) -> tuple[PlainBatches, PlainBatches]:
    """The training and the held-out images of k-NN and linear probe."""
    size = config.model.img_size
    return PlainBatches(train, size, config.data.probe_limit), PlainBatches(evaluation, size)


def build_data(config: PretrainConfig, sources: dict[str, Source] | None = None) -> PretrainData:
    """Open the sources, refuse leaks, split the training set, set up the streams of the three levels.

    The lower level sees the unlabelled 80 %, the head the same images with labels, the upper level the other 20 %.
    ``sources``: of `open_sources`, where the caller has opened them. Raises DataError if evaluation images would reach
    any level, ConfigError for shuffled labels that nothing reads.
    """
    data, size = config.data, config.model.img_size
    sources = sources or open_sources(config)
    train, evaluation = sources["train"], sources.get("eval")
    feedback = sources.get("feedback", train)
    learned = is_trainable(config.mask["type"])
    pixels = learned and is_dense(config.feedback["type"])
    check_kinds(config, train, feedback, pixels)
    augment, feedback_augment = build_augments(config, learned)
    rank, world_size, copies = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)), {}
    if evaluation is not None:
        check_classes(train, evaluation)
        for part, source in {"training": train, **({} if feedback is train else {"feedback": feedback})}.items():
            if rank == 0:  # it reads all images
                copies[part] = check_disjoint(source, evaluation, data.allow_near_copies).counts()
    split = find_split(config, sources)
    lower_indices = split.train_indices if feedback is train else np.arange(len(train))
    if data.shuffle_labels is not None:
        if not learned:
            raise ConfigError(
                f"data.shuffle_labels has no effect: mask.type='{config.mask['type']}' gets no feedback; remove it"
            )
        feedback = shuffle_labels(feedback, split, data.shuffle_labels)

    others = config.mask.get("patches") == "shuffled"
    lower = Stream(train, lower_indices, augment, config.seed, "lower", other_objects=others)
    parts = {"head": split.train_indices, "upper": split.val_indices} if learned else {}
    labelled = {k: Stream(feedback, part, feedback_augment, config.seed, k, pixels) for k, part in parts.items()}
    levels = {"batch_size": [lower], "feedback_batch_size": list(labelled.values())}
    lowered = lowered_batches(config, levels, world_size)
    for key, fits in lowered.items():
        warn(f"data.{key} is {getattr(data, key)}, more than its images: lowered to {fits}")
    batches = OuterBatches(
        lower=lower,
        head=labelled.get("head"),
        upper=labelled.get("upper"),
        **{key: lowered.get(key, getattr(data, key)) for key in levels},
        steps_per_outer=config.levels.lower_steps,
        rank=rank,
        world_size=world_size,
    )
    plain = build_augment({"type": "Plain", "size": size})
    fixed = Stream(train, lower_indices, plain, config.seed, "probe")
    try:
        probe = fixed.batch(0, min(PROBE_IMAGES, len(lower_indices)))
    except DataError:
        digests_of(train)  # which names all images that cannot be decoded
        raise
    classes = len(feedback.pixel_classes) if pixels else len(feedback.classes)
    return PretrainData(train, feedback, evaluation, split, batches, probe, classes, copies, lowered, sources)


def open_sources(config: PretrainConfig) -> dict[str, Source]:
    """The sources of ``config.data`` by their keys: train, and eval and feedback if they are given."""
    data = config.data
    sources = {"train": build_training_source(data.train)}
    if data.eval:
        sources["eval"] = build_source(data.eval)
    if data.feedback:
        sources["feedback"] = build_training_source(data.feedback)
    return sources


def find_split(config: PretrainConfig, sources: dict[str, Source]) -> Split:
    """The split that a run of ``config`` would make of its ``sources``."""
    return split_train(sources.get("feedback", sources["train"]), config.data.val_fraction, config.data.split_seed)


def with_sizes(config: PretrainConfig, lowered: dict[str, int]) -> PretrainConfig:
    """``config`` with the batch sizes that a run has (`PretrainData.lowered`)."""
    sizes: dict[str, Any] = dict(lowered)
    return replace(config, data=replace(config.data, **sizes))


def images_seen(config: PretrainConfig, phi_started: int) -> dict[str, int]:
    """Images each level has used over the whole run, repetitions counted; ``phi_started`` as in the log, -1 is never.

    Upper images are used where φ takes a step or the feedback is probed. Head images are used in every iteration, but
    by a feedback without parameters only together with upper ones. Batches that only the log looks at do not count.
    """
    n, size = config.train.outer_iterations, config.data.feedback_batch_size
    used = {"lower": n * config.levels.lower_steps * config.data.batch_size, "head": 0, "upper": 0}
    if not is_trainable(config.mask["type"]):
        return used
    upper = sum(moves_phi(t, phi_started, config.levels.upper_every) or is_probe(t) for t in range(n))
    return {**used, "head": size * (upper if is_joint(config.feedback["type"]) else n), "upper": size * upper}


def build_trainer(
    config: PretrainConfig, model: Pretrainer, data: PretrainData, work_dir: Path, meta: dict[str, Any], resume: bool
) -> tuple[Trainer, LossCurves]:
    """The trainer of a pretraining, and the curves it fills; under ``torchrun`` the process group is joined here."""
    join_process_group()
    model.to(training_device())
    iterations, levels, batches = config.train.outer_iterations, config.levels, data.batches
    optimizers = build_optimizers(model.level_parameters(), config)
    step = PretrainStep(model, optimizers)
    gate, curves = step.gate, LossCurves(iterations, step.gate)
    probe = to_device(data.probe, training_device())
    hooks: list[Hook] = []
    chance = 0.0
    if gate is not None:
        batches.needed = needed_levels(config)
        judging = FeedbackProbe(model, gate, batches)
        hooks.append(judging)
        chance = 100.0 * judging.chance.share
    hooks += [curves, MaskHealth(model, config.train.log_interval, probe, chance)]
    hooks += [CollapseGuard(model, config.train.log_interval, probe)]
    hooks += [picture_hook(model, probe, work_dir / "pictures"), ReadingShare(batches, config.data.num_workers)]

    def rates_of(level: str) -> list[Rate]:
        settings = config.optim[level]
        if level == "phi" and gate is not None and levels.warmup_margin:
            rate: Rate = lambda t: deferred_rate(settings, t, gate.begin, iterations)  # noqa: E731
        else:
            rate = rates(settings, iterations, levels.warmup if level == "phi" else 0).__getitem__
        return [rate] * len(optimizers[level].param_groups)

    trainer = Trainer(
        TASK,
        config,
        work_dir,
        meta,
        model=model,
        modules=model.saved_modules(),
        optimizers=optimizers,
        rates={level: rates_of(level) for level in optimizers},
        step=step,
        batches=lambda t: batches.load(t, iterations, config.data.num_workers, training_device()),
        iterations=iterations,
        hooks=hooks,
        stateful={"curves": curves, **({} if gate is None else {"watch": gate})},
        resume=resume,
        check_resumed=lambda state: check_sizes(state["meta"].get("lowered", {}), data.lowered, work_dir),
    )
    return trainer, curves


def keep_digests(config: PretrainConfig, data: PretrainData, work_dir: Path) -> None:
    """Keep the digests of all training images beside the checkpoints, with those that the initial weights have seen.

    Raises DataError if evaluation images are among the latter.
    """
    if int(os.environ.get("RANK", 0)) != 0:
        return
    earlier = None
    if config.init_from:
        weights, where = weights_path(config.init_from), f"; training of '{config.init_from}'"
        earlier, counts = check_trained_on(weights, data.evaluation, where, config.data.allow_near_copies)
        if data.evaluation is not None:
            data.copies["init_from"] = counts or "unknown"
    save_digests(work_dir, {id(source): source for source in (data.train, data.feedback)}.values(), earlier)


def run_pretraining(
    config: PretrainConfig,
    work_dir: Path,
    resume: bool = False,
    records_dir: Path | None = None,
    announce: Announce = lambda data, model: None,
) -> dict[str, Any]:
    """Pretrain, evaluate on the held-out set, write ``work_dir/record.json`` (and ``records_dir/NAME.json``).

    ``announce`` is called with the data and the model, before the first step.

    Raises what `Trainer.train` raises, and ConfigError if the folder holds a run that ``resume`` does not continue, or
    one that is still going on, or another process makes the run that ``records_dir`` is to have a record of.
    """
    portable = records.strip_paths(config.to_dict())
    place = records_dir and records_dir / f"{config.name}_seed{config.seed}.json"
    with owned_by_run(work_dir, *placing.owned_places(portable, place)):
        return _run(config, work_dir, resume, place, announce)


def _run(
    config: PretrainConfig, work_dir: Path, resume: bool, place: Path | None, announce: Announce
) -> dict[str, Any]:
    finished = finished_record(work_dir, resume, records.strip_paths(config.to_dict()), TASK.free_to_change)
    torch.manual_seed(config.seed)
    data = build_data(config)
    check_labels(config.feedback["type"], data.batches)
    if data.evaluation is not None:
        check_probe(
            *probe_batches(config, data.train, data.evaluation),
            "set data.eval=None, or raise data.probe_limit if it is set",
        )
    git = system.git_state(Path(__file__).parent)  # now: the checkout may have moved on when the run ends
    plugins = recorded_plugins(config.to_dict())
    meta = {"name": config.name, "seed": config.seed, "split_hash": data.split.hash, "git_commit": git[0]}
    meta |= {"numerics": numerics_of("pretrain", config.to_dict()), "data": describe_contents(data.sources)}
    meta |= {"lowered": data.lowered} if data.lowered else {}
    check_continues(work_dir, finished, config, meta, TASK.format, TASK.free_to_change)
    source = lambda s: f"{s.name} {s.split}, {counted(len(s), 'image')}"  # noqa: E731
    describe: Callable[..., records.Record] = partial(
        records.make_record,
        task="pretrain",
        name=config.name,
        method=config.method,
        dataset=data.train.title,
        demo=config.demo,
        seed=config.seed,
        config=config.to_dict(),
        outer_iterations=config.train.outer_iterations,
        split_hash=data.split.hash,
        classes=data.num_classes,
        train_source=source(data.train),
        eval_source=source(data.evaluation) if data.evaluation else "none",
        git=git,
        numerics=meta["numerics"],
        data=meta["data"],
        copies=data.copies,
        **({"lowered": data.lowered} if data.lowered else {}),
        **plugins,
    )
    seen = partial(images_seen, with_sizes(config, data.lowered))
    to_be = describe(clock={"wall": 0.0, "cpu": 0.0}, metrics={}, images_seen=seen(-1))
    placing.check_place(to_be, work_dir, place, resume)
    model = Pretrainer(config, data.num_classes)
    if config.init_from and not checkpoint.list_checkpoints(work_dir):
        print(model.start_from(config.init_from))
    keep_digests(config, data, work_dir)
    trainer, curves = build_trainer(config, model, data, work_dir, meta, resume)
    alone = f"classes of one image, which is in the training part of the split: {first_names(data.split.alone)}"
    log_notes(work_dir, data.sources.values(), *([alone] if data.split.alone else []))
    announce(data, model)
    trainer.train()
    if not is_main_process():
        return {}
    metrics = dict(trainer.logged)
    if data.evaluation is not None:
        probes = probe_batches(config, data.train, data.evaluation)
        metrics |= evaluate(model.mae.encoder, *probes, trainer.device)
    clock = {kind: round(seconds, 2) for kind, seconds in trainer.clock.items()}
    means = curves.means()  # none for a run that an older version has finished
    record = describe(
        clock=clock,
        metrics=metrics,
        images_seen=seen(int(metrics.get("phi_started", -1))),
        **({"curves": means} if means else {}),
    )
    record = placing.keep_record(record, work_dir, place)
    if place is not None:
        placing.place_record(record, place)
    return record
