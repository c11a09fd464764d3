"""timm's `VisionTransformer` with the weights of a file: at any image size, with or without its final norm."""

from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mlomae.models.architecture import Architecture
from mlomae.models.attention import Attention
from mlomae.models.layouts import State
from mlomae.models.loading import LoadReport, load_strict, matches, with_final_norm
from mlomae.models.vit import ViT, check_geometry, sincos_positions

_HEADS = ("head.*", "attn_pool.*")  # another task's classifier; ours is fresh
_FRESH = ("head.*", "fc_norm.*")


def has_fresh_norm(vit: VisionTransformer) -> bool:
    """Whether the norm comes after the pooling (``fc_norm``), so that tokens are not normed."""
    return isinstance(vit.norm, nn.Identity) and not isinstance(vit.fc_norm, nn.Identity)


def load_vit(vit: VisionTransformer, state: State, grid: tuple[int, int] | None) -> LoadReport:
    """Strictly load ``state``, whose positions have ``grid`` (rows, columns), into ``vit``.

    Positions are interpolated to the patch grid of ``vit`` (bicubic, antialiased). Raises CheckpointError for weights
    that do not fit.
    """
    heads = [key for key in state if matches(key, _HEADS)]
    state, notes = {key: value for key, value in state.items() if key not in heads}, []
    target = vit.patch_embed.grid_size
    if "pos_embed" in state and grid != target and grid is not None:
        prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], list(target), list(grid), prefix)
        notes.append(f"pos_embed: grid {grid[0]}x{grid[1]} interpolated to {target[0]}x{target[1]}")
    dropped: tuple[str, ...] = ()
    if not has_fresh_norm(vit):
        state, said = with_final_norm(state)
        notes += said
    elif "norm.weight" in state:
        dropped = ("norm.*",)
        notes.append("norm: dropped; a fresh fc_norm is trained after average pooling (keep_norm=True keeps it)")
    report = load_strict(vit, state, allow_missing=_FRESH, allow_unexpected=dropped)
    report.unexpected += heads
    report.notes += notes
    return report


def plain_vit(architecture: Architecture, state: State | None, **options: Any) -> tuple[VisionTransformer, LoadReport]:
    """A ViT with the weights ``state``; None for those that pretraining starts from: Xavier-uniform layers and the
    sin-cos table of the grid; registers begin as the class token does, layer scale at 1. ``options``: timm's,
    ``img_size`` (height, width) among them."""
    for length in options["img_size"]:
        check_geometry(length, architecture.patch_size)  # timm would silently cut off a remainder of the image
    vit = VisionTransformer(**architecture.timm_options(), weight_init="skip", attn_layer=Attention, **options)
    if state is not None:
        return vit, load_vit(vit, state, architecture.grid)
    shape = {key: getattr(architecture, key) for key in ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")}
    own, initial = vit.state_dict(), ViT(img_size=architecture.patch_size, **shape).state_dict()
    prefix = vit.num_prefix_tokens if architecture.positions_of_all else 0
    initial["pos_embed"] = sincos_positions(architecture.embed_dim, vit.patch_embed.grid_size, prefix)
    if architecture.registers:
        initial["reg_token"] = nn.init.normal_(torch.empty_like(own["reg_token"]), std=0.02)
    initial |= {key: value for key, value in own.items() if key.endswith(".gamma")}
    initial = {key: value for key, value in initial.items() if key in own}  # a norm or a bias that it has not
    report = load_strict(vit, initial, allow_missing=_FRESH)
    return vit, LoadReport(missing=[*report.missing, *report.matched])  # nothing came from a file
