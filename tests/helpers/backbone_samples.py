"""Tiny weights in every layout a backbone can come from, written independently of the code that reads them."""

from pathlib import Path
from typing import Any

import torch

from mlomae.common.checkpoint import FORMAT
from mlomae.models import MAE, ViT, create_encoder

SHAPE: dict[str, Any] = {"size": "tiny", "img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
MODEL = {key: SHAPE[key] for key in ("patch_size", "embed_dim", "depth", "num_heads")}
DECODER = {"decoder_embed_dim": 12, "decoder_depth": 1, "decoder_num_heads": 2}


def make_mae(**overrides: Any) -> MAE:
    """A small MAE whose every parameter but the position tables is random, zeros and ones included."""
    torch.manual_seed(0)
    mae = MAE(create_encoder(**{**SHAPE, **overrides}), **DECODER)
    for name, parameter in mae.named_parameters():
        if not name.endswith("pos_embed"):
            torch.nn.init.normal_(parameter, std=0.2)
    return mae.eval()


def write_checkpoint(path: Path, **overrides: Any) -> ViT:
    """A training checkpoint of ours; returns its encoder."""
    mae = make_mae(**overrides)
    content = {
        "format": FORMAT,
        "iteration": 7,
        "config": {"model": {**SHAPE, **DECODER, **overrides}, "data": {}},
        "meta": {"name": "run"},
        "modules": {"mae": mae.state_dict(), "mask": {"w": torch.zeros(2)}, "feedback": {}},
    }
    torch.save(content, path)
    return mae.encoder


def write_official(path: Path, decoder: bool = True, **overrides: Any) -> ViT:
    """The layout of facebookresearch/mae: encoder keys bare, decoder_*, mask_token; returns the encoder."""
    mae = make_mae(**overrides)
    state = dict(mae.encoder.state_dict())
    if decoder:
        for key, value in mae.decoder.state_dict().items():
            state[key if key == "mask_token" else f"decoder_{key}"] = value
    torch.save({"model": state}, path)
    return mae.encoder
