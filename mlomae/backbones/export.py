"""Export a pretrained encoder: safetensors, a timm model folder, or a backbone file for mmseg and mmdet.

Only the encoder is written, under timm's parameter names; decoder, mask and feedback networks stay in the training
checkpoint. Everything is written to a temporary name, read back, compared bit for bit, then renamed.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mlomae.common.atomic import hidden_name, replacing
from mlomae.common.checkpoint import Weights, load_checkpoint, newest_checkpoint
from mlomae.common.errors import CheckpointError, MlomaeError, first_line_of
from mlomae.common.ownership import owned
from mlomae.common.structure import Number, check_structure
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD
from mlomae.data.copies import FILE, digests_path
from mlomae.models import SIZES, create_encoder
from mlomae.models.layouts import State
from mlomae.models.loading import load_strict
from mlomae.models.weights import ModelSection, check_declared, read_weights, sha256
from mlomae.records import config_hash, strip_paths

_SUFFIX = {"safetensors": ".safetensors", "timm": "", "mmseg": ".pth", "mmdet": ".pth"}
_FOLDER_FILES = {"config.json", "model.safetensors", FILE}
_SHAPE = ("img_size", "patch_size", "embed_dim", "depth", "num_heads")
_TIMM_NAMES = {size: f"vit_{size}_patch{14 if size == 'huge' else 16}_224" for size in SIZES}


class _Augment(TypedDict, total=False):
    mean: list[float]
    std: list[float]


class _Data(TypedDict, total=False):
    augment: _Augment


class _Further(TypedDict, total=False):
    data: _Data
    method: str
    seed: Number


class _Exported(_Further):
    """What an export takes from the configuration of a checkpoint."""

    model: ModelSection


def timm_config(
    model: dict[str, Any], mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> dict[str, Any]:
    """``config.json`` of a timm model folder; ``model_args`` override the named architecture, so any size fits."""
    size = model["img_size"]
    return {
        "architecture": _TIMM_NAMES[model["size"]],
        "num_classes": 0,
        "num_features": model["embed_dim"],
        "global_pool": "token",
        "model_args": {key: model[key] for key in _SHAPE},
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


def _check_target(out: Path, fmt: str) -> None:
    if fmt not in _SUFFIX:
        raise CheckpointError(f"unknown export format '{fmt}'; choose one of {', '.join(_SUFFIX)}")
    suffix = _SUFFIX[fmt]
    if suffix and (out.suffix != suffix or out.is_dir()):
        raise CheckpointError(f"export target '{out}' must be a file ending in {suffix} for format {fmt}; rename it")
    if not suffix and out.exists() and (not out.is_dir() or {p.name for p in out.iterdir()} - _FOLDER_FILES):
        raise CheckpointError(f"export target '{out}' holds other things; name a new folder for format {fmt}")


def _write(new: Path, fmt: str, tensors: State, meta: dict[str, Any], config: dict[str, Any]) -> None:
    text = {f"mlomae.{key}": value if isinstance(value, str) else json.dumps(value) for key, value in meta.items()}
    if fmt == "timm":
        new.mkdir()
        (new / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if fmt in ("timm", "safetensors"):
        save_file(tensors, new / "model.safetensors" if fmt == "timm" else new, metadata={"format": "pt", **text})
    else:
        torch.save({"state_dict": {f"backbone.{k}": v for k, v in tensors.items()}, "meta": meta}, new)


def _replace(
    checkpoint: Path, out: Path, fmt: str, tensors: State, meta: dict[str, Any], config: dict[str, Any]
) -> str:
    """Write to a temporary folder next to ``out``, read back, compare, rename; an earlier export stays until then.

    Returns what `_carry_digests` does. ``out`` is owned meanwhile, so that weights and digests are of one checkpoint.
    """
    try:
        with (
            owned(out, out.parent / f".{out.name}.lock"),
            tempfile.TemporaryDirectory(prefix=f"{hidden_name(out.name)}.", suffix=".tmp", dir=out.parent) as folder,
        ):
            new, old = Path(folder) / out.name, Path(folder) / "old"
            _write(new, fmt, tensors, meta, config)
            written = read_weights(new).encoder
            wrong = [k for k in tensors if k not in written or not _same_bits(written[k], tensors[k])]
            if wrong or len(written) != len(tensors):
                raise CheckpointError(f"'{out}' reads back differently ({wrong[:1]}); check the disk and export again")
            if out.is_dir():  # a folder cannot replace a full folder in one step
                os.replace(out, old)
            try:
                os.replace(new, out)
            except OSError:
                if old.exists():
                    os.replace(old, out)
                raise
            return _carry_digests(checkpoint, out)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise _cannot_write(out, error) from error


def _cannot_write(out: Path, error: Exception) -> CheckpointError:
    reason = getattr(error, "strerror", None) or first_line_of(error)
    return CheckpointError(f"export '{out}' cannot be written ({reason}); free space or choose another")


def _carry_digests(checkpoint: Path, out: Path) -> str:
    """Copy the digests of the images that a checkpoint was trained on to its export; the line of the report."""
    known, target = digests_path(checkpoint), out / FILE if out.is_dir() else out.with_suffix(f".{FILE}")
    try:
        if known is None:
            target.unlink(missing_ok=True)  # of an earlier export
            return "  the images it was trained on are not known"
        with replacing(target) as temporary:
            shutil.copyfile(known, temporary)
    except OSError as error:
        raise _cannot_write(target, error) from error
    return f"  '{target.name}' tells the images it was trained on"


def export(checkpoint: str | Path, out: str | Path, fmt: str) -> str:
    """Write the encoder of a training checkpoint to ``out`` and return a key-for-key report.

    Args:
        checkpoint: a file, or the folder of a run, whose newest checkpoint is taken.
        out: an earlier export there is replaced.
        fmt: "safetensors" (a file; name, model section and the checkpoint's SHA-256 in its metadata), "timm" (a folder
            for ``timm.create_model("local-dir:OUT", pretrained=True)``), "mmseg" or "mmdet" (a .pth whose keys begin
            with ``backbone.``).

    The digests of the images that the encoder was trained on go along: ``images.npz`` in the folder, or a file of the
    export's name that ends in ``.images.npz``. Transfers compare their test images with them.

    Raises CheckpointError for an unknown format, an unreadable file or one of another kind, an encoder that the
    checkpoint's own config does not describe, a failed write; InUse if another process exports to ``out``.
    """
    out = Path(out)
    _check_target(out, fmt)
    path = newest_checkpoint(Path(checkpoint))
    content = load_checkpoint(path, schema=Weights)
    config, about, state = content["config"], content["meta"], content["modules"].get("mae", {})
    check_structure(config, _Exported, f"checkpoint '{path}', config:", "use one that `mlomae pretrain` wrote")
    declared = config["model"]
    tensors = {k.removeprefix("encoder."): v.contiguous().clone() for k, v in state.items() if k.startswith("encoder.")}
    try:
        check_declared(path, declared, state)
        encoder = create_encoder(**{key: declared[key] for key in ("size", *_SHAPE, "norm_eps") if key in declared})
        load_strict(encoder, tensors)
    except MlomaeError as error:
        raise CheckpointError(f"checkpoint '{path}' contradicts its own config: {error}") from error

    model = {"size": declared.get("size", "base"), **{key: getattr(encoder, key) for key in _SHAPE}}
    augment = config.get("data", {}).get("augment") or {}
    statistics = {key: augment[key] for key in ("mean", "std") if key in augment}
    meta = {
        "name": str(about.get("name", path.stem)),
        "model": model,
        "source_sha256": sha256(path),
        "iteration": int(content["iteration"]),
    }
    # what tells pretrainings, their seeds and versions of the code apart, as far as the checkpoint has it
    if "method" in config and "seed" in config:
        meta |= {"method": config["method"], "seed": config["seed"], "config_hash": config_hash(strip_paths(config))}
    meta |= {key: about[key] for key in ("numerics", "data") if key in about}
    images = _replace(path, out, fmt, tensors, meta, timm_config(model, **statistics))

    bits = f"equal bit for bit to '{path}' ({meta['source_sha256']})"
    prefix = "backbone." if _SUFFIX[fmt] == ".pth" else ""
    lines = [f"{fmt} export '{out}': {len(tensors)} tensors, {bits}"]
    lines += [f"  mae.encoder.{k} -> {prefix}{k} {tuple(v.shape)}" for k, v in tensors.items()]
    for name, module in content["modules"].items():
        dropped = {k: v for k, v in module.items() if name != "mae" or not k.startswith("encoder.")}
        lines += [f"  {name}.{k} dropped {tuple(v.shape)}" for k, v in dropped.items()]
    return "\n".join([*lines, images])
