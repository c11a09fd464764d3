"""The layer of every parameter of a whole segmentor: stem, blocks, and all of neck and heads at the full rate."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmseg.models.segmentors import EncoderDecoder
from run_samples import one_line
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from benchmarks.tasks.segmentation import model as model_module
from benchmarks.tasks.segmentation.config import SegmentationConfig
from benchmarks.tasks.segmentation.model import build_segmentor
from mlomae.backbones import feature_vit
from mlomae.backbones import layer_decay as param_groups
from mlomae.backbones.layer_decay import layer_decay_groups
from mlomae.common.errors import ConfigError
from mlomae.models import SIZES
from mlomae.models.loading import LoadReport

CONFIGS = Path(__file__).parents[4] / "configs" / "segmentation"
OUT = {"large": [7, 11, 15, 23]}
BLOCK = (
    *("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "attn.qkv.weight", "attn.qkv.bias"),
    *("attn.proj.weight", "attn.proj.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias"),
)
VECTORS = ("bias", "norm1.weight", "norm2.weight", "cls_token", "pos_embed", "bn.weight", "upsample_4x.1.weight")


def segmentor(size: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> nn.Module:
    """UperNet of the shipped recipe on the meta device: shapes and names, no numbers."""
    dim, depth, heads = SIZES[size]

    def weightless(*given: Any, img_size: Any, **options: Any) -> tuple[VisionTransformer, LoadReport]:
        shape = {"embed_dim": dim, "depth": depth, "num_heads": heads, "num_classes": 0, "dynamic_img_size": True}
        return VisionTransformer(img_size, 16, weight_init="skip", **shape), LoadReport()

    monkeypatch.setattr(feature_vit, "create_backbone", weightless)
    monkeypatch.setattr(EncoderDecoder, "init_weights", lambda self: None)
    monkeypatch.setattr(model_module, "_check_fit", lambda *given: None)
    recipe = "upernet_vit-large_ade20k" if size == "large" else "upernet_vit-base_ade20k"
    config = SegmentationConfig.load(CONFIGS / f"{recipe}.py", {"backbone.weights": "random", **changes})
    with torch.device("meta"):
        return build_segmentor(config, 150)[0]


def written_out(model: nn.Module, depth: int) -> dict[str, tuple[int, bool]]:
    """name -> (layer, decays): the backbone's names listed by hand, all that is not the backbone's comes last."""
    stem = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
    layers = {f"backbone.vit.{name}": 0 for name in stem}
    layers |= {f"backbone.vit.blocks.{i}.{name}": i + 1 for i in range(depth) for name in BLOCK}
    others = [name for name, _ in model.named_parameters() if not name.startswith("backbone.")]
    assert {name.split(".")[0] for name in others} == {"neck", "decode_head", "auxiliary_head"}
    layers |= dict.fromkeys(others, depth + 1)
    return {name: (layer, not name.endswith(VECTORS)) for name, layer in layers.items()}


def placed(groups: list[dict[str, Any]]) -> dict[str, tuple[int, bool]]:
    return {name: (group["layer"], group["weight_decay"] > 0) for group in groups for name in group["param_names"]}


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_group_of_every_parameter(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, depth = segmentor(size, monkeypatch), SIZES[size][1]
    groups = layer_decay_groups(model, 1e-4, 0.05, 0.65)
    assert placed(groups) == written_out(model, depth)
    assert sum(p.numel() for group in groups for p in group["params"]) == sum(p.numel() for p in model.parameters())
    for group in groups:
        assert group["lr"] == pytest.approx(1e-4 * 0.65 ** (depth + 1 - group["layer"]), rel=1e-12)
        assert all(p is model.get_parameter(n) for n, p in zip(group["param_names"], group["params"], strict=True))
    assert {group["layer"] for group in groups} == set(range(depth + 2))


def test_blocks_that_are_dropped_have_no_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = segmentor("tiny", monkeypatch, **{"backbone.out_indices": [1, 3, 5, 9]})
    groups = layer_decay_groups(model, 1.0, 0.05, 0.5)
    assert placed(groups) == written_out(model, 10)
    assert next(g["scale"] for g in groups if g["layer"] == 10) == 0.5, "the last block is one layer below the heads"


def test_a_rule_for_other_names_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmseg's rule looks for ``layers``: on timm's names it puts every block last, without a word."""
    monkeypatch.setattr(param_groups, "_BLOCK", re.compile(r"layers\.(\d+)\."))
    with pytest.raises(AssertionError):
        test_group_of_every_parameter("tiny", monkeypatch)


