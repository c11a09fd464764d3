"""Which ViT a file of weights holds.

Width, depth, patch size, registers and layer scale are read from the tensors. The number of heads and the epsilon of
the layer norms are not in them: our checkpoints and exports, and Hugging Face's config.json, declare them; for other
files they are the usual ones of that width and layout, unless the caller says otherwise (MAE-Lite's tiny ViT, for one,
has 12 heads and not 3).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from timm.layers import LayerNorm, Mlp
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from mlomae.common.errors import CheckpointError, ConfigError
from mlomae.common.registry import Positive, check_choice, check_value
from mlomae.models.layouts import State
from mlomae.models.vit import NORM_EPS, SIZES, check_heads
from mlomae.models.weights import WeightsFile, read_weights

MODEL_KEYS = ("size", "patch_size", "embed_dim", "depth", "num_heads")
_RARE = {  # what only some ViTs have: what other ViTs have, and the values that there are
    "mlp_ratio": (4.0, Positive),
    "norm_eps": (NORM_EPS, Positive),
    "registers": (0, Annotated[int, "[0, 1000]"]),
    "layer_scale": (False, bool),
    "qkv_bias": (True, bool),
    "positions_of_all": (True, bool),
}
_HEADS = {dim: heads for dim, _, heads in SIZES.values()}


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
        usual = {key: value for key, (value, _) in _RARE.items() if key != "mlp_ratio"}
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
    if unknown := sorted(set(given) - {*MODEL_KEYS, *_RARE}):
        raise ConfigError(f"backbone model has no key '{unknown[0]}'; it takes {', '.join((*MODEL_KEYS, *_RARE))}")
    size = given.pop("size", None)
    for key, value in given.items():
        hint = _RARE[key][1] if key in _RARE else Annotated[int, "[1, 100000]"]
        check_value(value, hint, f"backbone model: {key}")
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
    """What a checkpoint must declare of a ViT so that it can be built again: the keys of MODEL_KEYS but size, and what
    is rare of it."""
    first: Any = vit.blocks[0]
    values = (vit.patch_embed.patch_size[0], vit.embed_dim, len(vit.blocks), first.attn.num_heads)
    section = dict(zip(MODEL_KEYS[1:], map(int, values), strict=True))
    if (type(first), type(first.mlp)) != (Block, Mlp):
        return section
    rare = {
        "mlp_ratio": first.mlp.fc1.out_features / vit.embed_dim,
        "norm_eps": first.norm1.eps,
        "registers": int(vit.num_reg_tokens),
        "layer_scale": not isinstance(first.ls1, nn.Identity),
        "qkv_bias": first.attn.qkv.bias is not None,
        "positions_of_all": not vit.no_embed_class,
    }
    return section | {key: value for key, value in rare.items() if value != _RARE[key][0]}


def measure(state: State, prefix: str = "") -> dict[str, int]:
    """``embed_dim``, ``depth``, and for an encoder ``patch_size``, of the transformer whose keys begin with ``prefix``.

    What the shapes do not tell is left out.
    """
    positions, projection = state.get(f"{prefix}pos_embed"), state.get(f"{prefix}patch_embed.proj.weight")
    blocks = [int(m[1]) for key in state if (m := re.match(rf"{re.escape(prefix)}blocks\.(\d+)\.", key))]
    found = {"embed_dim": positions.shape[2]} if positions is not None and positions.ndim == 3 else {}
    found |= {"depth": len(set(blocks))} if blocks else {}  # of a gap the keys tell when they are loaded
    return found | ({"patch_size": projection.shape[3]} if projection is not None and projection.ndim == 4 else {})


def is_plain(vit: VisionTransformer) -> bool:
    """Whether `section_of` says all of a ViT of timm's, so that its checkpoint alone builds it again."""
    first: Any = vit.blocks[0]
    if (type(first), type(first.mlp)) != (Block, Mlp):
        return False
    options: dict[str, Any] = {"img_size": vit.patch_embed.img_size, "num_classes": 0, "global_pool": "token"}
    with torch.device("meta"):
        plain = VisionTransformer(**Architecture(**section_of(vit)).timm_options(), **options)
    shapes, wanted = ({key: tensor.shape for key, tensor in model.state_dict().items()} for model in (vit, plain))
    return shapes == wanted and type(first.mlp.act) is nn.GELU


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


def read_encoder(
    spec: str | Path | WeightsFile, model: dict[str, Any] | None = None
) -> tuple[WeightsFile, Architecture, list[str]]:
    """The encoder of a file of any layout, with positions as timm has them; its architecture, and notes.

    ``model`` (size, patch_size, embed_dim, depth, num_heads) must agree with the file where both state a value, and
    gives the number of heads where the file does not. Raises CheckpointError for a file that is missing, damaged,
    no plain ViT, or another one than ``model``; ConfigError for a bad ``model``.
    """
    wanted, file = check_model_section(model), spec if isinstance(spec, WeightsFile) else read_weights(spec)
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
    claims = claims_of(file.path, file.model)
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
