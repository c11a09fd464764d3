"""Reads weights of any layout: the encoder under timm's names, the decoder of an MAE, and what the file says of both.

Layouts: our checkpoints and exports, facebookresearch/mae, timm, and those of `mlomae.models.layouts`; files are read
by `mlomae.models.safe_load`, which runs no code in them.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor

from mlomae.common.checkpoint import (
    FORMAT,
    TRANSFER_FORMAT,
    WRITTEN,
    Content,
    Weights,
    check_intact,
    trained_backbone,
)
from mlomae.common.errors import CheckpointError, reason_of
from mlomae.common.registry import Count, Positive
from mlomae.common.structure import Number, check_structure
from mlomae.models.layouts import HUGGING_FACE, State, find_parts
from mlomae.models.places import locate
from mlomae.models.safe_load import read_file
from mlomae.models.vit import NORM_EPS

_HUGGING_FACE = {  # our key: the one of its config.json
    "patch_size": "patch_size",
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "decoder_num_heads": "decoder_num_attention_heads",
    "norm_eps": "layer_norm_eps",
}
_SECTIONS = ("model", "numerics", "data", "iteration", "seed")  # of the metadata of an export, written as JSON


class ModelSection(TypedDict, total=False):
    """The model section of a checkpoint's configuration or of an export; None: as the named size has it."""

    size: str
    img_size: Count
    patch_size: Count
    embed_dim: Count | None
    depth: Count | None
    num_heads: Count | None
    decoder_embed_dim: Count
    decoder_depth: Count
    decoder_num_heads: Count
    norm_eps: Positive


class _Pixels(TypedDict, total=False):
    mean: list[float]
    std: list[float]


class Export(TypedDict, total=False):
    """What an export of ours says of itself; the first versions wrote name, model and source_sha256 alone."""

    name: str
    model: ModelSection
    source_sha256: str
    iteration: Number
    method: str
    seed: Number
    config_hash: str
    numerics: dict[str, Number]
    data: dict[str, Content]


@dataclass
class WeightsFile:
    """What a file of weights holds.

    Attributes:
        path: the file.
        layout: "pretraining" or "transfer" for our checkpoints, "export" for our exports, else "other".
        encoder: tensors by timm's names, on the CPU.
        decoder: of an MAE, by our names; {} if there is none.
        model: the model section of our checkpoints and exports and of Hugging Face's config.json, else {}.
        about: the whole checkpoint; of an export name, method, seed, config_hash, iteration, numerics, source_sha256.
        left_out: tensors of the file that belong to neither.
        notes: which parts of the file were used.
        norm_eps: of the layer norms.
        pixels: mean and std of the images it was trained on, where a pretraining's own configuration or the
            preprocessor_config.json beside the file says so.
    """

    path: Path
    layout: str
    encoder: State
    decoder: State
    model: dict[str, Any]
    about: dict[str, Any]
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    norm_eps: float = NORM_EPS
    pixels: dict[str, Any] = field(default_factory=dict)


def read_weights(spec: str | Path) -> WeightsFile:
    """Read the weights that ``spec`` names, see `locate`.

    Raises CheckpointError if the file is missing, damaged, holds code, no ViT or several, or is the checkpoint of a
    transfer that fine-tunes no backbone for classification: a linear probe, whose backbone is the one it was given, or
    a dense task.
    """
    path, place = locate(spec)
    content, given = read_file(path)
    if isinstance(content, dict) and "format" in content:
        check_intact(path)
        return weights_of(path, content)
    about = _about(path, {k.removeprefix("mlomae."): v for k, v in given.items() if k.startswith("mlomae.")})
    if isinstance(content, dict) and isinstance(content.get("meta"), dict):  # an export for mmseg or mmdet
        about = content["meta"]
    try:
        parts = find_parts(content, place)
    except CheckpointError as error:
        raise CheckpointError(f"'{path}' {error}") from error
    for key, value in {**parts.encoder, **parts.decoder}.items():
        check_structure(value, Tensor, f"'{path}': {key}")
    ours = "model" in about
    if ours:
        check_structure(about, Export, f"'{path}' says of itself that it", "export it again")
        if lacking := [key for key in ("method", "seed") if "config_hash" in about and key not in about]:
            raise CheckpointError(f"'{path}' lacks '{lacking[0]}' beside its config_hash; export it again")
    foreign = parts.layout is HUGGING_FACE and not ours
    model = about["model"] if ours else _hugging_face_model(path) if foreign else {}
    pixels = _pixels(path) if foreign else {}
    eps, notes = model.get("norm_eps", parts.layout.eps), parts.notes
    if eps != NORM_EPS:
        source = "" if "norm_eps" in model else ", the usual one of this layout"
        notes.append(f"layer norms have an epsilon of {eps:g}{source}")
    kind = "export" if ours else "other"
    return WeightsFile(path, kind, parts.encoder, parts.decoder, model, about, parts.left_out, notes, eps, pixels)


