"""What an export is made from: a pretraining's encoder, a fine-tuned classifier, or weights of any other layout."""

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

from timm.models.vision_transformer import VisionTransformer

from mlomae.backbones.finetuned import PREPARED, FineTuned, finetuned_of, read_finetuned
from mlomae.backbones.load import LoadedTransfer
from mlomae.common.checkpoint import TRANSFER_FORMAT, Weights, format_of, load_checkpoint
from mlomae.common.errors import CheckpointError, MlomaeError, first_names
from mlomae.common.structure import Number, check_structure
from mlomae.models import create_encoder
from mlomae.models.architecture import Architecture, check_declared, read_encoder, section_of
from mlomae.models.layouts import State
from mlomae.models.loading import load_strict
from mlomae.models.places import locate, sha256
from mlomae.models.plain import plain_vit
from mlomae.models.vit import NORM_EPS
from mlomae.models.weights import ModelSection
from mlomae.records import config_hash, strip_paths

SHAPE = ("img_size", "patch_size", "embed_dim", "depth", "num_heads")


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


@dataclass
class Source:
    """What is exported.

    Attributes:
        path: the file that it was read from.
        vit: the model, with its final norm and, of a classifier, with its head; in evaluation mode, on the CPU.
        meta: what the export says of itself: name, model, source_sha256, and method, seed, ... of a pretraining.
        pooling: "avg" or "token": that of the numbers in our records, of a classifier the only one.
        own: whether it is of a run of ours, so that there are such numbers.
        pixels: mean, std and, of a classifier, the rest of `PREPARED`.
        classes: names of the classes of a classifier.
        decoder: of a pretraining, by our names, with its section: widths and ``norm_pix_loss``.
        left_out: tensors of the file that are not exported, by module.
    """

    path: Path
    vit: VisionTransformer
    meta: dict[str, Any]
    pooling: str = "avg"
    pixels: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    decoder: State = field(default_factory=dict)
    decoder_section: dict[str, Any] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    own: bool = True

    @cached_property
    def state(self) -> State:
        """All weights of the model, by timm's names."""
        return {key: value.detach().contiguous().clone() for key, value in self.vit.state_dict().items()}


def read_source(spec: str | Path | LoadedTransfer, num_heads: int | None = None) -> Source:
    """Read a checkpoint of a pretraining or a fine-tuning, a run's folder, or weights as `locate` takes them. What
    `load_transfer` has read is not read again.

    ``num_heads``: of weights that do not say it. Raises CheckpointError for what cannot be read, is no plain ViT, or
    contradicts its own configuration.
    """
    if isinstance(spec, LoadedTransfer):
        return _from_classifier(spec.path, finetuned_of(spec.path, spec.state))
    path, _ = locate(spec)
    if not path.is_file():
        raise CheckpointError(f"checkpoint '{path}' does not exist; give one, a run's folder or a file of weights")
    kind = format_of(path)
    if kind == TRANSFER_FORMAT:
        return _from_classifier(path, read_finetuned(path))
    if kind is not None:
        return _from_pretraining(path)
    if Path(spec).is_dir() and _has_classes(Path(spec)):
        return _from_classifier(path, read_finetuned(spec))
    return _from_weights(spec, path, num_heads)


def _has_classes(folder: Path) -> bool:
    """Whether it is a classifier of timm's."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return "architecture" in config and int(config.get("num_classes", 0)) > 0
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _from_pretraining(path: Path) -> Source:
    content = load_checkpoint(path, schema=Weights)
    config, about, modules = content["config"], content["meta"], content["modules"]
    state = modules.get("mae", {})
    check_structure(config, _Exported, f"checkpoint '{path}', config:", "use one that `mlomae pretrain` wrote")
    declared = config["model"]
    tensors = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    try:
        check_declared(path, declared, state)
        encoder = create_encoder(**{key: declared[key] for key in ("size", *SHAPE, "norm_eps") if key in declared})
        load_strict(encoder, tensors)
    except MlomaeError as error:
        raise CheckpointError(f"checkpoint '{path}' contradicts its own config: {error}") from error
    shape = {key: getattr(encoder, key) for key in SHAPE}
    model = {"size": declared.get("size", "base"), **shape}
    model |= {} if encoder.norm_eps == NORM_EPS else {"norm_eps": encoder.norm_eps}
    meta = {**_identity(str(about.get("name", path.stem)), model, path), "iteration": int(content["iteration"])}
    # what tells pretrainings, their seeds and versions of the code apart, as far as the checkpoint has it
    if "method" in config and "seed" in config:
        meta |= {"method": config["method"], "seed": config["seed"], "config_hash": config_hash(strip_paths(config))}
    meta |= {key: about[key] for key in ("numerics", "data") if key in about}
    size = shape.pop("img_size")
    architecture = Architecture(**shape, grid=encoder.grid, norm_eps=encoder.norm_eps)
    vit, _ = plain_vit(architecture, encoder.state_dict(), num_classes=0, img_size=(size, size), global_pool="token")
    augment = config.get("data", {}).get("augment") or {}
    decoder = {k.removeprefix("decoder."): v for k, v in state.items() if k.startswith("decoder.")}
    return Source(
        path,
        vit.eval(),
        meta,
        pixels={key: list(augment[key]) for key in ("mean", "std") if key in augment},
        decoder=decoder,
        decoder_section={k: v for k, v in declared.items() if k.startswith("decoder_") or k == "norm_pix_loss"},
        left_out=Counter({name: len(module) for name, module in modules.items() if name != "mae" and module}),
    )


def _from_classifier(path: Path, tuned: FineTuned) -> Source:
    vit: Any = tuned.model
    height, width = tuned.img_size
    model = {**section_of(vit), "img_size": height} if height == width else section_of(vit)
    pixels = {key: tuned.evaluate[key] for key in PREPARED if key in tuned.evaluate}
    return Source(path, vit, _identity(tuned.name, model, path), str(vit.global_pool), pixels, tuned.classes)


def _from_weights(spec: str | Path, path: Path, num_heads: int | None) -> Source:
    file, architecture, _ = read_encoder(spec, {"num_heads": num_heads} if num_heads else None)
    rows, columns = architecture.grid or (0, 0)
    size = (rows * architecture.patch_size, columns * architecture.patch_size)
    pooled = "norm.weight" not in file.encoder  # a fine-tuned one's fc_norm
    vit, report = plain_vit(
        architecture, file.encoder, num_classes=0, img_size=size, global_pool="avg" if pooled else "token"
    )
    if report.missing:
        raise CheckpointError(f"'{path}' lacks {first_names(report.missing)}; use a whole file")
    model = {**section_of(vit), "img_size": size[0]}
    meta = {**file.about, "model": {**file.about["model"], **model}} if file.layout == "export" else {}
    left = Counter({"other": len(file.left_out), "decoder": len(file.decoder)})
    meta = {**_identity(path.parent.name if path.stem in _NAMELESS else path.stem, model, path), **meta}
    return Source(path, vit.eval(), meta, pixels=file.pixels, left_out=+left, own=file.layout == "export")


_NAMELESS = ("model", "pytorch_model")


def _identity(name: str, model: dict[str, Any], path: Path) -> dict[str, Any]:
    return {"name": name, "model": model, "source_sha256": sha256(path)}
