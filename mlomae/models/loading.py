"""Strict loading of weights, with a report of every key; the start of continued pretraining; timm's ViTs by name."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from mlomae.common.errors import CheckpointError, ConfigError, first_names, reason_of
from mlomae.models.architecture import claims_of, measure
from mlomae.models.layouts import State
from mlomae.models.mae import MAE
from mlomae.models.places import HUB, check_reachable
from mlomae.models.vit import sincos_positions
from mlomae.models.weights import read_weights

_STORED = ("local-dir:", *HUB)  # timm's names whose architecture is read from a config.json


@dataclass
class LoadReport:
    """What loading did. ``mismatched`` holds (key, shape in the file, shape in the model), ``pixels`` mean and std
    of the images that timm's weights were trained on."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pixels: dict[str, Any] = field(default_factory=dict)

    def check_pixels(self, section: str, mean: Sequence[float], std: Sequence[float]) -> None:
        """Raise ConfigError, naming the key of ``section``, for images normalised otherwise than the weights want."""
        for key, given in (("mean", mean), ("std", std)):
            own = self.pixels.get(key, given)
            if any(abs(a - b) > 1e-3 for a, b in zip(own, given, strict=True)):
                raise ConfigError(
                    f"{section}.{key} is {list(given)}, and the weights were trained with {list(own)}; set it to that"
                )

    def __str__(self) -> str:
        """One line of counts, then one line per note and per key; matched keys last."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "matched": self.matched}
        counts = f"matched {len(self.matched)}, missing {len(self.missing)}, unexpected {len(self.unexpected)}"
        lines = [f"{counts}, shape mismatches {len(self.mismatched)}"]
        lines += [f"  note        {note}" for note in self.notes]
        lines += [f"  shape       {key}: file {theirs}, model {ours}" for key, theirs, ours in self.mismatched]
        lines += [f"  {kind:<11} {key}" for kind, keys in kinds.items() for key in keys]
        return "\n".join(lines)


def matches(key: str, patterns: Sequence[str]) -> bool:
    """Whether one of the fnmatch ``patterns`` fits ``key``."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def load_strict(
    module: nn.Module, state_dict: State, allow_missing: Sequence[str] = (), allow_unexpected: Sequence[str] = ()
) -> LoadReport:
    """Copy ``state_dict`` into ``module``; the lists are fnmatch patterns of keys that may be missing or unexpected.

    Raises CheckpointError, with ``module`` untouched, for a key outside the lists, a shape that differs, whole numbers
    or truth values for floats or vice versa, or a value that is not finite.
    """
    own = module.state_dict()
    shapes = [(key, tuple(state_dict[key].shape), tuple(own[key].shape)) for key in own if key in state_dict]
    report = LoadReport(
        matched=[key for key, theirs, ours in shapes if theirs == ours],
        missing=[key for key in own if key not in state_dict],
        unexpected=[key for key in state_dict if key not in own],
        mismatched=[entry for entry in shapes if entry[1] != entry[2]],
    )
    if report.mismatched:
        described = [f"{key} (file {theirs}, model {ours})" for key, theirs, ours in report.mismatched]
        raise CheckpointError(f"weights have other shapes: {first_names(described)}; build the model of the file")
    if missing := [key for key in report.missing if not matches(key, allow_missing)]:
        raise CheckpointError(f"weights lack {first_names(missing)}; use a file of this architecture")
    if unexpected := [key for key in report.unexpected if not matches(key, allow_unexpected)]:
        raise CheckpointError(
            f"weights have keys unknown to the model: {first_names(unexpected)}; use a file of this architecture"
        )
    if odd := [key for key in report.matched if _kind(state_dict[key]) != _kind(own[key])]:
        described = [f"{key} (file {state_dict[key].dtype}, model {own[key].dtype})" for key in odd]
        raise CheckpointError(f"weights are of another type: {first_names(described)}; use another file")
    if broken := [key for key in report.matched if not torch.isfinite(state_dict[key]).all()]:
        raise CheckpointError(f"weights are not finite: {first_names(broken)}; use an earlier or another checkpoint")
    module.load_state_dict({key: state_dict[key] for key in report.matched}, strict=False)
    return report


def _kind(tensor: Tensor) -> tuple[bool, bool, bool]:
    """Types that are not converted into each other."""
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool


# --- continued pretraining --------------------------------------------------------------------------------------------


def _on_grid_of(state: State, mae: MAE) -> list[str]:
    """Replace position tables of another patch grid by the sin-cos table of ``mae``'s, and say so."""
    notes = []
    for key in ("encoder.pos_embed", "decoder.pos_embed"):
        own, given = mae.get_parameter(key), state.get(key)
        if given is None or given.ndim != 3 or given.shape == own.shape or given.shape[-1] != own.shape[-1]:
            continue  # another width is an architecture error, reported as such later
        side = math.isqrt(max(given.shape[1] - 1, 0))
        theirs = sincos_positions(own.shape[-1], (side, side)) if side * side == given.shape[1] - 1 else None
        fixed = theirs is not None and torch.allclose(given.float(), theirs, atol=1e-3)
        notes.append(
            f"{key}: {given.shape[1]} tokens in the file, {own.shape[1]} in the model; sin-cos table recomputed"
            + ("" if fixed else "; WARNING: the file's table was not sin-cos, its learned positions are lost")
        )
        state[key] = sincos_positions(own.shape[-1], mae.encoder.grid)
    return notes


