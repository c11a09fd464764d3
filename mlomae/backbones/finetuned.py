"""A fine-tuned classifier as a file: read from a run, a checkpoint or a timm folder, and written as a timm folder.

A timm folder, ``config.json`` and ``model.safetensors``, holds the whole classifier with the names of its classes and
the pixels it wants: ``timm.create_model("local-dir:FOLDER", pretrained=True)`` is the model.

Shape suffixes: B batch, C classes, H height, W width.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mlomae.backbones.create import create_backbone
from mlomae.common.atomic import replacing, write_text
from mlomae.common.checkpoint import (
    TRANSFER_FORMAT,
    OtherCheckpoint,
    Weights,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    trained_backbone,
)
from mlomae.common.errors import CheckpointError, MlomaeError
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD
from mlomae.models.architecture import read_encoder
from mlomae.models.loading import create_timm, load_strict
from mlomae.models.weights import weights_of

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PREPARED = ("crop_pct", "crop_mode", "mean", "std", "interpolation")
"""What a classifier says of how its images are prepared, by timm's names."""


@dataclass
class FineTuned:
    """A classifier that is ready for new images.

    Attributes:
        name: what messages call it.
        model: (B, 3, H, W) normalised -> logits (B, C); in evaluation mode, on the CPU.
        classes: C names.
        img_size: (height, width) in pixels.
        evaluate: how its images are prepared: `PREPARED`.
    """

    name: str
    model: nn.Module
    classes: list[str]
    img_size: tuple[int, int]
    evaluate: dict[str, Any]

    @torch.no_grad()
    def logits(self, images_BCHW: Tensor) -> Tensor:
        """(B, C) float32, on the images' device."""
        return self.model(images_BCHW).float()


def model_place(path: Path) -> Path:
    """``path``, or of the weights in a timm folder that folder."""
    return path.parent if path.name == WEIGHTS and (path.parent / CONFIG).is_file() else path


def is_timm_folder(path: Path) -> bool:
    return (path / CONFIG).is_file() and not list_checkpoints(path)


def read_finetuned(path: str | Path) -> FineTuned:
    """The classifier of a fine-tuning: its run's folder, a checkpoint of it, or a folder that timm reads.

    Raises CheckpointError for a file that cannot be read, or holds no classifier.
    """
    path = model_place(Path(path))
    if is_timm_folder(path):
        return _from_timm(path)
    path = newest_checkpoint(path)
    return finetuned_of(path, load_transfer_state(path))


