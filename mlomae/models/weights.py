"""Reads weights of any layout: the encoder under timm's names, the decoder of an MAE, the architecture.

Layouts: our checkpoints and exports, facebookresearch/mae, timm, and those of `mlomae.models.layouts`; files are read
by `mlomae.models.safe_load`, which runs no code in them.

Width, depth, patch size, registers and layer scale are read from the tensors. The number of heads and the epsilon of
the layer norms are not in them: our checkpoints and exports, and Hugging Face's config.json, declare them; for other
files they are the usual ones of that width and layout, unless the caller says otherwise (MAE-Lite's tiny ViT, for one,
has 12 heads and not 3).
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypedDict

from timm.layers import LayerNorm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mlomae.common.checkpoint import (
    FORMAT,
    TRANSFER_FORMAT,
    WRITTEN,
    Content,
    Weights,
    check_intact,
    list_checkpoints,
    newest_checkpoint,
    trained_backbone,
)
from mlomae.common.errors import CheckpointError, ConfigError, reason_of
from mlomae.common.registry import Count, Positive, check_choice, check_value
from mlomae.common.structure import Number, check_structure
from mlomae.models.layouts import HUGGING_FACE, State, find_parts
from mlomae.models.safe_load import SHARDS, read_file
from mlomae.models.vit import NORM_EPS, SIZES, check_heads

MODEL_KEYS = ("size", "patch_size", "embed_dim", "depth", "num_heads")
HUB = ("hf-hub:", "hf_hub:")
_HUB_FILES = (
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model-*.safetensors",
    SHARDS,
    "pytorch_model.bin",
)
_HEADS = {dim: heads for dim, _, heads in SIZES.values()}
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


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def locate(spec: str | Path) -> tuple[Path, str]:
    """The file that ``spec`` names, and the place in it that follows a ``#``, or "".

    ``spec``: a file; a folder, of which the newest checkpoint of a run is taken, else ``model.safetensors``, its parts,
    or ``pytorch_model.bin``; or ``hf-hub:OWNER/NAME[@REVISION]``, which is fetched from the Hugging Face Hub.

    Raises CheckpointError for a name of the Hub that cannot be fetched.
    """
    text, place = os.fspath(spec), ""
    if "#" in text and not Path(text).exists():
        text, _, place = text.rpartition("#")
    path = _fetch(text.partition(":")[2]) if text.startswith(HUB) else Path(text)
    if path.is_dir():
        if list_checkpoints(path):
            return newest_checkpoint(path), place
        names = ("model.safetensors", SHARDS, "pytorch_model.bin")
        return path / next((name for name in names if (path / name).is_file()), names[0]), place
    return path, place


def weights_path(spec: str | Path) -> Path:
    """The file that ``spec`` names, see `locate`."""
    return locate(spec)[0]


def _fetch(name: str) -> Path:
    """The folder in the local cache of a model on the Hugging Face Hub."""
    from huggingface_hub import snapshot_download

    name, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(_HUB_FILES)))
    except Exception as error:  # wrong names, no network, no such model: these share no base class
        raise CheckpointError(
            f"'{HUB[0]}{name}' cannot be fetched ({reason_of(error):.200}); check the name and the network"
        ) from error


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
        pixels: mean and std of the images it was trained on, where preprocessor_config.json beside it says so.
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

    def claims(self) -> dict[str, Any]:
        """`claims_of` the model section."""
        return claims_of(self.path, self.model)


def read_weights(spec: str | Path) -> WeightsFile:
    """Read the weights that ``spec`` names, see `locate`.

    Raises CheckpointError if the file is missing, damaged, holds code, no ViT or several, or is the checkpoint of a
    transfer that fine-tunes no backbone for classification: a linear probe, whose backbone is the one it was given, or
    a dense task.
    """
    path, place = locate(spec)
    content, given = read_file(path)
    if isinstance(content, dict) and "format" in content:
        return _read_checkpoint(path, content)
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


def _read_checkpoint(path: Path, content: dict[str, Any]) -> WeightsFile:
    check_intact(path)
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
        return WeightsFile(path, "pretraining", encoder, decoder, dict(model), content, norm_eps=eps)
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


# --- the architecture -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Architecture:
    """A plain ViT as timm builds it; ``grid`` is the patch grid (rows, columns) of the file's position embeddings.

    ``positions_of_all`` is whether class token and registers have positions, as in timm's ``no_embed_class=False``.
    """

    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    grid: tuple[int, int] | None = None
    norm_eps: float = NORM_EPS
    registers: int = 0
    layer_scale: bool = False
    qkv_bias: bool = True
    positions_of_all: bool = True

    def section(self) -> dict[str, Any]:
        """What sets it apart from others: its fields but the grid, and those of rare ViTs only where they have them."""
        usual = {"norm_eps": NORM_EPS, "registers": 0, "layer_scale": False, "qkv_bias": True, "positions_of_all": True}
        return {k: v for k, v in vars(self).items() if k != "grid" and (k not in usual or v != usual[k])}

    def timm_options(self) -> dict[str, Any]:
        """Arguments of timm's VisionTransformer."""
        shape = {key: getattr(self, key) for key in ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")}
        more = {
            "norm_layer": None if self.norm_eps == NORM_EPS else partial(LayerNorm, eps=self.norm_eps),
            "reg_tokens": self.registers,
            "init_values": 1.0 if self.layer_scale else None,
            "qkv_bias": self.qkv_bias,
            "no_embed_class": not self.positions_of_all,
        }
        return {**shape, **more}


def check_model_section(model: dict[str, Any] | None) -> dict[str, Any]:
    """``model`` without None values and with the named size written out; raises ConfigError for a foreign key."""
    given = {key: value for key, value in (model or {}).items() if value is not None}
    if unknown := sorted(set(given) - set(MODEL_KEYS)):
        raise ConfigError(f"backbone model has no key '{unknown[0]}'; it takes {', '.join(MODEL_KEYS)}")
    size = given.pop("size", None)
    for key, value in given.items():
        check_value(value, Annotated[int, "[1, 100000]"], f"backbone model: {key}")
    if size is None:
        return given
    check_choice("model", SIZES, size=size)
    return {**dict(zip(("embed_dim", "depth", "num_heads"), SIZES[size], strict=True)), **given}


def claims_of(path: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """`check_model_section` of what the file at ``path`` says of its ``model``; CheckpointError names the file."""
    try:
        return check_model_section({key: model.get(key) for key in MODEL_KEYS})
    except ConfigError as error:
        raise CheckpointError(f"'{path}' declares a model that does not exist: {error}") from error


def section_of(vit: VisionTransformer) -> dict[str, Any]:
    """What a checkpoint must declare of a ViT so that `read_encoder` can build it: the keys of MODEL_KEYS but size."""
    first: Any = vit.blocks[0]
    values = (vit.patch_embed.patch_size[0], vit.embed_dim, len(vit.blocks), first.attn.num_heads)
    eps = {} if first.norm1.eps == NORM_EPS else {"norm_eps": first.norm1.eps}
    return {**dict(zip(MODEL_KEYS[1:], map(int, values), strict=True)), **eps}


def measure(state: State, prefix: str = "") -> dict[str, int]:
    """``embed_dim``, ``depth``, and for an encoder ``patch_size``, of the transformer whose keys begin with ``prefix``.

    What the shapes do not tell is left out.
    """
    positions, projection = state.get(f"{prefix}pos_embed"), state.get(f"{prefix}patch_embed.proj.weight")
    blocks = [int(m[1]) for key in state if (m := re.match(rf"{re.escape(prefix)}blocks\.(\d+)\.", key))]
    found = {"embed_dim": positions.shape[2]} if positions is not None and positions.ndim == 3 else {}
    found |= {"depth": len(set(blocks))} if blocks else {}  # of a gap the keys tell when they are loaded
    return found | ({"patch_size": projection.shape[3]} if projection is not None and projection.ndim == 4 else {})


def check_declared(path: Path, model: Mapping[str, Any], state: State) -> None:
    """Raise CheckpointError if the ``model`` section of a pretraining is not that of the autoencoder ``state``, so that
    nothing of a wrong size is built."""
    claims, found = claims_of(path, model), measure(state, "encoder.")
    if "patch_size" in found and model.get("img_size"):
        patches = (model["img_size"] // max(1, claims.get("patch_size", 1))) ** 2
        claims["positions"], found["positions"] = patches + 1, state["encoder.pos_embed"].shape[1]
    _compare(path, claims, found)
    decoder = measure(state, "decoder.")
    _compare(path, {key: model.get(f"decoder_{key}") or value for key, value in decoder.items()}, decoder, "decoder_")


def _compare(path: Path, claims: Mapping[str, Any], measured: Mapping[str, Any], prefix: str = "") -> None:
    for key in ("patch_size", "embed_dim", "depth", "positions"):
        if key in measured and claims.get(key, measured[key]) != measured[key]:
            raise CheckpointError(
                f"'{path}' declares {prefix}{key}={claims[key]} but its tensors have {measured[key]}; export it again, "
                "or use another file"
            )


def read_encoder(spec: str | Path, model: dict[str, Any] | None = None) -> tuple[WeightsFile, Architecture, list[str]]:
    """The encoder of a file of any layout, with positions as timm has them; its architecture, and notes.

    ``model`` (size, patch_size, embed_dim, depth, num_heads) must agree with the file where both state a value, and
    gives the number of heads where the file does not. Raises CheckpointError for a file that is missing, damaged,
    no plain ViT, or another one than ``model``; ConfigError for a bad ``model``.
    """
    wanted, file = check_model_section(model), read_weights(spec)
    path, notes = file.path, list(file.notes)
    measured: dict[str, Any] = dict(measure(file.encoder))
    if len(measured) < 3:
        raise CheckpointError(
            f"'{path}' holds no plain ViT (patch_embed.proj.weight, pos_embed, blocks.*); give a ViT's weights"
        )
    measured |= _tokens(file)
    dim, fc1 = measured["embed_dim"], file.encoder.get("blocks.0.mlp.fc1.weight")
    measured["mlp_ratio"] = fc1.shape[0] / dim if fc1 is not None and fc1.ndim == 2 and dim else 4.0
    measured["norm_eps"] = file.norm_eps
    measured["layer_scale"] = "blocks.0.ls1.gamma" in file.encoder
    measured["qkv_bias"] = "blocks.0.attn.qkv.bias" in file.encoder or "blocks.0.attn.qkv.weight" not in file.encoder
    claims = file.claims()
    _compare(path, claims, measured)
    heads = claims.get("num_heads")
    if heads is None:
        heads = wanted.get("num_heads", _HEADS.get(dim))
        if heads is None:
            raise CheckpointError(f"'{path}' does not say how many heads its width {dim} has; set model.num_heads")
        source = "given by the model section" if "num_heads" in wanted else "the usual number of this width"
        notes.append(f"num_heads={heads}: {source}, the file does not say")
    check_heads(f"'{path}'", dim, heads)
    architecture = Architecture(num_heads=heads, **measured)
    for key, value in wanted.items():
        if value != getattr(architecture, key):
            raise CheckpointError(
                f"'{path}' holds a ViT of {key}={getattr(architecture, key)}, not {value}; "
                f"set model.{key} to match or give another file"
            )
    return file, architecture, notes


def _tokens(file: WeightsFile) -> dict[str, Any]:
    """The grid, the registers, and whether they and the class token have positions; those are put in timm's order.

    A distillation token is a register by another name. DINOv2's registers come after a class token with a position of
    its own, which is added to it.
    """
    state, path = file.encoder, file.path
    if "cls_token" not in state:
        raise CheckpointError(
            f"'{path}' holds a ViT without a class token (cls_token), which is needed; choose another"
        )
    of_dino = "register_tokens" in state
    for name in ("register_tokens", "dist_token"):
        if name in state:
            state["reg_token"] = state.pop(name)
    registers = state["reg_token"].shape[1] if "reg_token" in state and state["reg_token"].ndim == 3 else 0
    (dim, _, height, width), positions = state["patch_embed.proj.weight"].shape, state["pos_embed"].shape[1]
    counts = [1, 0] if of_dino or not registers else [1 + registers, 0, 1]  # tokens before the patches with positions
    fitting = [n for n in counts if math.isqrt(max(positions - n, 0)) ** 2 == positions - n]
    if not fitting or height != width or min(dim, height, positions - fitting[0]) < 1:
        raise CheckpointError(
            f"'{path}' has {height}x{width} patches and {positions} positions; only square patches on a square grid "
            "can be read from a file, use timm:NAME for others"
        )
    if registers and fitting[:2] == [1 + registers, 0]:
        raise CheckpointError(
            f"'{path}' has {positions} positions and {registers} registers, which may have positions or not; "
            "fine-tune it at another image size, or choose another file"
        )
    side = math.isqrt(positions - fitting[0])
    if registers and fitting[0] == 1:
        state["cls_token"] = state["cls_token"].float() + state["pos_embed"][:, :1].float()
        state["pos_embed"] = state["pos_embed"][:, 1:]
        file.notes.append("cls_token: its position was added to it, as the registers have none")
    of_all = fitting[0] > 0 and not (registers and fitting[0] == 1)
    return {"grid": (side, side), "registers": registers, "positions_of_all": of_all}
