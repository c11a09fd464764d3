"""``mlomae diagnose``: what a checkpoint's feedback asks for, on fresh batches of the training set.

The batches come from streams of their own, functions of the run's seed alone; evaluation images are not opened. The
upper level's images are few and come back in other crops, so t over batches speaks of this checkpoint and this split.

Shape legend: B images of the lower batch, U of the upper batch, L patches, n batches.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from mlomae.common import random_keys as counter
from mlomae.common.checkpoint import load_checkpoint
from mlomae.common.errors import ConfigError, TrainingError
from mlomae.config.schema import PretrainConfig, config_from_dict
from mlomae.data import Stream, build_augment
from mlomae.diagnostics.pictures import influence_sheet, save_figure
from mlomae.diagnostics.report import Measured, sheet_title, summarise, write_json
from mlomae.feedback import is_dense, is_joint
from mlomae.masking import MaskState, is_trainable
from mlomae.masking.sampling import object_patches
from mlomae.pretraining import health
from mlomae.pretraining.devices import to_device
from mlomae.pretraining.feedback_gate import chance_on
from mlomae.pretraining.influence import Influence, model_influence
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import PretrainData, build_data
from mlomae.pretraining.separation import separate

FORMAT = "mlomae-diagnose/1"
SHEET_IMAGES = 8
MASKS = ("own", "random")


def diagnose(
    checkpoint: Path,
    batches: int = 20,
    batch_size: int = 256,
    feedback: str | None = None,
    mask: str = "own",
    data_root: str | None = None,
    out: Path | None = None,
) -> tuple[dict[str, Any], Path]:
    """Measure a checkpoint, write influence.png and diagnose.json; returns what the JSON holds and the folder.

    Args:
        batches, batch_size: n and the images of each level in a batch. One batch of 32 is mostly noise.
        feedback: another feedback on the checkpoint's encoder; by default its own, or "nca" if it trained none.
        mask: "own" draws masks as in training, "random" uniform ones, so that objects and background are compared
            under one distribution.
        data_root: replaces ``data.train.root`` of the run.
        out: by default the folder ``diagnose`` of the run.

    Raises ConfigError for a wrong option or a feedback without a trained head, CheckpointError for a file that is no
    checkpoint, DataError for missing data, TrainingError if the influence is not finite.
    """
    if batches < 1:
        raise ConfigError(f"--batches {batches} must be at least 1; t over batches needs 2")
    if mask not in MASKS:
        raise ConfigError(f"--mask '{mask}' is unknown; choose one of {', '.join(MASKS)}")
    state = load_checkpoint(checkpoint)
    config = _config(state["config"], checkpoint, feedback, batch_size, data_root)
    data = build_data(config)
    streams = _streams(config, data)
    smallest = min(len(stream) for stream in streams.values())
    if not 1 <= batch_size <= smallest:
        raise ConfigError(f"--batch-size {batch_size} must be 1 to {smallest}, the images of the smallest level")
    model = _model(state, config, data.num_classes)
    device = next(model.parameters()).device

    measured = Measured()
    sheet: dict[str, Any] = {}
    for number in range(batches):
        batch = {level: stream.batch(number * batch_size, batch_size) for level, stream in streams.items()}
        batch = to_device(batch, device)
        found = _measure(model, batch, mask == "random", measured)
        sheet = sheet or _columns(batch["lower"], found, measured)
    result = {
        "format": FORMAT,
        "checkpoint": checkpoint.name,
        "name": config.name,
        "iteration": state["iteration"],
        "mask_type": config.mask["type"],
        "mask": mask,
        "feedback": config.feedback["type"],
        "batch_size": batch_size,
        "batches": batches,
        **summarise(measured, 100.0 * chance_on(streams["upper"], data.num_classes).share),
    }
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    out = out or run / "diagnose"
    figure = influence_sheet(**sheet, grid=model.mae.encoder.grid, title=sheet_title(result))
    save_figure(figure, out / "influence.png")
    write_json(result, out / "diagnose.json")
    return result, out


def _config(
    values: dict[str, Any], path: Path, name: str | None, batch_size: int, data_root: str | None
) -> PretrainConfig:
    """The run's configuration without evaluation data and running average, and with the feedback that is asked for.

    Raises ConfigError for an unknown feedback, or one with a head that the run has not trained.
    """
    config = config_from_dict(values)
    config.data.eval, config.init_from, config.levels.v_momentum = None, None, 0.0
    config.train.accumulate = math.gcd(config.train.accumulate, batch_size)
    if data_root is not None:
        config.data.train["root"] = data_root
    own, trained = config.feedback["type"], is_trainable(config.mask["type"])
    if name is None:
        name = own if trained or is_joint(own) else "nca"
    if not is_joint(name) and not (trained and name == own):
        raise ConfigError(f"'{path}' holds no trained head for feedback '{name}'; use --feedback nca or ridge")
    if name != own:
        config.feedback = {"type": name}
        config.levels.solver_options.pop("paths", None)  # the other feedback may lack a path
    return config


def _streams(config: PretrainConfig, data: PretrainData) -> dict[str, Stream]:
    """The three levels' images and augmentations as in training, in an order of their own."""
    lower, seed = data.batches.lower, config.seed
    augment = build_augment({"size": config.model.img_size, **config.data.feedback_augment})
    pixels = is_dense(config.feedback["type"])
    return {
        "lower": Stream(lower.source, lower.indices, lower.augment, seed, "diagnose/lower"),
        "head": Stream(data.feedback, data.split.train_indices, augment, seed, "diagnose/head", pixels),
        "upper": Stream(data.feedback, data.split.val_indices, augment, seed, "diagnose/upper", pixels),
    }