def architecture_of(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    """The model section of the fine-tuned backbone in the ``state`` that the checkpoint at ``path`` holds."""
    return read_encoder(weights_of(path, state))[1].section()


def load_transfer_state(path: Path) -> dict[str, Any]:
    """What the checkpoint of a transfer holds. Raises CheckpointError for another file, with a remedy if it is of a
    pretraining."""
    if path.suffix == ".safetensors":
        raise CheckpointError(
            f"'{path}' holds weights without what they are for; give the folder of the run, or a folder of `mlomae "
            "export --format timm`"
        )
    try:
        return load_checkpoint(path, TRANSFER_FORMAT, Weights)
    except OtherCheckpoint as error:
        raise CheckpointError(
            f"'{path}' is a pretraining, which tells no classes apart; fine-tune it first: mlomae classify --data "
            f"FOLDER --weights {path}"
        ) from error


def finetuned_of(path: Path, state: dict[str, Any]) -> FineTuned:
    """The classifier in the ``state`` that the checkpoint at ``path`` holds; CheckpointError if it has none."""
    if "backbone" not in state["modules"]:
        kind = state["config"].get("protocol", "dense")
        raise CheckpointError(f"'{path}' is of a transfer ({kind}) that fine-tunes no classifier; give another")
    config, meta = state["config"], state["meta"]
    weights, _ = trained_backbone(state["modules"])
    section, data = config["backbone"], config["data"]
    size = section["img_size"]
    img_size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    classes = len(weights["head.bias"])
    try:
        pooling = section.get("global_pool", "avg")
        shape = architecture_of(path, state)
        model, _ = create_backbone("random", model=shape, num_classes=classes, img_size=img_size, global_pool=pooling)
        load_strict(model, weights)
    except MlomaeError as error:
        raise CheckpointError(f"checkpoint '{path}' contradicts its own config: {error}") from error
    names = list(meta.get("classes") or [f"class {i}" for i in range(classes)])
    return FineTuned(str(meta.get("name", path.stem)), model.eval(), names, img_size, dict(data.get("evaluate") or {}))


def _from_timm(folder: Path) -> FineTuned:
    model = create_timm(f"local-dir:{folder}", pretrained=True)
    known = model.pretrained_cfg
    if not model.num_classes:
        raise CheckpointError(f"'{folder}' is a backbone without classes; fine-tune it first with `mlomae classify`")
    names = list(known.get("label_names") or [f"class {i}" for i in range(model.num_classes)])
    _, height, width = known["input_size"]
    evaluate = {key: known[key] for key in PREPARED if known.get(key) is not None}
    return FineTuned(folder.name, model.eval(), names, (height, width), evaluate)


def _shape(model: VisionTransformer) -> dict[str, Any]:
    """The arguments of timm's VisionTransformer that build this one, as far as they are not the usual ones."""
    block: Any = model.blocks[0]
    height, width = model.patch_embed.img_size
    shape: dict[str, Any] = {
        "img_size": height if height == width else [height, width],
        "patch_size": int(model.patch_embed.patch_size[0]),
        "embed_dim": int(model.embed_dim),
        "depth": len(model.blocks),
        "num_heads": int(block.attn.num_heads),
        "mlp_ratio": block.mlp.fc1.out_features / model.embed_dim,
    }
    if registers := int(getattr(model, "num_reg_tokens", 0)):
        shape |= {"reg_tokens": registers, "no_embed_class": bool(model.no_embed_class)}
    if block.attn.qkv.bias is None:
        shape["qkv_bias"] = False
    if not isinstance(block.ls1, nn.Identity):
        shape["init_values"] = 1.0  # there is a layer scale; the weights have its values
    return shape


def timm_config(
    model: VisionTransformer, classes: list[str], evaluate: dict[str, Any], pooling: str | None = None
) -> dict[str, Any]:
    """``config.json`` of a timm folder with ``model``, whose classes, if any, have names.

    ``evaluate``: how its images are prepared, as in `FineTuned`; what it leaves out is as in
    `mlomae.classification.augment.eval_transform`, and for a backbone the whole image. ``pooling``: that with which
    the numbers of a backbone were measured.
    """
    height, width = model.patch_embed.img_size
    usual: dict[str, Any] = {
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "interpolation": "bicubic",
        "crop_mode": "center",
    }
    usual["crop_pct"] = 0.875 if classes else 1.0
    pixels = {key: evaluate.get(key, value) for key, value in usual.items()}
    pool, plain = str(model.global_pool), isinstance(model.fc_norm, nn.Identity)
    args = {**_shape(model), "global_pool": pool}
    if plain and not isinstance(model.norm, nn.Identity):
        args["fc_norm"] = False  # so that averaged tokens are normed as they were: timm's default is a norm after it
    described = {"description": f"Its numbers were measured with global_pool={pooling!r}."} if pooling else {}
    return {
        "architecture": "vit_base_patch16_224",  # which model_args override
        "num_classes": model.num_classes,
        "num_features": model.embed_dim,
        "global_pool": pool,
        "model_args": args,
        **({"label_names": list(classes)} if classes else {}),
        "pretrained_cfg": {
            "tag": "mlomae",
            "custom_load": False,
            "input_size": [3, height, width],
            "fixed_input_size": True,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in pixels.items()},
            "num_classes": model.num_classes,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            **described,
        },
    }


def save_timm_folder(model: VisionTransformer, classes: list[str], evaluate: dict[str, Any], folder: Path) -> None:
    """Write a fine-tuned ViT into ``folder``, beside whatever else it holds; arguments as `timm_config`."""
    config = timm_config(model, classes, evaluate)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(tensors, metadata={"format": "pt"}))  # its save_file would make it the owner's alone
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