def test_blocks_of_another_name_change_their_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = segmentor("tiny", monkeypatch)
    before = placed(layer_decay_groups(model, 1.0))
    vit: Any = model.backbone.vit  # type: ignore[union-attr]
    vit.layers = vit.blocks
    del vit._modules["blocks"]
    object.__setattr__(vit, "blocks", vit.layers)  # the depth is still found
    after = placed(layer_decay_groups(model, 1.0))
    moved = {name: after[name.replace(".blocks.", ".layers.")][0] for name in before if ".blocks." in name}
    assert moved == dict.fromkeys(moved, 13)
    assert {before[name][0] for name in moved} == set(range(1, 13))


@pytest.mark.parametrize("vits", [0, 2])
def test_exactly_one_vit_is_wanted(vits: int) -> None:
    shape = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 1}
    model = nn.ModuleList([nn.Linear(2, 2), *(VisionTransformer(**shape) for _ in range(vits))])
    with pytest.raises(ConfigError, match=f"one plain ViT .* not {vits}") as error:
        layer_decay_groups(model, 1.0)
    one_line(error.value)


# --- in configs of MMEngine's own -------------------------------------------------------------------------------------


def native(**changes: Any) -> dict[str, Any]:
    optimizer = {"type": "AdamW", "lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.05}
    return {
        "type": "OptimWrapper",
        "optimizer": optimizer,
        "constructor": "TimmLayerDecay",
        "paramwise_cfg": {"layer_decay": 0.5},
        "clip_grad": {"max_norm": 3.0},
        **changes,
    }


class Detector(nn.Module):
    """A ViT deep inside, and a head."""

    def __init__(self) -> None:
        super().__init__()
        shape = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 1}
        self.backbone = feature_vit.FeatureViT("random", 8, (0, 1), model={k: shape[k] for k in list(shape)[1:]})
        self.head = nn.Linear(8, 2)


def test_an_optim_wrapper_of_mmengine_gets_these_groups() -> None:
    model = Detector()
    wrapper = build_optim_wrapper(model, native())
    assert isinstance(wrapper, OptimWrapper)
    assert isinstance(wrapper.optimizer, torch.optim.AdamW)
    assert wrapper.clip_grad_kwargs == {"max_norm": 3.0}
    expected = layer_decay_groups(model, 1e-2, 0.05, 0.5)
    assert [(g["lr"], g["weight_decay"], g["betas"]) for g in wrapper.optimizer.param_groups] == [
        (g["lr"], g["weight_decay"], (0.9, 0.99)) for g in expected
    ]
    assert placed(wrapper.optimizer.param_groups) == placed(expected)
    assert wrapper.get_lr()["base_lr"] == [1e-2]


def test_every_layer_steps_at_its_rate() -> None:
    model = Detector()
    sgd = {"type": "SGD", "lr": 1.0}
    wrapper = build_optim_wrapper(model, native(optimizer=sgd, clip_grad=None))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    wrapper.step()
    for name, p in model.named_parameters():
        layer = 3 if name.startswith("head") else int(name.split(".")[3]) + 1 if ".blocks." in name else 0
        torch.testing.assert_close(before[name] - p, torch.full_like(p, 0.5 ** (3 - layer)), msg=name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"paramwise_cfg": {"layer_decay": 0.5, "layer_decay_rate": 0.5}}, "no option 'layer_decay_rate'; it takes"),
        ({"paramwise_cfg": {"norm_decay_mult": 0.0}}, "no option 'norm_decay_mult'"),
        ({"paramwise_cfg": {"layer_decay": 2.0}}, r"layer_decay=2.0 in \(0, 1\]"),
        ({"optimizer": {"type": "AdamW"}}, r"set optim_wrapper\.optimizer\.lr"),
    ],
)
def test_wrong_options_are_one_line(changes: dict[str, Any], said: str) -> None:
    given = native(**changes)
    with pytest.raises(ConfigError, match=said) as error:
        build_optim_wrapper(Detector(), given)
    one_line(error.value)
    assert "TimmLayerDecay" in OPTIM_WRAPPER_CONSTRUCTORS
