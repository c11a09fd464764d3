"""Strict loading of weights with a report, and public MAE checkpoints under our parameter names.

Layouts understood: ours (``encoder.*``, ``decoder.*``), facebookresearch/mae (encoder keys bare, ``decoder_embed.*``,
``mask_token``, ...) and timm (encoder only). Files are read as tensors and plain values; code in them is never run.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mlomae.common.errors import CheckpointError
from mlomae.models import MAE, SIZES
from mlomae.models.vit import sincos_positions

State = dict[str, Tensor]

_OFFICIAL_DECODER = {
    "mask_token": "decoder.mask_token",
    "decoder_pos_embed": "decoder.pos_embed",
    "decoder_embed": "decoder.embed",
    "decoder_blocks": "decoder.blocks",
    "decoder_norm": "decoder.norm",
    "decoder_pred": "decoder.pred",
}
_CLASSIFIER = ("head.*", "fc_norm.*")  # of a timm or fine-tuned model; pretraining has no use for them
_POSITIONS = ("encoder.pos_embed", "decoder.pos_embed")


@dataclass
class LoadReport:
    """What loading did. ``mismatched`` holds (key, shape in the file, shape in the model)."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line of counts, then one line a note and a key; matched keys last."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "matched": self.matched}
        counts = f"matched {len(self.matched)}, missing {len(self.missing)}, unexpected {len(self.unexpected)}"
        lines = [f"{counts}, shape mismatches {len(self.mismatched)}"]
        lines += [f"  note        {note}" for note in self.notes]
        lines += [f"  shape       {key}: file {theirs}, model {ours}" for key, theirs, ours in self.mismatched]
        lines += [f"  {kind:<11} {key}" for kind, keys in kinds.items() for key in keys]
        return "\n".join(lines)


def _forbidden(keys: Sequence[str], allowed: Sequence[str]) -> list[str]:
    return [key for key in keys if not any(fnmatchcase(key, pattern) for pattern in allowed)]


def _first(keys: Sequence[str], n: int = 3) -> str:
    return ", ".join(keys[:n]) + (f" and {len(keys) - n} more" if len(keys) > n else "")


def load_strict(
    module: nn.Module, state_dict: State, allow_missing: Sequence[str] = (), allow_unexpected: Sequence[str] = ()
) -> LoadReport:
    """Copy ``state_dict`` into ``module``; the lists are fnmatch patterns of keys that may be missing or unexpected.

    Raises CheckpointError, with ``module`` untouched, for a key outside the lists, a shape that differs, or a value
    that is not finite.
    """
    own = module.state_dict()
    common = [key for key in own if key in state_dict]
    shapes = [(key, tuple(state_dict[key].shape), tuple(own[key].shape)) for key in common]
    report = LoadReport(
        matched=[key for key, theirs, ours in shapes if theirs == ours],
        missing=[key for key in own if key not in state_dict],
        unexpected=[key for key in state_dict if key not in own],
        mismatched=[entry for entry in shapes if entry[1] != entry[2]],
    )
    if report.mismatched:
        described = [f"{key} (file {theirs}, model {ours})" for key, theirs, ours in report.mismatched]
        raise CheckpointError(f"weights have other shapes: {_first(described)}; build the model the file was made for")
    if missing := _forbidden(report.missing, allow_missing):
        raise CheckpointError(f"weights lack {_first(missing)}; use a file of this architecture, or allow_missing")
    if unexpected := _forbidden(report.unexpected, allow_unexpected):
        raise CheckpointError(
            f"weights hold keys the model has no place for: {_first(unexpected)}; "
            "use a file of this architecture, or allow_unexpected"
        )
    broken = [key for key in report.matched if not torch.isfinite(state_dict[key]).all()]
    if broken:
        raise CheckpointError(f"weights are not finite: {_first(broken)}; use an earlier or another checkpoint")
    module.load_state_dict({key: state_dict[key] for key in report.matched}, strict=False)
    return report


def _read_torch(path: Path) -> Any:
    try:  # training scripts of MAE store their argparse.Namespace beside the weights: a plain attribute bag
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        why = f"refers to '{refused[1]}'" if refused else "is truncated or not a torch file"
        raise CheckpointError(
            f"'{path}' {why} and was not loaded; only tensors and plain values are read, convert it to .safetensors"
        ) from error


