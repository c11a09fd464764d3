"""Export a pretrained encoder: safetensors, a timm model folder, or a backbone file for mmseg and mmdet.

Only the encoder leaves, under timm's parameter names; decoder, mask and feedback networks stay in the training
checkpoint. Everything is written to a temporary name, read back, compared bit for bit, then renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from mlomae.common.errors import CheckpointError
from mlomae.models import ViT, create_encoder
from mlomae.models.weights import load_strict

FORMATS = ("safetensors", "timm", "mmseg", "mmdet")
_SUFFIX = {"safetensors": ".safetensors", "mmseg": ".pth", "mmdet": ".pth"}
_FOLDER_FILES = {"config.json", "model.safetensors"}
_TIMM_NAMES = {
    "tiny": "vit_tiny_patch16_224",
    "small": "vit_small_patch16_224",
    "base": "vit_base_patch16_224",
    "large": "vit_large_patch16_224",
    "huge": "vit_huge_patch14_224",
}


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _model_section(encoder: ViT, config: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint's encoder section with defaults of the size filled in; decoder keys do not apply any more."""
    return {
        "size": config.get("size", "base"),
        "img_size": encoder.img_size,
        "patch_size": encoder.patch_size,
        "embed_dim": encoder.embed_dim,
        "depth": encoder.depth,
        "num_heads": encoder.num_heads,
    }


