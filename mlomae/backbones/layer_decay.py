"""Layer-wise learning rates: every parameter's layer, and the optimizer's groups.

The rule of BEiT and MAE (facebookresearch/mae, util/lr_decay.py): embeddings are layer 0, block i is layer i + 1,
norms and head are the last layer, depth + 1; a layer's rate is lr · decay^(depth + 1 - layer). timm's
``param_groups_layer_decay`` differs in one place: it counts a final ``norm`` to the last block (a backbone with
``fc_norm`` has none, and then the two agree, which the tests hold us to).
"""

import re
from typing import Any

from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mlomae.common.errors import ConfigError

_STEM = re.compile(r"(cls_token|reg_token|pos_embed)$|patch_embed\.|norm_pre\.")
_BLOCK = re.compile(r"blocks\.(\d+)\.")


def layer_of(name: str, depth: int) -> int:
    """The layer, 0 to ``depth`` + 1, of a parameter by its timm name; other names belong to the head."""
    if _STEM.match(name):
        return 0
    block = _BLOCK.match(name)
    return int(block[1]) + 1 if block else depth + 1


def _vit_prefix(model: nn.Module) -> str:
    """Where in ``model`` its one plain ViT is: "", or its name and a dot; ConfigError if there is none or more."""
    found = [name for name, module in model.named_modules() if isinstance(module, VisionTransformer)]
    if len(found) != 1:
        raise ConfigError(f"layer decay needs a model with one plain ViT (timm's VisionTransformer), not {len(found)}")
    return f"{found[0]}." if found[0] else ""


def layer_decay_groups(
    model: nn.Module, lr: float, weight_decay: float = 0.05, layer_decay: float = 0.75
) -> list[dict[str, Any]]:
    """Optimizer groups of the trainable parameters, from the stem to the head, two a layer at most.

    ``model``: a ViT, or a model that has one somewhere (a segmentor, a detector), whose other parts count as head.

    A group has ``params``, ``lr`` (= ``lr`` · scale), ``weight_decay`` (0 for vectors, cls_token, pos_embed), and for
    the reader ``name``, ``layer``, ``scale``, ``param_names``. The key is not timm's ``lr_scale``: timm's schedulers
    would multiply it in again.
    Raises ConfigError for a rate or decay out of range and if nothing is trainable.
    """
    if lr <= 0 or weight_decay < 0 or not 0 < layer_decay <= 1:
        raise ConfigError(
            f"lr={lr} must be positive, weight_decay={weight_decay} not negative, layer_decay={layer_decay} in (0, 1]"
        )
    prefix = _vit_prefix(model)
    vit: Any = model.get_submodule(prefix.removesuffix("."))
    depth = len(vit.blocks)
    exempt = vit.no_weight_decay()
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        inside = name.startswith(prefix)
        layer = layer_of(name.removeprefix(prefix), depth) if inside else depth + 1
        plain = parameter.ndim <= 1 or (inside and name.removeprefix(prefix) in exempt)
        scale = layer_decay ** (depth + 1 - layer)
        fresh = {
            "name": f"layer_{layer}_{'no_decay' if plain else 'decay'}",
            "layer": layer,
            "scale": scale,
            "lr": lr * scale,
            "weight_decay": 0.0 if plain else weight_decay,
            "params": [],
            "param_names": [],
        }
        group = groups.setdefault((layer, plain), fresh)
        group["params"].append(parameter)
        group["param_names"].append(name)
    if not groups:
        raise ConfigError("the model has no trainable parameter; fine-tuning needs an unfrozen backbone")
    return [groups[key] for key in sorted(groups)]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TimmLayerDecay:
    """`layer_decay_groups` for configs of MMEngine's own: mmseg's and mmdet's constructors know no timm names.

    ``optim_wrapper``: dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=..., weight_decay=...),
    constructor="TimmLayerDecay", paramwise_cfg=dict(layer_decay=0.65)). Raises ConfigError for another option, or
    without a rate, besides what `layer_decay_groups` raises.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        self.wrapper, self.options = dict(optim_wrapper_cfg), dict(paramwise_cfg or {})
        if unknown := sorted(set(self.options) - {"layer_decay"}):
            raise ConfigError(f"TimmLayerDecay has no option '{unknown[0]}'; it takes layer_decay")
        if "lr" not in self.wrapper.get("optimizer", {}):
            raise ConfigError("TimmLayerDecay needs the rate of the head; set optim_wrapper.optimizer.lr")

    def __call__(self, model: nn.Module) -> Any:
        optimizer = dict(self.wrapper["optimizer"])
        groups = layer_decay_groups(model, optimizer["lr"], optimizer.get("weight_decay", 0.0), **self.options)
        built = OPTIMIZERS.build({**optimizer, "params": groups})
        return OPTIM_WRAPPERS.build({"type": "OptimWrapper", **self.wrapper, "optimizer": built})
