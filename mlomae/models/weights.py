"""Reads files of weights: their layout, their tensors, the model they belong to.

Layouts: our checkpoints and exports (``encoder.*``, ``decoder.*``, or timm's names for the encoder alone),
facebookresearch/mae (encoder keys bare, ``decoder_embed.*``, ``mask_token``, ...) and timm. Files are read as tensors
and plain values; code in them is never run.

Width, depth and patch size are read from the tensors' shapes. The number of heads is not in the shapes: our checkpoints
and exports declare it; for other files it is the usual one of that width, unless the caller says otherwise (MAE-Lite's
tiny ViT, for one, has 12 heads and not 3).
"""

import argparse
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
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
from mlomae.common.errors import CheckpointError, ConfigError, is_out_of_memory, reason_of
from mlomae.common.registry import Count, check_choice, check_value
from mlomae.common.structure import Number, check_structure
from mlomae.models.vit import SIZES, check_heads

State = dict[str, Tensor]

MODEL_KEYS = ("size", "patch_size", "embed_dim", "depth", "num_heads")
_HEADS = {dim: heads for dim, _, heads in SIZES.values()}
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


def weights_path(path: Path) -> Path:
    """``path``, or for a folder the file in it: a run's newest checkpoint, else ``model.safetensors``."""
    return path / "model.safetensors" if path.is_dir() and not list_checkpoints(path) else newest_checkpoint(path)


@dataclass
class WeightsFile:
    """What a file of weights holds.

    Attributes:
        path: the file.
        layout: "pretraining" or "transfer" for our checkpoints, "export" for our exports, else "other".
        state: tensors by name, on the CPU: the autoencoder of a pretraining, the backbone of a fine-tuning, or the
            file's.
        model: the model section of our checkpoints and exports, else {}.
        about: the whole checkpoint; of an export name, method, seed, config_hash, iteration, numerics, source_sha256.
        notes: which parts of a checkpoint were used.
    """

    path: Path
    layout: str
    state: State
    model: dict[str, Any]
    about: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def claims(self) -> dict[str, Any]:
        """`claims_of` the model section."""
        return claims_of(self.path, self.model)


def read_weights(path: str | Path) -> WeightsFile:
    """Read a .safetensors, .pth or .pt file, or the one in a folder (`weights_path`).

    "model" and "state_dict" are unwrapped, and a "module." or "backbone." that every key begins with is removed.
    Raises CheckpointError if the file is missing, damaged, holds code, is not a state dict, or is the checkpoint of a
    transfer that fine-tunes no backbone for classification: a linear probe, whose backbone is the one it was given, or
    a dense task.
    """
    path = weights_path(Path(path))
    if not path.is_file():
        raise CheckpointError(f"weights '{path}' do not exist; give a .safetensors, .pth or .pt file")
    content: Any
    content, about = _read_safetensors(path) if path.suffix == ".safetensors" else (_read_torch(path), {})
    if isinstance(content, dict) and "format" in content:
        return _read_checkpoint(path, content)
    if isinstance(content, dict) and isinstance(content.get("meta"), dict):  # an export for mmseg or mmdet
        about = content["meta"]
    for wrapper in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"'{path}' holds no state dict (names to tensors); give a file of model weights")
    for prefix in ("module.", "backbone."):
        if all(key.startswith(prefix) for key in content):
            content = {key.removeprefix(prefix): value for key, value in content.items()}
    for key, value in content.items():
        check_structure(value, Tensor, f"'{path}': {key}")
    ours = "model" in about
    if ours:
        check_structure(about, Export, f"'{path}' says of itself that it", "export it again")
        if lacking := [key for key in ("method", "seed") if "config_hash" in about and key not in about]:
            raise CheckpointError(f"'{path}' lacks '{lacking[0]}' beside its config_hash; export it again")
    return WeightsFile(path, "export" if ours else "other", content, about["model"] if ours else {}, about)