def timm_config(
    model: dict[str, Any], mean: Sequence[float] = IMAGENET_DEFAULT_MEAN, std: Sequence[float] = IMAGENET_DEFAULT_STD
) -> dict[str, Any]:
    """``config.json`` of a timm model folder; ``model_args`` override the named architecture, so any size fits."""
    shape = ("img_size", "patch_size", "embed_dim", "depth", "num_heads")
    size = model["img_size"]
    return {
        "architecture": _TIMM_NAMES[model["size"]],
        "num_classes": 0,
        "num_features": model["embed_dim"],
        "global_pool": "token",
        "model_args": {key: model[key] for key in shape},
        "pretrained_cfg": {
            "tag": "mlomae",
            "custom_load": False,
            "input_size": [3, size, size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(mean),
            "std": list(std),
            "num_classes": 0,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def _same_bits(a: Tensor, b: Tensor) -> bool:
    raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*raw)


def _verify(written: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> None:
    wrong = [k for k in wanted if k not in written or not _same_bits(written[k], wanted[k])]
    if wrong or len(written) != len(wanted):
        raise CheckpointError(f"'{path}' reads back differently ({wrong[:1]}); check the disk and export again")


def _check_target(out: Path, fmt: str) -> None:
    if fmt not in FORMATS:
        raise CheckpointError(f"unknown export format '{fmt}'; choose one of {', '.join(FORMATS)}")
    suffix = _SUFFIX.get(fmt)
    if suffix and (out.suffix != suffix or out.is_dir()):
        raise CheckpointError(f"export target '{out}' must be a file ending in {suffix} for format {fmt}; rename it")
    if not suffix and out.exists() and (not out.is_dir() or {p.name for p in out.iterdir()} - _FOLDER_FILES):
        raise CheckpointError(f"export target '{out}' holds other things; name a new folder for format {fmt}")


def _write(out: Path, fmt: str, tensors: dict[str, Tensor], meta: dict[str, Any], config: dict[str, Any]) -> None:
    """Write to a temporary sibling, read back, rename."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    retired = out.with_name(f".{out.name}.{os.getpid()}.old")
    text_meta = {"format": "pt", **{f"mlomae.{k}": v if isinstance(v, str) else json.dumps(v) for k, v in meta.items()}}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if fmt == "timm":
            temporary.mkdir()
            save_file(tensors, temporary / "model.safetensors", metadata=text_meta)
            (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            _verify(load_file(temporary / "model.safetensors"), tensors, out)
            if out.exists():  # a folder cannot replace a full folder in one step
                os.replace(out, retired)
        elif fmt == "safetensors":
            save_file(tensors, temporary, metadata=text_meta)
            _verify(load_file(temporary), tensors, out)
        else:
            torch.save({"state_dict": tensors, "meta": meta}, temporary)
            _verify(torch.load(temporary, map_location="cpu", weights_only=True)["state_dict"], tensors, out)
        os.replace(temporary, out)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(getattr(error, "strerror", None) or error).splitlines()[0]
        raise CheckpointError(f"export '{out}' cannot be written ({reason}); free space or choose another") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        if retired.exists() and not out.exists():  # the second rename failed: put the old export back
            os.replace(retired, out)
        shutil.rmtree(retired, ignore_errors=True)


def _origin(config: dict[str, Any]) -> dict[str, Any]:
    """What a transfer needs to tell pretrainings, and their seeds, apart; empty for a foreign config."""
    from mlomae.records import config_hash, strip_paths

    if "method" not in config or "seed" not in config:
        return {}
    return {"method": config["method"], "seed": config["seed"], "config_hash": config_hash(strip_paths(config))}


def export(checkpoint_path: str | Path, out: str | Path, fmt: str) -> str:
    """Write the encoder of a training checkpoint to ``out`` and return a key-for-key report.

    ``fmt``: "safetensors" (a file; name, model section and the checkpoint's SHA-256 in its metadata), "timm" (a folder
    for ``timm.create_model("local-dir:OUT", pretrained=True)``), "mmseg" or "mmdet" (a .pth whose keys begin with
    ``backbone.``). An earlier export at ``out`` is replaced. Raises CheckpointError for an unknown format, an
    unreadable or foreign checkpoint, an encoder that its own config does not describe, or a failed write.
    """
    from mlomae.common.checkpoint import (
        load_checkpoint,  # here, to keep `mlomae.backbones.export` importable without the engine
    )

    source, out = Path(checkpoint_path), Path(out)
    _check_target(out, fmt)
    checkpoint = load_checkpoint(source)
    try:
        config, state, info = checkpoint["config"]["model"], checkpoint["modules"]["mae"], checkpoint.get("meta", {})
    except KeyError as error:
        raise CheckpointError(f"checkpoint '{source}' lacks {error}; use one that `mlomae pretrain` wrote") from error
    encoder_keys = ("size", "img_size", "patch_size", "embed_dim", "depth", "num_heads")
    encoder = create_encoder(**{key: config[key] for key in encoder_keys if key in config})
    tensors = {k.removeprefix("encoder."): v.contiguous().clone() for k, v in state.items() if k.startswith("encoder.")}
    try:
        load_strict(encoder, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{source}' contradicts its own config: {error}") from error

    prefix = "backbone." if fmt in ("mmseg", "mmdet") else ""
    model = _model_section(encoder, config)
    augment = checkpoint["config"].get("data", {}).get("augment") or {}
    statistics = {key: augment[key] for key in ("mean", "std") if key in augment}
    meta = {
        "name": str(info.get("name", source.stem)),
        "model": model,
        "source_sha256": sha256(source),
        "iteration": int(checkpoint["iteration"]),
        **_origin(checkpoint["config"]),
    }
    _write(out, fmt, {prefix + k: v for k, v in tensors.items()}, meta, timm_config(model, **statistics))

    lines = [f"{fmt} export '{out}': {len(tensors)} tensors, equal bit for bit to '{source}' ({meta['source_sha256']})"]
    lines += [f"  mae.encoder.{k} -> {prefix}{k} {tuple(v.shape)}" for k, v in tensors.items()]
    lines += [f"  mae.{k} dropped {tuple(v.shape)}" for k, v in state.items() if not k.startswith("encoder.")]
    for name, module in checkpoint["modules"].items():
        if name != "mae":
            lines += [f"  {name}.{k} dropped {tuple(v.shape)}" for k, v in module.items()]
    return "\n".join(lines)
