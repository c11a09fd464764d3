"""Finds a plain ViT among the tensors of a file, whatever library wrote it, and gives its weights timm's names.

A layout is known by the name of its patch projection. What stands before that name is the prefix of the encoder, which
may be nested in the file under any names; what has another prefix is a sibling: a decoder, or left out and listed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mlomae.common.errors import CheckpointError, first_names

State = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # DDP, compile, FSDP
_PLAIN = {"model", "state_dict", "model_state_dict", "backbone", "net", "vit"}  # not one of several networks by name
_DEPTH = 4  # dicts in dicts that are looked into
_EMBED = "decoder_embed.weight"
_DECODER_BLOCKS = re.compile(r"decoder_(?:encoder\.layer|layers|blocks)\.")
_NOT_ENCODER = re.compile(r"(head|head_dist|heads|attn_pool|pooler|classifier)\.|mask_token$")  # of other tasks


@dataclass(frozen=True)
class Layout:
    """How a library names the parts of a ViT.

    Attributes:
        patch: the key of the patch projection's weight.
        names: patterns of whole keys, and what they become.
        block: the same inside a block, after ``blocks.N.``.
        eps: of the layer norms, if the file does not say.
    """

    name: str
    patch: str
    names: Rules = ()
    block: Rules = ()
    eps: float = 1e-6

    def rename(self, key: str) -> str:
        """timm's name of a key without the prefix."""
        key = _renamed(key, self.names)
        block = re.fullmatch(r"(blocks\.\d+\.)(.*)", key)
        return f"{block[1]}{_renamed(block[2], self.block)}" if block else key


def _renamed(key: str, rules: Rules) -> str:
    found = ((re.fullmatch(pattern, key), new) for pattern, new in rules)
    return next((match.expand(new) for match, new in found if match), key)