def _read_safetensors(path: Path) -> tuple[State, dict[str, Any]]:
    """Tensors, and what our exports say in the metadata."""
    try:
        with safe_open(path, framework="pt") as file:
            given = file.metadata() or {}
        about = {k.removeprefix("mlomae."): v for k, v in given.items() if k.startswith("mlomae.")}
        return load_file(path), {k: json.loads(v) if k in _SECTIONS else v for k, v in about.items()}
    except (OSError, MemoryError) as error:
        raise _unreadable(path, error) from error
    except (SafetensorError, ValueError, RecursionError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"'{path}' is damaged or not a safetensors file; export or fetch it again") from error


def _read_torch(path: Path) -> Any:
    try:  # training scripts of MAE store their argparse.Namespace with the weights: plain attributes
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler raise KeyError, IndexError, ... too
        if isinstance(error, OSError) or is_out_of_memory(error):
            raise _unreadable(path, error) from error
        refused = re.search(r"GLOBAL (\S+)", str(error))
        why = f"refers to '{refused[1]}'" if refused else "is truncated or not a torch file"
        raise CheckpointError(
            f"'{path}' {why} and was not loaded; only tensors and plain values are read, convert it to .safetensors"
        ) from error


def _unreadable(path: Path, error: BaseException) -> CheckpointError:
    return CheckpointError(f"'{path}' cannot be read ({reason_of(error)}); free memory or fix the path, then try again")


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
        return WeightsFile(path, "pretraining", modules["mae"], dict(model), content)
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
    return WeightsFile(path, "transfer", state, content["meta"].get("model", {}), content, notes)


# --- the architecture -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Architecture:
    """A plain ViT; ``grid`` is the patch grid (rows, columns) of the file's position embeddings."""

    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    grid: tuple[int, int] | None = None


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
    return dict(zip(MODEL_KEYS[1:], map(int, values), strict=True))


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


def read_encoder(path: str | Path, model: dict[str, Any] | None = None) -> tuple[State, Architecture, list[str]]:
    """The encoder of a file of any layout, under timm's names, with whatever else the file holds (decoder, classifier);
    its architecture, and notes.

    ``model`` (size, patch_size, embed_dim, depth, num_heads) must agree with the file where both state a value, and
    gives the number of heads where the file does not. Raises CheckpointError for a file that is missing, damaged,
    no plain ViT, or another one than ``model``; ConfigError for a bad ``model``.
    """
    wanted, file = check_model_section(model), read_weights(path)
    path, notes = file.path, file.notes
    state = {key.removeprefix("encoder."): value for key, value in file.state.items()}
    measured: dict[str, Any] = dict(measure(state))
    if len(measured) < 3:
        raise CheckpointError(
            f"'{path}' holds no plain ViT (patch_embed.proj.weight, pos_embed, blocks.*); give a ViT's weights"
        )
    (dim, _, height, width), positions = state["patch_embed.proj.weight"].shape, state["pos_embed"].shape[1]
    side = math.isqrt(max(positions - 1, 0))
    if height != width or side * side != positions - 1 or min(dim, height, positions - 1, *measured.values()) < 1:
        raise CheckpointError(
            f"'{path}' has {height}x{width} patches and {positions} positions; only square patches on a square grid "
            "with one class token can be read from a file, use timm:NAME for others"
        )
    fc1 = state.get("blocks.0.mlp.fc1.weight")
    measured |= {"mlp_ratio": fc1.shape[0] / dim if fc1 is not None and fc1.ndim == 2 else 4.0, "grid": (side, side)}
    claims = file.claims()
    _compare(path, claims, measured)
    heads = claims.get("num_heads")
    if heads is None:
        heads = wanted.get("num_heads", _HEADS.get(measured["embed_dim"]))
        if heads is None:
            raise CheckpointError(
                f"'{path}' does not say how many heads its width {measured['embed_dim']} has; set model.num_heads"
            )
        source = "given by the model section" if "num_heads" in wanted else "the usual number of this width"
        notes = [*notes, f"num_heads={heads}: {source}, the file does not say"]
    check_heads(f"'{path}'", measured["embed_dim"], heads)
    architecture = Architecture(num_heads=heads, **measured)
    for key, value in wanted.items():
        if value != getattr(architecture, key):
            raise CheckpointError(
                f"'{path}' holds a ViT of {key}={getattr(architecture, key)}, not {value}; "
                f"set model.{key} to match or give another file"
            )
    return state, architecture, notes
