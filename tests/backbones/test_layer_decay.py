"""The layer of every parameter of every size, scales by hand, timm's assignment, and the scaled schedule."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay

from mlomae.backbones import layer_decay as param_groups
from mlomae.backbones.layer_decay import layer_decay_groups, layer_of
from mlomae.common.errors import ConfigError
from mlomae.config.schema import OptimConfig
from mlomae.models import SIZES
from mlomae.pretraining.optim import rates


def meta_vit(size: str = "tiny", global_pool: str = "avg", **options: Any) -> VisionTransformer:
    dim, depth, heads = SIZES[size]
    shape = {"embed_dim": dim, "depth": depth, "num_heads": heads}
    with torch.device("meta"):
        return VisionTransformer(**{**shape, "num_classes": 10, "global_pool": global_pool, **options})


def written_out(depth: int, final: str) -> dict[str, tuple[int, bool]]:
    """name -> (layer, decays) of a plain ViT, listed by hand from BEiT's get_num_layer_for_vit and MAE's lr_decay."""
    table = {"cls_token": (0, False), "pos_embed": (0, False)}
    table |= {"patch_embed.proj.weight": (0, True), "patch_embed.proj.bias": (0, False)}
    for i in range(depth):
        for norm in ("norm1", "norm2"):
            table |= {f"blocks.{i}.{norm}.weight": (i + 1, False), f"blocks.{i}.{norm}.bias": (i + 1, False)}
        for linear in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            table |= {f"blocks.{i}.{linear}.weight": (i + 1, True), f"blocks.{i}.{linear}.bias": (i + 1, False)}
    table |= {f"{final}.weight": (depth + 1, False), f"{final}.bias": (depth + 1, False)}
    return table | {"head.weight": (depth + 1, True), "head.bias": (depth + 1, False)}


@pytest.mark.parametrize("global_pool", ["avg", "token"])
@pytest.mark.parametrize("size", list(SIZES))
def test_group_of_every_parameter(size: str, global_pool: str) -> None:
    model = meta_vit(size, global_pool)
    depth = SIZES[size][1]
    expected = written_out(depth, "fc_norm" if global_pool == "avg" else "norm")
    assert set(expected) == {name for name, _ in model.named_parameters()}
    groups = layer_decay_groups(model, lr=1e-3, weight_decay=0.05, layer_decay=0.65)
    found = {}
    for group in groups:
        assert group["lr"] == pytest.approx(1e-3 * 0.65 ** (depth + 1 - group["layer"]), rel=1e-12)
        assert len(group["params"]) == len(group["param_names"])
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            assert parameter is model.get_parameter(name)
            assert name not in found
            found[name] = (group["layer"], group["weight_decay"] == 0.05)
            assert group["weight_decay"] in (0.05, 0.0)
    assert found == expected
    assert sum(p.numel() for group in groups for p in group["params"]) == sum(p.numel() for p in model.parameters())
    assert len({id(p) for group in groups for p in group["params"]}) == len(expected)
    assert [group["name"] for group in groups] == [
        f"layer_{i}_{kind}" for i in range(depth + 2) for kind in ("decay", "no_decay")
    ]


def test_scales_by_hand() -> None:
    """Depth 2, decay 1/2: stem 1/8, blocks 1/4 and 1/2, head 1. Tiny, 0.75: the stem at 0.75^13."""
    groups = layer_decay_groups(meta_vit(depth=2), lr=0.8, layer_decay=0.5)
    assert {g["layer"]: (g["scale"], round(g["lr"], 12)) for g in groups} == {
        0: (0.125, 0.1),
        1: (0.25, 0.2),
        2: (0.5, 0.4),
        3: (1.0, 0.8),
    }
    assert layer_decay_groups(meta_vit(), lr=1.0, layer_decay=0.75)[0]["scale"] == pytest.approx(0.0237573, abs=1e-7)
    assert {g["lr"] for g in layer_decay_groups(meta_vit(depth=2), lr=0.8, layer_decay=1.0)} == {0.8}


def by_name(model: VisionTransformer, groups: list[dict[str, Any]], scale: str) -> dict[str, tuple[float, float]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: (g[scale], g["weight_decay"]) for g in groups for p in g["params"]}


@pytest.mark.parametrize("size", list(SIZES))
def test_timm_agrees_with_an_fc_norm_and_differs_in_the_final_norm(size: str) -> None:
    for pool, differing in (("avg", set()), ("token", {"norm.weight", "norm.bias"})):
        model = meta_vit(size, pool)
        theirs = param_groups_layer_decay(
            model, weight_decay=0.05, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.65
        )
        ours = by_name(model, layer_decay_groups(model, 1.0, 0.05, 0.65), "scale")
        other = by_name(model, theirs, "lr_scale")
        assert {name for name in ours if ours[name] != other[name]} == differing
        for name in differing:  # timm counts it to the last block
            assert other[name] == (0.65, 0.0)


def test_a_rule_for_other_names_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmseg's rule looks for ``layers``; on timm's names it would put every block last."""
    monkeypatch.setattr(param_groups, "_BLOCK", param_groups.re.compile(r"layers\.(\d+)\."))
    with pytest.raises(AssertionError):
        test_group_of_every_parameter("tiny", "avg")