TIMM = Layout("timm", "patch_embed.proj.weight")
HUGGING_FACE = Layout(
    "Hugging Face",
    "embeddings.patch_embeddings.projection.weight",
    (
        (r"embeddings\.position_embeddings", "pos_embed"),
        (r"embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
        (r"embeddings\.distillation_token", "dist_token"),
        (r"embeddings\.(.*)", r"\1"),
        (r"(?:encoder\.)?layers?\.(\d+\..*)", r"blocks.\1"),
        (r"layernorm\.(.*)", r"norm.\1"),
    ),
    (
        (r"attention\.(?:attention\.)?(?:query|q_proj)\.(.*)", r"attn.q.\1"),
        (r"attention\.(?:attention\.)?(?:key|k_proj)\.(.*)", r"attn.k.\1"),
        (r"attention\.(?:attention\.)?(?:value|v_proj)\.(.*)", r"attn.v.\1"),
        (r"attention\.(?:output\.dense|o_proj)\.(.*)", r"attn.proj.\1"),
        (r"layernorm_before\.(.*)", r"norm1.\1"),
        (r"layernorm_after\.(.*)", r"norm2.\1"),
        (r"intermediate\.dense\.(.*)", r"mlp.fc1.\1"),
        (r"output\.dense\.(.*)", r"mlp.fc2.\1"),
        (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
    ),
    eps=1e-12,
)
OPENMMLAB = Layout(
    "OpenMMLab",
    "patch_embed.projection.weight",
    (
        (r"patch_embed\.projection\.(.*)", r"patch_embed.proj.\1"),
        (r"layers\.(\d+\..*)", r"blocks.\1"),
        (r"ln1\.(.*)", r"norm.\1"),
        (r"ln2\.(.*)", r"fc_norm.\1"),
    ),
    (
        (r"ln([12])\.(.*)", r"norm\1.\2"),
        (r"attn\.gamma1\.weight", "ls1.gamma"),
        (r"ffn\.gamma2\.weight", "ls2.gamma"),
        (r"attn\.attn\.in_proj_(.*)", r"attn.qkv.\1"),
        (r"attn\.attn\.out_proj\.(.*)", r"attn.proj.\1"),
        (r"ffn\.layers\.0\.0\.(.*)", r"mlp.fc1.\1"),
        (r"ffn\.layers\.1\.(.*)", r"mlp.fc2.\1"),
    ),
)
TORCHVISION = Layout(
    "torchvision",
    "conv_proj.weight",
    (
        (r"conv_proj\.(.*)", r"patch_embed.proj.\1"),
        (r"class_token", "cls_token"),
        (r"encoder\.pos_embedding", "pos_embed"),
        (r"encoder\.layers\.encoder_layer_(\d+\..*)", r"blocks.\1"),
        (r"encoder\.ln\.(.*)", r"norm.\1"),
    ),
    (
        (r"ln_([12])\.(.*)", r"norm\1.\2"),
        (r"self_attention\.in_proj_(.*)", r"attn.qkv.\1"),
        (r"self_attention\.out_proj\.(.*)", r"attn.proj.\1"),
        (r"mlp\.(?:0|linear_1)\.(.*)", r"mlp.fc1.\1"),
        (r"mlp\.(?:3|linear_2)\.(.*)", r"mlp.fc2.\1"),
    ),
)
LAYOUTS = [TIMM, HUGGING_FACE, OPENMMLAB, TORCHVISION]
"""All that are looked for; another one may be appended."""


@dataclass
class Parts:
    """What was found: the ``encoder`` under timm's names, classifier included, the ``decoder`` of an MAE under ours,
    the names of the tensors ``left_out``, the ``layout``, and notes."""

    encoder: State
    decoder: State = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    layout: Layout = TIMM
    notes: list[str] = field(default_factory=list)


def find_parts(content: Any, place: str = "") -> Parts:
    """The ViT in ``content``, nested dicts of tensors; ``place``: which, where there are several.

    Raises CheckpointError, to be put after the name of the file, if there is none, if several could be meant, or if
    none is at ``place``; each names what there is.
    """
    found = dict(_candidates(content, ""))
    if not found:
        keys = list(_tensor_names(content))
        if not keys:
            raise CheckpointError("holds no state dict (names to tensors); give a file of model weights")
        named = ", ".join(f"{layout.name}: {layout.patch}" for layout in LAYOUTS)
        raise CheckpointError(f"holds no plain ViT ({named}), but {first_names(keys)}; give a ViT's weights")
    label = place
    if place and place not in found:
        raise CheckpointError(f"holds no ViT at '{place}'; choose one of {', '.join(map(repr, found))}")
    if not place:
        plain = [name for name in found if set(name.split(".")) <= _PLAIN | {""}]
        if len(found) > 1 and not plain:
            raise CheckpointError(
                f"holds several ViTs: {', '.join(found)}; name one after the file, as in FILE#{next(iter(found))}"
            )
        label = (plain or list(found))[0]
    parts = _parts(*found.pop(label))
    if found and not place:
        parts.notes.append(f"'{label}' was read; {first_names(found)} is there too, FILE#NAME reads it")
    if parts.layout is not TIMM:
        parts.notes.append(f"the layout is {parts.layout.name}'s")
    return parts


def _unwrapped(names: list[str]) -> dict[str, str]:
    """The names without what DDP, FSDP and torch.compile put in, by the given ones; as they are if two became one."""
    short = {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in names}
    return short if len(set(short.values())) == len(short) else {name: name for name in names}


def _candidates(content: Any, place: str, depth: int = 0) -> Iterator[tuple[str, tuple[State, str, Layout]]]:
    """By its dotted place, each encoder: the tensors of the dict that holds it, its prefix and its layout."""
    if not isinstance(content, Mapping) or depth > _DEPTH:
        return
    short = _unwrapped([key for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)])
    tensors = {new: content[old] for old, new in short.items()}
    for key in tensors:
        for layout in LAYOUTS:
            if key == layout.patch or key.endswith(f".{layout.patch}"):
                prefix = key.removesuffix(layout.patch)
                yield ".".join(filter(None, (place, prefix.rstrip(".")))), (tensors, prefix, layout)
    for key, value in content.items():
        if isinstance(key, str):
            yield from _candidates(value, f"{place}.{key}" if place else key, depth + 1)


def _tensor_names(content: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(content, Mapping) and depth <= _DEPTH:
        for key, value in content.items():
            if isinstance(value, Tensor):
                yield str(key)
            else:
                yield from _tensor_names(value, depth + 1)


def _parts(tensors: State, prefix: str, layout: Layout) -> Parts:
    decoder = _decoder_names(tensors, prefix)
    encoder = {k: layout.rename(k.removeprefix(prefix)) for k in tensors if k.startswith(prefix) and k not in decoder}
    left = [key for key in tensors if key not in decoder and _NOT_ENCODER.match(encoder.get(key, "head."))]
    of_encoder = {new: tensors[key] for key, new in encoder.items() if key not in left}
    of_decoder = {layout.rename(own): tensors[key] for key, own in decoder.items()}
    return Parts(_fused(of_encoder), _fused(of_decoder), left, layout)


def _decoder_names(tensors: State, prefix: str) -> dict[str, str]:
    """The keys of an MAE's decoder, and what they become, inside its blocks still in the file's layout."""
    base = prefix.removesuffix("encoder.")
    if base != prefix and f"{base}decoder.embed.weight" in tensors:  # an autoencoder of ours
        return {key: key.removeprefix(f"{base}decoder.") for key in tensors if key.startswith(f"{base}decoder.")}
    roots = [key.removesuffix(_EMBED) for key in tensors if key == _EMBED or key.endswith(f".{_EMBED}")]
    names = {}
    for key in tensors if len(roots) == 1 else ():
        own = key.removeprefix(roots[0])
        of_decoder = own.startswith(("decoder_", "mask_token")) or (own.startswith("ln1.") and roots[0] != prefix)
        if key.startswith(roots[0]) and of_decoder:
            names[key] = _DECODER_BLOCKS.sub("blocks.", own).removeprefix("decoder_")
    return names


def _fused(state: State) -> State:
    """Queries, keys and values in one tensor, as timm has them."""
    fused = {}
    for key, value in state.items():
        if match := re.fullmatch(r"(blocks\.\d+\.attn\.)([qkv])\.(weight|bias)", key):
            three = [state.get(f"{match[1]}{part}.{match[3]}") for part in "qkv"]
            if all(part is not None and part.shape == value.shape for part in three):
                fused[f"{match[1]}qkv.{match[3]}"] = torch.cat([part for part in three if part is not None])
                continue
        fused[key] = value
    return fused
