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

from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mlomae.common.checkpoint import list_checkpoints
from mlomae.common.errors import CheckpointError, ConfigError, MlomaeError
from mlomae.common.random_keys import root_key
from mlomae.common.registry import check_choice, check_range
from mlomae.models import create_encoder
from mlomae.models.loading import LoadReport, create_timm, load_strict, matches
from mlomae.models.vit import check_geometry, check_heads, sincos_positions
from mlomae.models.weights import Architecture, State, check_model_section, read_encoder, read_weights

SPEC = "a path of weights, of a run or of a timm folder, timm:NAME, timm:NAME:pretrained, random, or random:PATH"
POOLS = ("avg", "token")
_HEADS = ("head.*", "attn_pool.*")  # another task's classifier; ours is fresh
_FRESH = ("head.*", "fc_norm.*")
_DROPPED = ("decoder.*", "decoder_*", "mask_token", "fc_norm.*")


def has_fresh_norm(backbone: VisionTransformer) -> bool:
    """Whether the norm comes after the pooling (``fc_norm``), so that tokens are not normed."""
    return isinstance(backbone.norm, nn.Identity) and not isinstance(backbone.fc_norm, nn.Identity)


def _load(backbone: VisionTransformer, state: State, grid: tuple[int, int] | None) -> LoadReport:
    """Strictly load ``state``, whose positions have ``grid`` (rows, columns), into ``backbone``."""
    heads = [key for key in state if matches(key, _HEADS)]
    state = {key: value for key, value in state.items() if key not in heads}
    notes = []
    target = backbone.patch_embed.grid_size
    if "pos_embed" in state and grid != target and grid is not None:
        prefix = 0 if backbone.no_embed_class else backbone.num_prefix_tokens
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], list(target), list(grid), prefix)
        notes.append(f"pos_embed: grid {grid[0]}x{grid[1]} interpolated to {target[0]}x{target[1]}")
    dropped: tuple[str, ...] = _DROPPED
    if has_fresh_norm(backbone):
        dropped += ("norm.*",)
        if "norm.weight" in state:
            notes.append("norm: dropped; a fresh fc_norm is trained after average pooling (keep_norm=True keeps it)")
    report = load_strict(backbone, state, allow_missing=_FRESH, allow_unexpected=dropped)
    report.unexpected += heads
    report.notes += notes
    return report


def _plain_vit(architecture: Architecture, state: State | None, **options: Any) -> tuple[VisionTransformer, LoadReport]:
    """A ViT with the weights ``state``; None for those that pretraining starts from: Xavier-uniform layers and the
    sin-cos table of the grid."""
    for length in options["img_size"]:
        check_geometry(length, architecture.patch_size)  # timm would silently cut off a remainder of the image
    shape = {key: getattr(architecture, key) for key in ("patch_size", "embed_dim", "depth", "num_heads")}
    backbone = VisionTransformer(**shape, mlp_ratio=architecture.mlp_ratio, weight_init="skip", **options)
    if state is not None:
        return backbone, _load(backbone, state, architecture.grid)
    initial = create_encoder(img_size=architecture.patch_size, **shape).state_dict()
    initial["pos_embed"] = sincos_positions(architecture.embed_dim, backbone.patch_embed.grid_size)
    if has_fresh_norm(backbone):
        initial = {key: value for key, value in initial.items() if not key.startswith("norm.")}
    report = load_strict(backbone, initial, allow_missing=_FRESH)
    return backbone, LoadReport(missing=[*report.missing, *report.matched])  # nothing came from a file


def _from_timm(name: str, pretrained: bool, **options: Any) -> tuple[VisionTransformer, LoadReport]:
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
    report = _load(backbone, source.state_dict(), source.patch_embed.grid_size)
    report.pixels = {key: source.pretrained_cfg[key] for key in ("mean", "std")}
    return backbone, report


def _is_export(folder: Path) -> bool:
    try:
        return read_weights(folder).layout == "export"
    except CheckpointError:
        return False


def _dispatch(spec: str, model: dict[str, Any] | None, **options: Any) -> tuple[VisionTransformer, LoadReport]:
    if spec == "random":
        given = check_model_section(model)
        if missing := [key for key in ("embed_dim", "depth", "num_heads") if key not in given]:
            raise ConfigError(f"backbone 'random' needs model.{missing[0]}; give model=dict(size=..., patch_size=...)")
        check_heads("backbone 'random'", given["embed_dim"], given["num_heads"])  # timm would assert
        backbone, report = _plain_vit(Architecture(**{"patch_size": 16, **given}), None, **options)
        report.notes.append("random weights")
        return backbone, report
    fresh, name = spec.startswith("random:"), spec.removeprefix("random:")
    path, pretrained = Path(name), not fresh
    if name.startswith("timm:"):
        pretrained = not fresh and name.endswith(":pretrained")
        name = name.removeprefix("timm:").removesuffix(":pretrained")
    elif not path.exists():
        raise CheckpointError(f"backbone '{spec}' does not exist; give {SPEC}")
    elif path.is_file() or list_checkpoints(path) or _is_export(path):  # an export says all that timm needs
        state, architecture, notes = read_encoder(path, model)
        backbone, report = _plain_vit(architecture, None if fresh else state, **options)
        if fresh:
            report.notes.append(f"random weights of the architecture of '{path}'")
        report.notes += notes
        return backbone, report
    elif not (path / "config.json").is_file():
        raise CheckpointError(f"folder '{path}' holds no config.json; give a run, a timm folder or a file of weights")
    else:
        name = f"local-dir:{name}"
    if model:
        raise ConfigError(f"backbone '{spec}' names its architecture; leave model out")
    return _from_timm(name, pretrained, **options)


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
        model: size, patch_size, embed_dim, depth, num_heads; for files it is checked against the weights.
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