def test_frozen_parameters_are_left_out() -> None:
    model = meta_vit(depth=2)
    model.pos_embed.requires_grad_(False)
    model.blocks[0].requires_grad_(False)
    groups = layer_decay_groups(model, lr=1.0)
    names = [name for group in groups for name in group["param_names"]]
    assert set(names) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert "pos_embed" not in names
    assert {group["layer"] for group in groups} == {0, 2, 3}
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="no trainable parameter"):
        layer_decay_groups(model, lr=1.0)


def test_timms_variants() -> None:
    """Registers and the CLIP pre-norm belong to the stem, layer scale to its block and without decay."""
    model = meta_vit(depth=2, reg_tokens=4, pre_norm=True, init_values=1e-5)
    place = {n: (g["layer"], g["weight_decay"]) for g in layer_decay_groups(model, 1.0) for n in g["param_names"]}
    assert place["reg_token"] == place["norm_pre.weight"] == (0, 0.0)
    assert place["blocks.1.ls2.gamma"] == (2, 0.0)
    assert layer_of("blocks.11.norm1.weight", 12) == 12
    assert layer_of("head.pos_embed", 12) == 13  # only the stem's own names


@pytest.mark.parametrize("options", [{"lr": 0.0}, {"weight_decay": -1.0}, {"layer_decay": 0.0}, {"layer_decay": 1.5}])
def test_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        layer_decay_groups(meta_vit(depth=1), **{"lr": 1.0, **options})


def run_schedule(
    groups: list[dict[str, Any]], chosen: OptimConfig, iterations: int, decay: str = "cosine"
) -> list[list[float]]:
    """The rate of every group in every iteration."""
    tables = [rates(chosen, iterations, decay=decay, peak=group["lr"]) for group in groups]
    return [list(row) for row in zip(*tables, strict=True)]


def small_groups() -> list[dict[str, Any]]:
    """Depth 2, rates that fall by a quarter a layer from 1e-2."""
    with torch.device("cpu"):
        model = VisionTransformer(8, 4, embed_dim=8, depth=2, num_heads=1, num_classes=2, global_pool="avg")
    return layer_decay_groups(model, lr=1e-2, layer_decay=0.25)


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_the_whole_schedule_is_scaled_its_floor_too(decay: str) -> None:
    """Warm-up of 4, then down to min_lr; the lowest layer peaks below min_lr, so an unscaled floor would raise it."""
    chosen = OptimConfig(lr=1e-2, min_lr=1e-3, warmup=0.2)

    def wanted(t: int) -> float:
        if t < 4:
            return 1e-2 * (t + 1) / 5
        progress = (t - 4) / 15
        left = 1 - progress if decay == "linear" else (1 + math.cos(math.pi * progress)) / 2
        return 1e-3 + (1e-2 - 1e-3) * left

    groups = small_groups()
    found = run_schedule(groups, chosen, 20, decay)
    scales = [group["scale"] for group in groups]
    for t in range(20):
        assert found[t] == pytest.approx([wanted(t) * scale for scale in scales], rel=1e-9)
    assert found[-1] == pytest.approx([1e-3 * scale for scale in scales])


def test_an_unscaled_floor_is_noticed() -> None:
    groups = small_groups()
    lowest = min(group["lr"] for group in groups)
    unscaled = rates(OptimConfig(lr=lowest, min_lr=1e-3), 20)
    assert unscaled[-1] == pytest.approx(1e-3)
    assert unscaled[-1] > lowest


@settings(max_examples=40, deadline=None)
@given(iterations=st.integers(1, 60), warmup=st.floats(0, 1), floor=st.sampled_from([0.0, 1e-3, 0.5, 1.0]))
def test_linear_decay_is_the_closed_form_for_any_length(iterations: int, warmup: float, floor: float) -> None:
    """lr (t + 1)/(w + 1) up to iteration w, then a straight line that ends, in the last iteration, at min_lr."""
    chosen = OptimConfig(lr=1e-2, min_lr=1e-2 * floor, warmup=warmup)
    groups = small_groups()
    found = run_schedule(groups, chosen, iterations, "linear")
    w = min(round(warmup * iterations), iterations - 1)
    for t, row in enumerate(found):
        rate = (t + 1) / (w + 1) if t <= w else 1 - (1 - floor) * (t - w) / (iterations - 1 - w)
        assert row == pytest.approx([1e-2 * rate * g["scale"] for g in groups], rel=1e-9, abs=1e-15)
