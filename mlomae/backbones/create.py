"""timm's `VisionTransformer` with a fresh head, from any weights: ours, official MAE, timm's, or none.

`SPEC` says how a backbone is named. Two conventions of MAE's fine-tuning (facebookresearch/mae, main_finetune.py and
models_vit.py) hold for every source, so that rows of a table differ in their weights alone:

- With ``global_pool="avg"`` the pretrained final ``norm`` is dropped (the report says so) and a fresh ``fc_norm``
  after the pooling is trained. ``keep_norm=True`` keeps ``norm`` before the pooling, as in the evaluation of a
  pretraining; the linear and k-NN protocols need this. With ``global_pool="token"`` the norm is always kept.
- Position embeddings are interpolated to the new patch grid (bicubic, antialiased, `resample_abs_pos_embed`), not
  recomputed, and are trained like any parameter, though pretraining keeps them fixed.

The head, and a whole random backbone, are functions of ``seed`` and the shapes, to the bit.
"""

import json
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mlomae.common.checkpoint import list_checkpoints
from mlomae.common.errors import CheckpointError, ConfigError, MlomaeError
from mlomae.common.random_keys import root_key
from mlomae.common.registry import check_choice, check_range
from mlomae.models.architecture import Architecture, check_model_section, read_encoder
from mlomae.models.loading import LoadReport, create_timm
from mlomae.models.places import HUB, weights_path
from mlomae.models.plain import load_vit, plain_vit
from mlomae.models.vit import check_geometry, check_heads
from mlomae.models.weights import read_weights

SPEC = (
    "a file of weights, the folder of a run, of timm or of Hugging Face, hf-hub:OWNER/NAME, timm:NAME, "
    "timm:NAME:pretrained, random, or random:PATH"
)
POOLS = ("avg", "token")


def is_untrained(spec: str) -> bool:
    """Whether ``spec`` names an initialisation: nothing has been pretrained, so no image has been seen."""
    timm = spec.startswith("timm:") and not spec.endswith(":pretrained")
    return timm or spec == "random" or spec.startswith("random:")


def _from_timm(name: str, pretrained: bool, **options: Any) -> tuple[VisionTransformer, LoadReport]:
    if ":" in name and options["fc_norm"] is None:  # the config of a folder may say another one
        options["fc_norm"] = options["global_pool"] == "avg"
    backbone = create_timm(name, **options)
    if type(backbone) is not VisionTransformer:
        raise ConfigError(
            f"timm model '{name}' is a {type(backbone).__name__}; choose a plain ViT (timm's VisionTransformer)"
        )
    for length, patch in zip(options["img_size"], backbone.patch_embed.feat_ratio(as_scalar=False), strict=True):
        check_geometry(length, patch)
    if not pretrained:
        return backbone, LoadReport(missing=list(backbone.state_dict()), notes=[f"timm's initialisation of {name}"])
    source = create_timm(name, pretrained=True)  # timm's own checks and key conversions, at the weights' own size
    report = load_vit(backbone, source.state_dict(), source.patch_embed.grid_size)
    report.pixels = {key: source.pretrained_cfg[key] for key in ("mean", "std")}
    return backbone, report


def _is_timm_folder(folder: Path) -> bool:
    """Whether config.json names an architecture of timm; an export of ours is read without timm, as it says all."""
    if list_checkpoints(folder) or not (folder / "config.json").is_file():
        return False
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return "architecture" in config and read_weights(folder).layout != "export"
    except (ValueError, TypeError, CheckpointError):  # timm will say what is wrong
        return True


