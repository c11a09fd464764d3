"""What a file of weights says about its encoder: timm's key names, and the architecture to build for it.

Width, depth and patch size are read from the tensors' shapes. The number of heads is not in the shapes: our checkpoints
and exports declare it; for other files (facebookresearch/mae, a bare timm state dict) it is the one that ViTs of that
width have, unless the caller says otherwise (MAE-Lite's tiny ViT, for one, has 12 heads and not 3).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from timm.models.vision_transformer import VisionTransformer

from mlomae.common.errors import CheckpointError, ConfigError
from mlomae.models import SIZES
from mlomae.models.finetuned import finetuned_weights, read_finetuned
from mlomae.models.weights import State, read_weights

MODEL_KEYS = ("size", "patch_size", "embed_dim", "depth", "num_heads")
_HEADS = {dim: heads for dim, _, heads in SIZES.values()}
_PATCH = "patch_embed.proj.weight"


@dataclass(frozen=True)
class Architecture:
    """A plain ViT; ``grid`` is the patch grid (rows, columns) of the file's position embeddings."""

    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    grid: tuple[int, int] | None = None


@dataclass
class EncoderFile:
    """An encoder under timm's names, beside what else the file holds (decoder, classifier)."""

    state: State
    architecture: Architecture
    notes: list[str]


def check_model_section(model: dict[str, Any] | None) -> dict[str, Any]:
    """``model`` without None values and with the named size written out; raises ConfigError for a foreign key."""
    given = {key: value for key, value in (model or {}).items() if value is not None}
    if unknown := sorted(set(given) - set(MODEL_KEYS)):
        raise ConfigError(f"backbone model has no key '{unknown[0]}'; it takes {', '.join(MODEL_KEYS)}")
    size = given.pop("size", None)
    if size is None:
        return given
    if size not in SIZES:
        raise ConfigError(f"unknown model size '{size}'; choose one of {', '.join(SIZES)}")
    return {**dict(zip(("embed_dim", "depth", "num_heads"), SIZES[size], strict=True)), **given}


def _measure(state: State, path: Path) -> dict[str, Any]:
    """Everything but the heads, from the shapes."""
    projection, positions = state.get(_PATCH), state.get("pos_embed")
    numbers = {int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.", key))}
    if projection is None or projection.ndim != 4 or positions is None or positions.ndim != 3 or not numbers:
        raise CheckpointError(
            f"'{path}' holds no plain ViT (patch_embed.proj.weight, pos_embed, blocks.*); give a ViT's weights"
        )
    dim, height, width = projection.shape[0], projection.shape[2], projection.shape[3]
    side = math.isqrt(max(positions.shape[1] - 1, 0))
    if height != width or side * side != positions.shape[1] - 1:
        raise CheckpointError(
            f"'{path}' has {height}x{width} patches and {positions.shape[1]} positions; only square patches on a "
            "square grid with one class token can be read from a file, use timm:NAME for others"
        )
    fc1 = state.get("blocks.0.mlp.fc1.weight")
    ratio = fc1.shape[0] / dim if fc1 is not None else 4.0
    return {
        "patch_size": height,
        "embed_dim": dim,
        "depth": max(numbers) + 1,
        "mlp_ratio": ratio,
        "grid": (side, side),
    }


def read_encoder(path: str | Path, model: dict[str, Any] | None = None) -> EncoderFile:
    """Read a training checkpoint, export or fine-tuning of ours, official MAE weights, or a timm state dict.

    ``model`` (size, patch_size, embed_dim, depth, num_heads) must agree with the file where it says something, and
    settles the number of heads where the file does not. Raises CheckpointError for a file that is missing, damaged,
    no plain ViT, or another one than ``model``; ConfigError for a bad ``model``.
    """
    path, wanted = Path(path), check_model_section(model)
    finetuned = read_finetuned(path) if path.suffix != ".safetensors" else None
    notes: list[str] = []
    if finetuned is not None:
        given, declared, notes = finetuned_weights(finetuned)
    else:
        given, declared = read_weights(path)
    state = {key.removeprefix("encoder."): value for key, value in given.items()}
    measured = _measure(state, path)
    claims = check_model_section({key: declared.get(key) for key in MODEL_KEYS})
    for key in ("patch_size", "embed_dim", "depth"):
        if claims.get(key, measured[key]) != measured[key]:
            raise CheckpointError(
                f"'{path}' declares {key}={claims[key]} but its tensors have {measured[key]}; export it again"
            )
    heads = claims.get("num_heads")
    if heads is None:
        heads = wanted.get("num_heads", _HEADS.get(measured["embed_dim"]))
        if heads is None:
            raise CheckpointError(
                f"'{path}' does not say how many heads its width {measured['embed_dim']} has; set model.num_heads"
            )
        source = "given by the model section" if "num_heads" in wanted else "the usual number of this width"
        notes.append(f"num_heads={heads}: {source}, the file does not say")
    if heads < 1 or measured["embed_dim"] % heads:
        raise ConfigError(
            f"width {measured['embed_dim']} of '{path}' is not divisible by {heads} heads; change model.num_heads"
        )
    architecture = Architecture(num_heads=heads, **measured)
    for key, value in wanted.items():
        if value != getattr(architecture, key):
            raise CheckpointError(
                f"'{path}' holds a ViT of {key}={getattr(architecture, key)}, not {value}; "
                f"set model.{key} to match or give another file"
            )
    return EncoderFile(state, architecture, notes)


def section_of(vit: VisionTransformer) -> dict[str, Any]:
    """What a checkpoint must declare of a ViT so that `read_encoder` can build it: the keys of MODEL_KEYS but size."""
    first: Any = vit.blocks[0]
    values = (vit.patch_embed.patch_size[0], vit.embed_dim, len(vit.blocks), first.attn.num_heads)
    return dict(zip(MODEL_KEYS[1:], map(int, values), strict=True))


def declares_model(path: Path) -> bool:
    """Whether a .safetensors file is one of our exports, by its metadata; False for any other or unreadable file."""
    try:
        with safe_open(path, framework="pt") as file:
            return "mlomae.model" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False