def _model(state: dict[str, Any], config: PretrainConfig, classes: int) -> Pretrainer:
    """The checkpoint's weights under ``config``; a feedback without parameters has none to load."""
    model = Pretrainer(config, classes)
    for name in ("mae", "mask", *(() if model.feedback.joint else ("feedback",))):
        getattr(model, name).load_state_dict(state["modules"][name])
    model.set_progress(state["iteration"])
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _measure(model: Pretrainer, batch: dict[str, Any], random_mask: bool, measured: Measured) -> Influence:
    """Add one batch of the three levels to ``measured``."""
    lower, head, upper = batch["lower"], batch["head"], batch["upper"]
    found = model_influence(model, lower, head, upper, random_mask=random_mask)
    removed = found.influence[found.mask > 0]
    if not torch.isfinite(removed).all():
        raise TrainingError("the influence is not finite: the run has diverged, or the feedback; use another of either")
    scores = health.feedback_scores(model, head, upper)
    measured.accuracy.append(float(health.feedback_accuracy(model.feedback, scores, upper)))
    measured.loss_upper.append(float(found.loss_upper))
    measured.influence.append(removed.double().cpu())
    with torch.no_grad():
        tokens = model.mae.encoder.embed(lower["image"])
        first, second = (
            model.choose_mask(tokens, {**lower, "key": counter.fold(lower["key"], draw)}).mask for draw in (0, 1)
        )
        sigma = model.mask.scores(tokens, MaskState.of(lower))
    measured.overlap.append(float(health.mask_overlap(first, second, model.ratio)))
    if sigma is not None:
        measured.sigma.append(sigma.cpu())
    if "object" in lower:
        objects = object_patches(lower["object"], model.mae.encoder.grid)
        measured.influence_objects.append(separate(found.influence, objects, found.mask))
        if sigma is not None:
            measured.sigma_objects.append(separate(sigma, objects))
    return found


def _columns(lower: dict[str, Any], found: Influence, measured: Measured) -> dict[str, Any]:
    """What the sheet shows: the first images of the first batch."""
    n = SHEET_IMAGES
    return {
        "image_B3SS": lower["image"][:n],
        "mask_BL": found.mask[:n],
        "influence_BL": found.influence[:n],
        "sigma_BL": measured.sigma[0][:n] if measured.sigma else None,
        "object_BSS": lower["object"][:n] if "object" in lower else None,
    }