def with_final_norm(encoder: State) -> tuple[State, list[str]]:
    """``encoder`` with a final ``norm``: the ``fc_norm`` of a fine-tuned ViT that has no other, else without that.

    The norm came after the mean of the tokens there; its weights, not its statistics, commute with that mean.
    """
    if "fc_norm.weight" in encoder and "norm.weight" not in encoder:
        renamed = {re.sub(r"^fc_norm\.", "norm.", key): value for key, value in encoder.items()}
        return renamed, ["norm: the fine-tuned fc_norm, which came after the mean of the tokens"]
    return {key: value for key, value in encoder.items() if not key.startswith("fc_norm.")}, []


_RARE = {  # what a fixed encoder of ours has no place for, by the key that shows it
    "reg_token": "registers",
    "register_tokens": "registers",
    "dist_token": "a distillation token",
    "blocks.0.ls1.gamma": "layer scale",
}


def _described(state: State, part: str) -> str:
    found = measure(state, f"{part}.")
    patch = f", patch {found['patch_size']}" if "patch_size" in found else ""
    return f"width {found.get('embed_dim', 'unknown')}, depth {found.get('depth', 0)}{patch}"


def load_pretrained(mae: MAE, path: str | Path) -> LoadReport:
    """Start ``mae`` from a file for continued pretraining; a decoder the file lacks keeps its initialisation.

    So does one of which the file has a part only. Raises CheckpointError if the file cannot be read, the encoder does
    not match fully, or the file's decoder is another one.
    """
    file = read_weights(path)
    encoder, notes = with_final_norm(file.encoder)
    state = {f"encoder.{key}": value for key, value in encoder.items()}
    if rare := [f"{what} (encoder.{key})" for key, what in _RARE.items() if key in encoder]:
        raise CheckpointError(
            f"'{file.path}' holds a ViT with {' and '.join(rare)}, which the encoder of a pretraining has not; "
            "start from a ViT without, or use this one as a backbone of a transfer (--weights)"
        )
    decoder = {f"decoder.{key}": value for key, value in file.decoder.items()}
    own = [key for key in mae.state_dict() if key.startswith("decoder.")]
    needed = {key for key in own if ".blocks." not in key} | {"decoder.blocks.0.norm1.weight"}
    part_only = file.layout == "other" and not needed <= set(decoder)
    if decoder and part_only:
        notes.append(f"the file has a part of a decoder only ({len(decoder)} tensors), which is left out")
    has_decoder = bool(decoder) and not part_only
    state |= decoder if has_decoder else {}
    notes += _on_grid_of(state, mae)
    if (own_eps := mae.encoder.norm_eps) != file.norm_eps:
        notes.append(
            f"layer norms have an epsilon of {own_eps:g} in the model; model.norm_eps={file.norm_eps:g} keeps it"
        )
    for part, article in (("encoder", "an"), ("decoder", "a"))[: 1 + has_decoder]:
        theirs, ours = _described(state, part), _described(mae.state_dict(), part)
        if theirs != ours:
            raise CheckpointError(
                f"'{path}' holds {article} {part} of {theirs}, this model's is of {ours}; "
                "set the model section to match"
            )
    # shapes do not tell the number of heads, so another number would load without an error
    encoder_heads = claims_of(file.path, file.model).get("num_heads")
    decoder_heads = next((n for m in mae.decoder.modules() if (n := getattr(m, "num_heads", None))), None)
    for key, declared, given in (
        ("num_heads", encoder_heads, mae.encoder.num_heads),
        ("decoder_num_heads", file.model.get("decoder_num_heads") if has_decoder else None, decoder_heads),
    ):
        if declared and given and declared != given:
            raise CheckpointError(
                f"'{file.path}' was trained with {key}={declared}, not {given}; set model.{key} to match"
            )
    try:
        report = load_strict(mae, state, allow_missing=() if has_decoder else ("decoder.*",))
    except CheckpointError as error:
        raise CheckpointError(f"'{path}': {error}") from error
    if not has_decoder:
        notes.append("the file has no whole decoder; it keeps its random initialisation")
    report.unexpected += file.left_out + ([] if has_decoder else list(decoder))
    report.notes += file.notes + notes
    return report


# --- timm's models ----------------------------------------------------------------------------------------------------


def _repository(name: str, pretrained: bool) -> str:
    """What timm fetches from the Hub for ``name``, "" for nothing."""
    if name.startswith(HUB):
        return name.partition(":")[2].partition("@")[0]
    if not pretrained or ":" in name:
        return ""
    try:
        return getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None) or ""
    except RuntimeError:  # an unknown name, of which timm says more when it is created
        return ""


def create_timm(name: str, **options: Any) -> Any:
    """The model that timm has under ``name``, built with ``options`` of ``timm.create_model``, e.g. ``pretrained``.

    Raises ConfigError for a name or an option that timm refuses, CheckpointError for weights that cannot be loaded.
    """
    if repo := _repository(name, bool(options.get("pretrained"))):
        check_reachable(repo, f"timm's '{name}'")
    try:
        return timm.create_model(name, **options)
    except Exception as error:  # unknown names, refused options, downloads and damaged files share no base class
        if options.get("pretrained") or name.startswith(_STORED):
            raise CheckpointError(
                f"timm's '{name}' cannot be loaded ({reason_of(error)}); check its name, files, network"
            ) from error
        raise ConfigError(
            f"timm model '{name}' cannot be built as a ViT ({reason_of(error)}); see timm.list_models('vit_*')"
        ) from error
