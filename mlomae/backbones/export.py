"""Export a model for other libraries: `mlomae.backbones.export_formats` has the formats.

Of a pretraining the encoder is written, with the decoder if the format has a place for it; mask and feedback networks
stay in the training checkpoint. Everything is written to a temporary name, read back, compared (weights bit for bit,
graphs by what they compute), then renamed.
"""

import os
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mlomae.backbones.export_formats import FORMATS, Format
from mlomae.backbones.export_source import Source, read_source
from mlomae.backbones.load import LoadedTransfer
from mlomae.common.atomic import hidden_name, replacing
from mlomae.common.errors import CheckpointError, counted, first_line_of
from mlomae.common.ownership import owned
from mlomae.data.copies import FILE, digests_path
from mlomae.models.weights import read_weights


def _same_bits(a: Tensor, b: Tensor) -> bool:
    raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*raw)


def format_named(fmt: str) -> Format:
    """The format; CheckpointError, listing all, for another name."""
    if fmt not in FORMATS:
        raise CheckpointError(f"unknown export format '{fmt}'; choose one of {', '.join(FORMATS)}")
    return FORMATS[fmt]


def _check_target(out: Path, fmt: str, kept: tuple[str, ...] = ()) -> None:
    """``kept``: files that may be in the folder besides those of the format."""
    suffix, names = format_named(fmt).suffix, {*FORMATS[fmt].names, *kept, FILE}
    if suffix and (out.suffix != suffix or out.is_dir()):
        raise CheckpointError(f"export target '{out}' must be a file ending in {suffix} for format {fmt}; rename it")
    if not suffix and out.exists() and (not out.is_dir() or {p.name for p in out.iterdir()} - names):
        raise CheckpointError(f"export target '{out}' holds other things; name a new folder for format {fmt}")


def _check_written(source: Source, new: Path, out: Path, fmt: str) -> None:
    """Raise CheckpointError unless the file at ``new`` has the weights of ``source``, bit for bit."""
    written = read_weights(new)
    own = {key: value for key, value in source.state.items() if not key.startswith("head.")}
    pairs = [(own, written.encoder)] + ([(source.decoder, written.decoder)] if fmt.endswith("-mae") else [])
    for tensors, found in pairs:
        wrong = [k for k in tensors if k not in found or not _same_bits(found[k], tensors[k])]
        if wrong or len(found) != len(tensors):
            raise CheckpointError(f"'{out}' reads back differently ({wrong[:1]}); check the disk and export again")


def _replace(source: Source, out: Path, fmt: str, kept: tuple[str, ...]) -> str:
    """Write to a temporary folder next to ``out``, read back, compare, rename; an earlier export stays until then.

    Returns what `_carry_digests` does. ``out`` is owned meanwhile, so that weights and digests are of one checkpoint.
    """
    try:
        with (
            owned(out, out.parent / f".{out.name}.lock"),
            tempfile.TemporaryDirectory(prefix=f"{hidden_name(out.name)}.", suffix=".tmp", dir=out.parent) as folder,
        ):
            new, old = Path(folder) / out.name, Path(folder) / "old"
            FORMATS[fmt].write(source, new)
            if not FORMATS[fmt].graph:
                _check_written(source, new, out, fmt)
            if out.is_dir():  # a folder cannot replace a full folder in one step
                for name in kept:
                    if (out / name).is_file():
                        shutil.copy2(out / name, new / name)
                os.replace(out, old)
            try:
                os.replace(new, out)
            except OSError:
                if old.exists():
                    os.replace(old, out)
                raise
            return _carry_digests(source.path, out)
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
            return "the images it was trained on are not known"
        with replacing(target) as temporary:
            shutil.copyfile(known, temporary)
    except OSError as error:
        raise _cannot_write(target, error) from error
    return f"'{target.name}' tells the images it was trained on"