def read_weights(path: str | Path) -> tuple[State, dict[str, Any]]:
    """(state dict, the model section that our checkpoints and exports carry, or {}); see `read_state_dict`."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"weights '{path}' do not exist; give a .safetensors, .pth or .pt file")
    model: dict[str, Any] = {}
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
                model = json.loads((file.metadata() or {}).get("mlomae.model", "{}"))
        except (SafetensorError, ValueError) as error:
            raise CheckpointError(f"'{path}' is damaged or not a safetensors file; export or fetch it again") from error
    else:
        state = _read_torch(path)
        if isinstance(state, dict) and "format" in state:
            from mlomae.common.checkpoint import load_checkpoint  # here, to keep weights free of the engine

            checkpoint = load_checkpoint(path)
            state, model = checkpoint.get("modules", {}).get("mae"), checkpoint.get("config", {}).get("model", {})
        elif isinstance(state, dict) and isinstance(state.get("meta"), dict):  # an export for mmseg or mmdet
            declared = state["meta"].get("model")
            model = declared if isinstance(declared, dict) else {}
        for wrapper in ("model", "state_dict"):
            if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
                state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"'{path}' holds no state dict (names to tensors); give a file of model weights")
    for prefix in ("module.", "backbone."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state, model


def read_state_dict(path: str | Path) -> State:
    """Tensors of a .safetensors, .pth or .pt file, or the autoencoder of one of our training checkpoints, on the CPU.

    "model" and "state_dict" are unwrapped, and a "module." or "backbone." that every key begins with is removed.
    Raises CheckpointError if the file is missing, damaged, holds code, or is not a state dict.
    """
    return read_weights(path)[0]


def _convert(state_dict: State, mae: MAE) -> tuple[State, list[str], list[str]]:
    """(state under our names, source keys dropped, notes); see `to_mae_state`."""
    if any(key.startswith("encoder.") for key in state_dict):
        state, dropped = dict(state_dict), []
    else:
        dropped = [key for key in state_dict if any(fnmatchcase(key, pattern) for pattern in _CLASSIFIER)]
        state = {}
        for key, value in state_dict.items():
            if key not in dropped:
                head, dot, rest = key.partition(".")
                state[_OFFICIAL_DECODER.get(head, f"encoder.{head}") + dot + rest] = value
    notes = []
    for key in _POSITIONS:
        own = mae.get_parameter(key)
        given = state.get(key)
        if given is None or given.ndim != 3 or given.shape == own.shape or given.shape[-1] != own.shape[-1]:
            continue  # another width is an architecture error, reported as such later
        side = math.isqrt(given.shape[1] - 1)
        theirs = sincos_positions(own.shape[-1], (side, side)) if side * side == given.shape[1] - 1 else None
        fixed = theirs is not None and torch.allclose(given.float(), theirs, atol=1e-3)
        notes.append(
            f"{key}: {given.shape[1]} tokens in the file, {own.shape[1]} in the model; sin-cos table recomputed"
            + ("" if fixed else "; WARNING: the file's table was not sin-cos, its learned positions are lost")
        )
        state[key] = sincos_positions(own.shape[-1], mae.encoder.grid)
    return state, dropped, notes


def to_mae_state(state_dict: State, mae: MAE) -> State:
    """Rename an official MAE, timm or own state dict to the keys of ``mae``; classifier heads are dropped.

    Position tables of another patch grid are replaced by the sin-cos table of ``mae``'s grid. Nothing is checked here:
    pass the result to `load_strict`. Sources: facebookresearch/mae models_mae.py; timm vision_transformer.py.
    """
    return _convert(state_dict, mae)[0]


def _architecture(state: State, part: str) -> str:
    """Width, depth and (encoder only) patch size of "encoder" or "decoder", read from the tensors' shapes."""
    token = state.get(f"{part}.cls_token", state.get(f"{part}.mask_token"))
    numbers = {int(m[1]) for key in state if (m := re.match(rf"{part}\.blocks\.(\d+)\.", key))}
    width = token.shape[-1] if token is not None else "unknown"
    projection = state.get("encoder.patch_embed.proj.weight")
    patch = f", patch {projection.shape[-1]}" if part == "encoder" and projection is not None else ""
    return f"width {width}, depth {max(numbers, default=-1) + 1}{patch}"


def _check_heads(declared: dict[str, Any], mae: MAE, path: Path) -> None:
    """Shapes do not tell the number of heads, so another number would load without a word."""
    size = SIZES.get(declared.get("size", ""), (0, 0, 0))
    theirs = {"num_heads": declared.get("num_heads") or size[2], "decoder_num_heads": declared.get("decoder_num_heads")}
    decoder_heads = next((n for m in mae.decoder.modules() if (n := getattr(m, "num_heads", None))), None)
    for key, ours in (("num_heads", mae.encoder.num_heads), ("decoder_num_heads", decoder_heads)):
        if theirs[key] and ours and theirs[key] != ours:
            raise CheckpointError(
                f"'{path}' was trained with {key}={theirs[key]}, not {ours}; set model.{key} to match"
            )


def load_pretrained(mae: MAE, path: str | Path) -> LoadReport:
    """Start ``mae`` from a file for continued pretraining; a decoder the file lacks keeps its initialisation.

    Raises CheckpointError if the file cannot be read, the encoder does not match fully, or the file's decoder is
    another one.
    """
    path = Path(path)
    given, declared = read_weights(path)
    state, dropped, notes = _convert(given, mae)
    own = mae.state_dict()
    has_decoder = any(key.startswith("decoder.") for key in state)
    for part in ("encoder", "decoder") if has_decoder else ("encoder",):
        theirs, ours = _architecture(state, part), _architecture(own, part)
        if theirs != ours:
            raise CheckpointError(
                f"'{path}' holds a {part} of {theirs}, this model's is of {ours}; set the model section to match"
            )
    _check_heads(declared, mae, path)
    try:
        report = load_strict(mae, state, allow_missing=() if has_decoder else ("decoder.*",))
    except CheckpointError as error:
        raise CheckpointError(f"'{path}': {error}") from error
    if not has_decoder:
        notes.append("the file has no decoder; it keeps its random initialisation")
    report.unexpected += dropped
    report.notes += notes
    return report
