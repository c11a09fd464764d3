"""`mlomae classify`: fine-tunes a backbone on a folder of the user's images by the recipe of
`mlomae.classification.recipe`, and writes a model that timm and `mlomae predict` read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from timm.models.vision_transformer import VisionTransformer

from mlomae.backbones.create import create_backbone
from mlomae.backbones.finetuned import CONFIG as TIMM_CONFIG
from mlomae.backbones.finetuned import WEIGHTS, read_finetuned, save_timm_folder
from mlomae.backbones.provenance import describe_weights
from mlomae.backbones.run import run_transfer
from mlomae.backbones.task import get_task
from mlomae.classification.per_image import FORMAT
from mlomae.classification.recipe import Backbone, choose_recipe
from mlomae.common.atomic import write_text
from mlomae.common.checkpoint import list_checkpoints
from mlomae.common.errors import ConfigError, DataError, counted, first_names
from mlomae.config.strict import merged
from mlomae.config.text import CONFIG, config_text, is_another
from mlomae.data import build_source
from mlomae.data.found import Found, look_into
from mlomae.models.architecture import is_plain, read_encoder
from mlomae.models.loading import create_timm
from mlomae.pretraining.devices import training_device
from mlomae.records import Record, slug

_ABOUT = "Fine-tuning on"  # how the docstring of the config begins
_USUAL = 224


def describe_backbone(weights: str) -> Backbone:
    """What the recipe depends on. Raises ConfigError for weights that name no architecture, else what
    `read_encoder` and timm raise."""
    spec = weights.removeprefix("random:")
    if spec == "random":
        raise ConfigError(
            "--weights random names no architecture; give random:PATH of a checkpoint, or random:timm:NAME"
        )
    if spec.startswith("timm:"):
        name = spec.removeprefix("timm:").removesuffix(":pretrained")
        with torch.device("meta"):
            model = create_timm(name)
        if type(model) is not VisionTransformer:
            raise ConfigError(f"timm model '{name}' is a {type(model).__name__}; choose a plain ViT, timm:vit_...")
        size, width = int(model.patch_embed.img_size[0]), int(model.embed_dim)
    else:
        _, architecture, _ = read_encoder(spec)
        size = architecture.patch_size * architecture.grid[0] if architecture.grid else _USUAL
        width = architecture.embed_dim
    vit, report = create_backbone(weights, num_classes=0, img_size=size, global_pool="token")
    if not is_plain(vit):
        raise ConfigError(
            f"'{weights}' has more than a plain ViT (other norms, activations or attention), which the files of a run "
            "cannot describe; choose another, timm:vit_small_patch16_224:pretrained for one"
        )
    return Backbone(weights, size, width, {key: list(value) for key, value in report.pixels.items()})


def look_for_classes(folder: str | Path) -> Found:
    """`look_into`; DataError for a folder without two classes."""
    found = look_into(folder)
    if found.held_out is None or len(found.classes) < 2:
        held = f"the class '{found.classes[0]}' alone" if found.classes else "images without labels"
        raise DataError(
            f"'{folder}' holds {held}; put the images of each class into a folder of its own: {folder}/cat/1.jpg, "
            f"{folder}/dog/2.jpg, ..."
        )
    return found


def configure(folder: str | Path, weights: str, options: dict[str, Any], seed: int) -> tuple[Any, list[str]]:
    """The configuration of a fine-tuning on ``folder`` with ``options`` over the recipe, and what is said of it.

    Raises DataError for a folder without classes, and what the weights and the options raise.
    """
    found, backbone, device = look_for_classes(folder), describe_backbone(weights), training_device()
    train, test = (build_source(part) for part in (found.train, found.held_out or {}))
    recipe = choose_recipe(found, len(train), backbone, device.type == "cuda", f"classify_{slug(found.title)}", seed)
    config = get_task("classification").config_from_dict(merged(recipe, options))
    steps = config.train.epochs * (len(train) // config.data.batch_size)
    own = "folders of their own" if found.kind == "splits" else "a fifth of each class, by the digests of the files"
    where = torch.cuda.get_device_name() if device.type == "cuda" else "the CPU"
    optim, data = config.optim, config.data
    epochs, each = counted(config.train.epochs, "epoch"), counted(len(train) // config.data.batch_size, "step")
    lines = [
        f"data     {found.describe()}",
        f"         {len(train):,} to train on, {len(test):,} held out ({own})",
        f"weights  {weights}: width {backbone.embed_dim}, images of {config.backbone.img_size} pixels",
        f"recipe   {epochs} of {each} with {data.batch_size} images = {counted(steps, 'step')} on {where}; "
        f"rate {optim.lr:g}, layer decay {optim.layer_decay:g}, "
        f"{(data.augment or {'type': 'none'})['type']}{', mixup and cutmix' if data.mix else ''}",
    ]
    few = [name for i, name in enumerate(train.classes) if not (np.asarray(test.labels) == i).any()]
    if few:
        lines.append(f"note     no held-out image of {first_names(few)}: the accuracy says nothing of them")
    return config, lines


def classify(
    folder: str | Path,
    weights: str,
    out: Path | None = None,
    options: dict[str, Any] | None = None,
    *,
    seed: int = 0,
    resume: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Record, Path]:
    """Fine-tune on the class folders of ``folder``; the run's record, {} but on the main process, and its folder.

    The run's folder, ``out`` or work_dirs/NAME_seedN, gets the configuration as ``config.py``, what every transfer
    writes, and the model as ``config.json`` and ``model.safetensors`` for timm. ``say`` gets lines for the user.
    Raises what `configure` and `run_transfer` raise.
    """
    if out:
        check_place(out)
    config, lines = configure(folder, weights, options or {}, seed)
    source = describe_weights(weights)
    out = out or Path(f"work_dirs/{config.name}_{slug(source.method)}_seed{config.seed}")
    for line in [*lines, f"output   {out}"]:
        say(line)
    if is_main_process() and not list_checkpoints(out) and not (out / "record.json").exists():
        about = f"{_ABOUT} {folder}, as `mlomae classify` has chosen it; again: mlomae classify {out / CONFIG}"
        write_text(out / CONFIG, config_text(config.to_dict(), about))
    record = run_transfer(get_task("classification"), config, out, resume, source=source)
    if record:
        write_model(out)
        for line in report(record, out):
            say(line)
    return record, out


def check_place(out: Path, chosen: bool = True) -> None:
    """Raise ConfigError for a folder without a run that holds a file that the run would write over: weights, above all
    those that it starts from, or, where a recipe is ``chosen``, another config."""
    if list_checkpoints(out) or (out / "record.json").exists():
        return  # a run's, which `run_transfer` looks at
    taken = [name for name in (TIMM_CONFIG, WEIGHTS) if (out / name).exists()]
    if chosen and is_another(out / CONFIG, _ABOUT):
        taken.append(CONFIG)
    if taken:
        named = first_names(taken)
        raise ConfigError(f"'{out}' holds {named}, which would be replaced; name another folder with --out")


def write_model(out: Path) -> None:
    """The fine-tuned model of the run in ``out`` as a timm folder, there."""
    trained = read_finetuned(out)
    save_timm_folder(trained.model, trained.classes, trained.evaluate, out)  # type: ignore[arg-type]


def report(record: Record, out: Path) -> list[str]:
    """The accuracy, and the commands to go on with."""
    images, identity = FORMAT.read(out / "predictions.npz")
    metrics, classes = record["metrics"], identity["class_names"]
    chance = 100.0 * np.bincount(images.label).max() / len(images)
    lines = [
        f"accuracy {metrics['top1']:.1f} % of {counted(len(images), 'held-out image')}, mean of the {len(classes)} "
        f"classes {metrics['mean_per_class']:.1f} %; always the most frequent class: {chance:.1f} %"
    ]
    for part, what in (("training", "look like images trained on"), ("pretraining", "were in the pretraining, too")):
        seen = record.get("copies", {}).get(part)
        if isinstance(seen, dict) and (count := seen["equal"] + seen["near"]):
            lines.append(f"note     {count:,} of them {what}: new images may be harder")
    return [
        *lines,
        f"written  {out}: model.safetensors, predictions.csv, confusion.png, record.json",
        "go on    " + f"mlomae predict {out} IMAGES...",
        f"         mlomae evaluate {out}",
        f"         python -c \"import timm; timm.create_model('local-dir:{out}', pretrained=True)\"",
    ]