def _dispatch(spec: str, model: dict[str, Any] | None, **options: Any) -> tuple[VisionTransformer, LoadReport]:
    if spec == "random":
        given = check_model_section(model)
        if missing := [key for key in ("embed_dim", "depth", "num_heads") if key not in given]:
            raise ConfigError(f"backbone 'random' needs model.{missing[0]}; give model=dict(size=..., patch_size=...)")
        check_heads("backbone 'random'", given["embed_dim"], given["num_heads"])  # timm would assert
        backbone, report = plain_vit(Architecture(**{"patch_size": 16, **given}), None, **options)
        report.notes.append("random weights")
        return backbone, report
    fresh, name = spec.startswith("random:"), spec.removeprefix("random:")
    if name.startswith("timm:"):
        if model:
            raise ConfigError(f"backbone '{spec}' names its architecture; leave model out")
        name = name.removeprefix("timm:").removesuffix(":pretrained")
        return _from_timm(name, not is_untrained(spec), **options)
    path, in_folder = weights_path(name), Path(name).is_dir()
    folder = Path(name) if in_folder else path.parent
    if not path.exists() and not in_folder:
        raise CheckpointError(f"backbone '{spec}' does not exist; give {SPEC}")
    if (in_folder or name.startswith(HUB)) and _is_timm_folder(folder):
        if model:
            raise ConfigError(f"backbone '{spec}' names its architecture; leave model out")
        return _from_timm(f"local-dir:{folder}", not fresh, **options)
    if not path.exists():
        raise CheckpointError(f"folder '{path.parent}' holds no weights and no config.json; give {SPEC}")
    file, architecture, notes = read_encoder(name, model)
    backbone, report = plain_vit(architecture, None if fresh else file.encoder, **options)
    if fresh:
        report.notes.append(f"random weights of the architecture of '{name}'")
    else:
        report.unexpected += [*file.left_out, *(f"decoder.{key}" for key in file.decoder)]
        report.pixels = file.pixels
    report.notes += notes
    return backbone, report


def create_backbone(
    spec: str,
    *,
    num_classes: int,
    img_size: int | tuple[int, int],
    drop_path: float = 0.0,
    global_pool: str = "avg",
    model: dict[str, Any] | None = None,
    keep_norm: bool = False,
    dynamic_img_size: bool = False,
    head_std: float = 2e-5,
    seed: int = 0,
) -> tuple[VisionTransformer, LoadReport]:
    """A ViT with a fresh classifier, and the report of what was loaded.

    Args:
        spec: our training checkpoints, exports or fine-tuned backbones, official MAE weights, the folder of a run (its
            newest checkpoint) or of timm; ``timm:NAME`` (timm's initialisation) or ``timm:NAME:pretrained``; ``random``
            (with ``model``) or ``random:PATH`` (of the architecture of a file), both initialised as pretraining is.
        num_classes: 0 for no classifier.
        img_size: pixels; (height, width) if not square.
        drop_path: rate of the last block, rising linearly.
        model: size, patch_size, embed_dim, depth, num_heads, and of rare ViTs mlp_ratio, norm_eps, registers,
            layer_scale, qkv_bias, positions_of_all; for files it is checked against the weights.
        dynamic_img_size: timm's; positions for the grid of each image.
        head_std: of the truncated normal weights of the head; the default is MAE's for fine-tuning.

    Raises ConfigError for options or models that cannot be used, CheckpointError for weights that cannot be read or do
    not fit.
    """
    check_choice("backbone", POOLS, global_pool=global_pool)
    check_range("backbone", "[0, 1)", drop_path=drop_path)
    check_range("backbone", "[0, inf)", num_classes=num_classes)
    size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"image size {img_size} must be a positive number, or a pair (height, width) of them")
    options: dict[str, Any] = {"num_classes": num_classes, "img_size": size, "drop_path_rate": drop_path}
    options |= {"global_pool": global_pool, "fc_norm": False if keep_norm else None}
    options |= {"dynamic_img_size": dynamic_img_size or None}  # timm leaves out options that are None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(root_key(seed, "backbone"))
        try:
            backbone, report = _dispatch(spec, model, **options)
        except MlomaeError as error:
            if spec in str(error):
                raise
            raise type(error)(f"backbone '{spec}': {error}") from error
    if isinstance(backbone.head, nn.Linear):
        generator = torch.Generator().manual_seed(root_key(seed, "head"))
        nn.init.trunc_normal_(backbone.head.weight, std=head_std, generator=generator)
        nn.init.zeros_(backbone.head.bias)
    return backbone, report
