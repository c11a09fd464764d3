"""``mlomae diagnose``: which patches a checkpoint's feedback favours, measured on new batches of the training set.

The batches come from separate streams, functions of the run's seed alone; evaluation images are not read. The upper
level has few images, which recur in other crops, so t over batches holds for this checkpoint and this split only.

Shape legend: B images of the lower batch, U of the upper batch, L patches, n batches. Percentages are 0 to 100.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from matplotlib.figure import Figure

from mlomae.common import random_keys
from mlomae.common.atomic import write_text
from mlomae.common.errors import ConfigError, TrainingError
from mlomae.common.ownership import owned
from mlomae.common.registry import check_choice, check_interval, check_range
from mlomae.diagnostics.class_token import read_class_token, read_parts
from mlomae.diagnostics.pictures import influence_sheet, save_figure
from mlomae.diagnostics.rivals import score_follows
from mlomae.diagnostics.summary import sheet_title, summarise
from mlomae.feedback import is_joint
from mlomae.masking import MaskState, is_trainable
from mlomae.masking.sampling import object_patches
from mlomae.pretraining import health
from mlomae.pretraining.devices import to_device
from mlomae.pretraining.feedback_gate import chance_on
from mlomae.pretraining.health import separate
from mlomae.pretraining.influence import Batch, model_influence
from mlomae.pretraining.load import LoadedRun, load_run
from mlomae.pretraining.pretrainer import Pretrainer

FORMAT = "mlomae-diagnose/1"
SHEET_IMAGES = 8
MASKS = ("own", "random")
LEVELS = ("lower", "head", "upper")


def diagnose(
    checkpoint: Path,
    batches: int = 20,
    batch_size: int = 256,
    feedback: str | None = None,
    mask: str = "own",
    data_root: str | None = None,
    out: Path | None = None,
    objects: str | None = None,
    object_values: list[int] | None = None,
) -> tuple[dict[str, Any], Path]:
    """Measure a checkpoint, write influence.png and diagnose.json; returns what the JSON holds and the folder.

    Args:
        batches, batch_size: n and the images of each level in a batch. One batch of 32 is mostly noise.
        feedback: another feedback on the checkpoint's encoder; by default its own, or "nca" if it trained none.
        mask: "own" draws masks as in training, "random" uniform ones, so that objects and background are removed
            equally often.
        data_root: replaces ``data.train.root`` of the run.
        out: by default the folder ``diagnose`` of the run.
        objects, object_values: a folder of masks of the training images, and the values that are objects in them
            (`mlomae.data.objects`), of a run on a folder of images.

    Raises ConfigError for a wrong option or a feedback without a trained head, CheckpointError for a file that is no
    checkpoint, DataError for missing data, TrainingError if the influence is not finite.
    """
    check_range("", "[1, inf)", batches=batches)
    check_choice("", MASKS, mask=mask)
    run = load_for_diagnosis(checkpoint, data_root, object_options(objects, object_values))
    config = run.config
    config.train.accumulate = math.gcd(config.train.accumulate, batch_size)
    choose_feedback(run, feedback, f"'{run.path}' has not trained")
    streams = {level: run.stream(level, f"diagnose/{level}") for level in LEVELS}
    smallest = min(len(stream) for stream in streams.values())
    check_interval(batch_size, f"[1, {smallest}]", f"--batch-size (the smallest level has {smallest} images)")
    model = run.build_model(run.data.num_classes)
    device = next(model.parameters()).device

    measured = []
    for number in range(batches):
        batch = {level: stream.batch(number * batch_size, batch_size) for level, stream in streams.items()}
        measured.append(_measure(model, to_device(batch, device), mask == "random"))
    result = {
        **identify(run, FORMAT),
        "mask_type": config.mask["type"],
        "mask": mask,
        "feedback": config.feedback["type"],
        "batch_size": batch_size,
        "batches": batches,
        **summarise(measured, 100.0 * chance_on(streams["upper"], run.data.num_classes).share),
    }
    sheet, source = measured[0]["sheet"], run.data.train
    names = [source.relative_path(i) for i in sheet.pop("index_B").tolist()]
    figure = influence_sheet(**sheet, grid=model.mae.encoder.grid, title=sheet_title(result), names=names)
    return result, write_result(result, figure, out or run.folder / "diagnose", "influence", "diagnose")


# --- shared with the horizon study ------------------------------------------------------------------------------------


def load_for_diagnosis(
    checkpoint: Path, data_root: str | None, source: Mapping[str, Any] = MappingProxyType({})
) -> LoadedRun:
    """A run without evaluation data and running average; its training images are in ``data_root`` if that is given.
    ``source``: further options of its training images."""
    moved = {} if data_root is None else {"data.train.root": data_root}
    moved |= {f"data.train.{name}": value for name, value in source.items()}
    return load_run(checkpoint, {"data.eval": None, "init_from": None, "levels.v_momentum": 0.0, **moved})


def object_options(folder: str | None, values: list[int] | None) -> dict[str, Any]:
    """The options of a source that say where its objects are, as the command line gives them."""
    given = {"objects_folder": folder, "objects_values": values}
    return {name: value for name, value in given.items() if value is not None}


def choose_feedback(run: LoadedRun, name: str | None, lack: str) -> None:
    """Set the feedback; by default the run's own if it can be used, else "nca".

    Raises ConfigError for an unknown one, or one with a head that the run's mask has not trained, with ``lack``, which
    follows "feedback has a head, which".
    """
    config, own = run.config, run.config.feedback["type"]
    trained = is_trainable(config.mask["type"])
    name = name or (own if trained or is_joint(own) else "nca")
    if not is_joint(name) and not (trained and name == own):
        raise ConfigError(f"feedback '{name}' has a head, which {lack}; use --feedback nca or ridge")
    if name != own:
        config.feedback = {"type": name}
        config.levels.solver_options.pop("paths", None)  # the other feedback may lack a path


def identify(run: LoadedRun, format_: str) -> dict[str, Any]:
    """The first entries of the JSON of a study."""
    return {"format": format_, "checkpoint": run.path.name, "name": run.config.name, "iteration": run.iteration}


def write_result(result: dict[str, Any], figure: Figure, folder: Path, picture: str, numbers: str) -> Path:
    """Write ``picture``.png and ``numbers``.json under temporary names and rename them; returns ``folder``.

    The same result gives the same bytes. The folder is owned meanwhile, so that both files are of one study; the run
    around it is not: it may still be training.
    """
    with owned(folder, patience=60):
        save_figure(figure, folder / f"{picture}.png")
        write_text(folder / f"{numbers}.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    return folder


# --- the numbers of a batch -------------------------------------------------------------------------------------------


def _measure(model: Pretrainer, batch: Batch, random_mask: bool) -> dict[str, Any]:
    """The numbers of one batch of the three levels.

    ``accuracy`` and ``loss_upper`` of the feedback; ``overlap`` of two masks of the same images; ``influence`` of the
    removed patches, flat; ``sigma`` (B, L) and what it ``follows``, None if the strategy has no score; what the
    ``class_token`` reads, and what it says of ``parts`` of the image, with labels; ``influence_objects`` and
    ``sigma_objects``, None in a batch that cannot be compared, left out where objects are unknown; ``sheet``, what is
    drawn of the first images.
    """
    lower, head, upper = batch["lower"], batch["head"], batch["upper"]
    influence_BL, mask_BL, loss_upper = model_influence(model, lower, head, upper, random_mask=random_mask)
    removed = influence_BL[mask_BL > 0]
    if not torch.isfinite(removed).all():
        raise TrainingError("the influence is not finite: the run or the feedback has diverged; use another one")
    scores = health.feedback_scores(model, head, upper)
    with torch.no_grad():
        tokens = model.mae.encoder.embed(lower["image"])
        first, second = (
            model.choose_mask(tokens, {**lower, "key": random_keys.fold(lower["key"], draw)}).mask for draw in (0, 1)
        )
        sigma_BL = model.mask.scores(tokens, MaskState.of(lower))
    shown = {"image_B3SS": lower["image"], "mask_BL": mask_BL, "influence_BL": influence_BL, "sigma_BL": sigma_BL}
    shown |= {"object_BSS": lower.get("object"), "index_B": lower["index"]}
    numbers: dict[str, Any] = {
        "accuracy": float(health.feedback_accuracy(model.feedback, scores, upper)),
        "loss_upper": float(loss_upper),
        "overlap": float(health.mask_overlap(first, second, model.ratio)),
        "influence": removed.double().cpu(),
        "sigma": None if sigma_BL is None else sigma_BL.cpu(),
        "follows": None if sigma_BL is None else score_follows(sigma_BL, lower["image"], model.mae.encoder.grid),
        "sheet": {name: None if value is None else value[:SHEET_IMAGES] for name, value in shown.items()},
    }
    objects = object_patches(lower["object"], model.mae.encoder.grid) if "object" in lower else None
    numbers["class_token"] = read_class_token(model, lower, objects)
    numbers["parts"] = {
        level: (read_parts(model.mae.encoder, batch[level]), batch[level]["label"].cpu()) for level in ("head", "upper")
    }
    if objects is not None:
        numbers["influence_objects"] = separate(influence_BL, objects, mask_BL)
        numbers["sigma_objects"] = None if sigma_BL is None else separate(sigma_BL, objects)
    return numbers