def export(
    checkpoint: str | Path | LoadedTransfer,
    out: str | Path,
    fmt: str,
    *,
    pooling: str | None = None,
    num_heads: int | None = None,
) -> str:
    """Write the model of a checkpoint, or weights of any layout, to ``out``; returns a summary with the line that
    loads it.

    Args:
        checkpoint: of a pretraining, whose encoder is taken, or of a fine-tuning, whose classifier is; the folder of a
            run, whose newest checkpoint is; what `load_transfer` has read; or what `create_backbone` takes but names
            of timm.
        out: an earlier export there is replaced.
        fmt: "safetensors" (a file; name, model section and the checkpoint's SHA-256 in its metadata), "timm" (a folder
            for ``timm.create_model("local-dir:OUT", pretrained=True)``), "huggingface" and "huggingface-mae" (folders
            for ViTModel or ViTForImageClassification, and for ViTMAEForPreTraining with the decoder), "openmmlab"
            (a .pth for mmpretrain), "mmseg" and "mmdet" (the same for this package's FeatureViT, whose keys begin with
            ``backbone.`` and have timm's names), "onnx" and "torch-export" (what computes features or logits).
        pooling: "avg" or "token", of the features of a graph; by default that of the model's numbers.
        num_heads: of weights that do not say it.

    The digests of the images that the model was trained on go along: ``images.npz`` in the folder, or a file of the
    export's name that ends in ``.images.npz``. Transfers compare their test images with them.

    Raises CheckpointError for an unknown format, an unreadable file or one of another kind, an encoder that the
    checkpoint's own config does not describe, a model that the format has no place for, a failed write; BackendError
    for a library that the format needs; InUse if another process exports to ``out``.
    """
    out = Path(out)
    source, images = write_export(checkpoint, out, fmt, pooling=pooling, num_heads=num_heads)
    return "\n".join(summary(source, out, fmt, images))


def write_export(
    checkpoint: str | Path | LoadedTransfer,
    out: Path,
    fmt: str,
    *,
    pooling: str | None = None,
    num_heads: int | None = None,
    kept: tuple[str, ...] = (),
) -> tuple[Source, str]:
    """As `export`; what was exported, and what is known of its images. ``kept``: files that may be in the folder
    besides those of the format, and stay there."""
    _check_target(out, fmt, kept)
    source = read_source(checkpoint, num_heads)
    if pooling is not None and pooling != source.pooling:
        if source.classes or not isinstance(source.vit.fc_norm, nn.Identity):
            raise CheckpointError(f"'{source.path}' was fine-tuned with pooling '{source.pooling}'; leave pooling out")
        source.pooling = pooling
    out.parent.mkdir(parents=True, exist_ok=True)
    return source, _replace(source, out, fmt, kept)


def summary(source: Source, out: Path, fmt: str, images: str) -> list[str]:
    """What was written, from what, and the line that loads it."""
    state, form = source.state, FORMATS[fmt]
    size = sum(tensor.numel() for tensor in state.values()) / 1e6
    what = f"a classifier of {counted(len(source.classes), 'class')}" if source.classes else "an encoder"
    how = "computes the same as" if form.graph else "equal bit for bit to" if source.own else "the weights of"
    left = dict(source.left_out)
    if source.decoder and not fmt.endswith("-mae"):
        left["decoder"] = len(source.decoder)
    pool = {"avg": "the mean of the patch tokens", "token": "the class token"}[source.pooling]
    numbers = "it classifies" if source.classes else "its numbers were measured on" if source.own else "features of"
    lines = [
        f"written   {out}: {fmt}, {what}, {counted(len(state), 'tensor')}, {size:,.2f} M parameters",
        f"          {how} '{source.path}' ({source.meta['source_sha256'][:16]})",
        f"pooling   {numbers} {pool}" + ("" if source.classes else f" (global_pool='{source.pooling}')"),
        f"images    {images}",
    ]
    if left:
        lines.append("left out  " + ", ".join(f"{counted(count, 'tensor')} of {name}" for name, count in left.items()))
    eps = source.meta["model"].get("norm_eps")
    if fmt == "timm" and eps:
        lines.append(f"note      layer norms have an epsilon of {eps:g}, which timm's config cannot say: there 1e-6")
    return [*lines, f"load      {load_line(source, out, fmt)}"]


def load_line(source: Source, out: str | Path, fmt: str) -> str:
    """What a user types to load the export."""
    place = str(out)
    plain = not source.classes and isinstance(source.vit.fc_norm, nn.Identity)
    words = {
        "out": place,
        "local": place if place.startswith("hf-hub:") else f"local-dir:{place}",
        "pool": f", global_pool={source.pooling!r}" if plain else "",
        "model": "ViTForImageClassification" if source.classes else "ViTModel",
        "more": "" if source.classes else ", add_pooling_layer=False",
    }
    return FORMATS[fmt].load.format(**words)