def _about(path: Path, given: dict[str, str]) -> dict[str, Any]:
    """What an export of ours says of itself in the metadata of its file."""
    try:
        return {key: json.loads(value) if key in _SECTIONS else value for key, value in given.items()}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}' is damaged: its metadata cannot be read; export it again") from error


def _beside(path: Path, name: str) -> dict[str, Any]:
    """The values of a JSON file beside a file of weights; {} without one."""
    file = path.with_name(name)
    try:
        values = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return dict(values)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"'{file}' cannot be read ({reason_of(error):.80}); fetch it again") from error


def _hugging_face_model(path: Path) -> dict[str, Any]:
    """The model section that the config.json beside a file of Hugging Face's layout states."""
    config, file = _beside(path, "config.json"), path.with_name("config.json")
    if (activation := config.get("hidden_act", "gelu")) != "gelu":
        raise CheckpointError(f"'{file}' has hidden_act='{activation}'; only gelu is read, choose other weights")
    values = {key: config[theirs] for key, theirs in _HUGGING_FACE.items() if theirs in config}
    check_structure(values, ModelSection, f"'{file}'", "fetch it again")
    return values


def _pixels(path: Path) -> dict[str, Any]:
    given = _beside(path, "preprocessor_config.json")
    values = {key: given[f"image_{key}"] for key in ("mean", "std") if f"image_{key}" in given}
    check_structure(values, _Pixels, f"'{path.with_name('preprocessor_config.json')}'", "fetch it again")
    return values


def _of_augment(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    data = config.get("data")
    augment = data.get("augment") if isinstance(data, dict) else None
    values = {key: augment[key] for key in ("mean", "std") if key in augment} if isinstance(augment, dict) else {}
    check_structure(values, _Pixels, f"checkpoint '{path}', config.data.augment:", WRITTEN)
    return values


def weights_of(path: Path, content: dict[str, Any]) -> WeightsFile:
    """The weights in the ``content`` of one of our checkpoints, which was read from ``path``; errors as
    `read_weights`."""
    if content["format"] not in (FORMAT, TRANSFER_FORMAT):
        raise CheckpointError(f"checkpoint '{path}' is not a training checkpoint of this project ({FORMAT})")
    check_structure(content, Weights, f"checkpoint '{path}'", WRITTEN)
    modules = content["modules"]
    if content["format"] == FORMAT:
        model = content["config"].get("model", {})
        check_structure(model, ModelSection, f"checkpoint '{path}', config.model:", WRITTEN)
        if "mae" not in modules:
            raise CheckpointError(f"checkpoint '{path}' lacks 'modules.mae'; {WRITTEN}")
        decoder = {k.removeprefix("decoder."): t for k, t in modules["mae"].items() if k.startswith("decoder.")}
        encoder = {k.removeprefix("encoder."): t for k, t in modules["mae"].items() if not k.startswith("decoder.")}
        eps = model.get("norm_eps", NORM_EPS)
        pixels = _of_augment(path, content["config"])
        return WeightsFile(path, "pretraining", encoder, decoder, dict(model), content, norm_eps=eps, pixels=pixels)
    if "backbone" not in modules:
        kind = content["config"].get("protocol", "dense task")
        raise CheckpointError(
            f"'{path}' is of a transfer ({kind}) that fine-tunes no backbone for classification; give a checkpoint of "
            "protocol 'finetune', or the backbone that this one started from"
        )
    state, averaged = trained_backbone(modules)
    notes = ["the average of the fine-tuned weights"] if averaged else []
    if "fc_norm.weight" in state:  # an affine map commutes with the mean of the tokens, which it follows
        state = {k.replace("fc_norm.", "norm."): t for k, t in state.items()}
        notes.append("norm: the fine-tuned fc_norm")
    left_out = [key for key in state if key.startswith("head.")]
    state = {key: tensor for key, tensor in state.items() if key not in left_out}
    model = content["meta"].get("model", {})
    eps = model.get("norm_eps", NORM_EPS)
    return WeightsFile(path, "transfer", state, {}, model, content, left_out, notes, eps)
