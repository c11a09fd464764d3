"""Backbones from every source: what is loaded, what is fresh, positions at other sizes, one-line errors."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from backbone_samples import MODEL, SHAPE, make_mae, write_checkpoint, write_official
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from mlomae.backbones.create import create_backbone
from mlomae.backbones.export import export
from mlomae.backbones.provenance import describe_weights
from mlomae.common.errors import CheckpointError, ConfigError, MlomaeError
from mlomae.models import SIZES, ViT
from mlomae.models.vit import sincos_positions

IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))
FRESH = {"head.weight", "head.bias"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], ViT]:
    """The same encoder in every layout, by name."""
    root = tmp_path_factory.mktemp("weights")
    encoder = write_checkpoint(root / "iter_7.pth")
    write_official(root / "mae.pth")
    write_official(root / "encoder.pth", decoder=False)
    targets = {"safetensors": "e.safetensors", "timm": "folder", "mmseg": "seg.pth", "mmdet": "det.pth"}
    for fmt, name in targets.items():
        export(root / "iter_7.pth", root / name, fmt)
    foreign = root / "foreign"  # a timm folder that we did not write: no metadata of ours
    foreign.mkdir()
    (foreign / "config.json").write_bytes((root / "folder" / "config.json").read_bytes())
    save_file(load_file(root / "folder" / "model.safetensors"), foreign / "model.safetensors")
    names = ["iter_7.pth", "mae.pth", "encoder.pth", *targets.values(), "foreign"]
    specs = {name: str(root / name) for name in names}
    specs["local-dir"] = f"timm:local-dir:{foreign}:pretrained"
    return specs, encoder


ALL = ["iter_7.pth", "mae.pth", "encoder.pth", "e.safetensors", "folder", "seg.pth", "det.pth", "foreign", "local-dir"]


def make(spec: str, **options: Any) -> VisionTransformer:
    model = {"num_heads": 2} if spec.endswith(("mae.pth", "encoder.pth")) else None
    return create_backbone(spec, **{"num_classes": 5, "img_size": 16, "model": model, **options})[0].eval()


@pytest.mark.parametrize("name", ALL)
def test_every_layout_gives_the_encoders_features(sources: tuple[dict[str, str], ViT], name: str) -> None:
    specs, encoder = sources
    backbone = make(specs[name], global_pool="token")
    with torch.no_grad():
        ours = encoder(IMAGES)
        assert ours.std() > 0.1
        torch.testing.assert_close(backbone.forward_features(IMAGES), ours, atol=1e-6, rtol=1e-6)
        assert backbone(IMAGES).shape == (3, 5)
    for kind in ("random:",) if name == "iter_7.pth" else ("", "random:"):  # that one has no whole configuration
        assert describe_weights(f"{kind}{specs[name]}").patch_size == 4


def test_report_names_all_that_was_not_loaded(sources: tuple[dict[str, str], ViT]) -> None:
    specs, encoder = sources
    own = set(encoder.state_dict())
    for name in ("iter_7.pth", "e.safetensors"):
        _, report = create_backbone(specs[name], num_classes=5, img_size=16)
        assert set(report.matched) == own - {"norm.weight", "norm.bias"}
        assert set(report.missing) == FRESH | {"fc_norm.weight", "fc_norm.bias"}
        foreign = {k for k in report.unexpected if not k.startswith("decoder.")}
        assert foreign == {"norm.weight", "norm.bias"}
        assert any("fresh fc_norm" in note for note in report.notes)
    _, report = create_backbone(specs["mae.pth"], num_classes=5, img_size=16, model={"num_heads": 2}, keep_norm=True)
    assert set(report.matched) == own
    assert set(report.missing) == FRESH
    assert "decoder.mask_token" in report.unexpected
    assert all(k.startswith("decoder.") for k in report.unexpected)
    assert "num_heads=2: given" in str(report)


def test_norm_follows_maes_conventions(sources: tuple[dict[str, str], ViT]) -> None:
    """avg: no norm, fresh fc_norm on the mean; avg with keep_norm: mean of normed tokens; token: normed class token."""
    specs, encoder = sources
    fresh, kept, token = (
        make(specs["iter_7.pth"], **options)
        for options in ({}, {"keep_norm": True}, {"global_pool": "token", "keep_norm": True})
    )
    with torch.no_grad():
        normed = encoder(IMAGES)
        raw = encoder.blocks(
            torch.cat([encoder.cls_token.expand(3, -1, -1), encoder.patch_embed(IMAGES)], 1) + encoder.pos_embed
        )
        expected = torch.nn.functional.layer_norm(raw[:, 1:].mean(1), (24,), eps=1e-6)
        torch.testing.assert_close(fresh.forward_head(fresh.forward_features(IMAGES), pre_logits=True), expected)
        torch.testing.assert_close(
            kept.forward_head(kept.forward_features(IMAGES), pre_logits=True), normed[:, 1:].mean(1)
        )
        torch.testing.assert_close(token.forward_head(token.forward_features(IMAGES), pre_logits=True), normed[:, 0])
        assert not torch.allclose(expected, normed[:, 1:].mean(1), atol=0.1)


def test_a_fine_tuned_file_gives_its_fc_norm_but_not_its_head(tmp_path: Path) -> None:
    """The head is fresh even where the shapes would fit."""
    model = {**MODEL, "num_heads": 2}
    tuned, _ = create_backbone("random", num_classes=5, img_size=16, model=model)
    for name in ("fc_norm.weight", "head.weight", "head.bias"):
        torch.nn.init.normal_(tuned.get_parameter(name))
    torch.save(tuned.state_dict(), tmp_path / "tuned.pth")
    again, report = create_backbone(str(tmp_path / "tuned.pth"), num_classes=5, img_size=16, model=model)
    assert torch.equal(again.fc_norm.weight, tuned.fc_norm.weight)
    assert again.head.weight.abs().max() < 1e-3
    assert set(report.unexpected) == FRESH
    normed, report = create_backbone(
        str(tmp_path / "tuned.pth"), num_classes=5, img_size=16, model=model, keep_norm=True
    )
    assert torch.equal(normed.norm.weight, tuned.fc_norm.weight)
    assert "norm: the fine-tuned fc_norm" in str(report)


# --- position embeddings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(224, 224), (384, 384), (192, 320)])
def test_positions_equal_timms_own_paths(tmp_path: Path, size: tuple[int, int]) -> None:
    """A table of 14x14 (224 px, patch 16), against timm's loading filter and against its set_input_size."""
    shape = {"img_size": 224, "patch_size": 16, "depth": 1}
    encoder = write_checkpoint(tmp_path / "c.pth", **shape)
    backbone, report = create_backbone(str(tmp_path / "c.pth"), num_classes=0, img_size=size, keep_norm=True)
    grid = (size[0] // 16, size[1] // 16)
    assert backbone.pos_embed.shape == (1, 1 + grid[0] * grid[1], 24)
    filtered = checkpoint_filter_fn(dict(encoder.state_dict()), backbone)["pos_embed"]
    torch.testing.assert_close(backbone.pos_embed.data, filtered, rtol=0, atol=0)
    resized = VisionTransformer(224, 16, embed_dim=24, depth=1, num_heads=2, num_classes=0)
    resized.load_state_dict(encoder.state_dict())
    resized.set_input_size(img_size=size)
    torch.testing.assert_close(backbone.pos_embed.data, resized.pos_embed.data, rtol=0, atol=0)
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(backbone.eval().forward_features(images), resized.eval().forward_features(images))
    if grid == (14, 14):
        assert torch.equal(backbone.pos_embed.data, encoder.pos_embed)
        assert not any("interpolated" in note for note in report.notes)
    else:
        assert f"interpolated to {grid[0]}x{grid[1]}" in str(report)
        recomputed = sincos_positions(24, grid)
        assert not torch.allclose(backbone.pos_embed.data, recomputed, atol=1e-2)  # not what this does


def test_same_token_count_on_another_grid_is_interpolated(tmp_path: Path) -> None:
    """4x4 and 2x8 have 16 patches each: the shapes agree, the positions must not be taken over."""
    encoder = write_checkpoint(tmp_path / "c.pth")
    backbone, _ = create_backbone(str(tmp_path / "c.pth"), num_classes=0, img_size=(8, 32))
    assert backbone.pos_embed.shape == encoder.pos_embed.shape
    assert not torch.allclose(backbone.pos_embed.data, encoder.pos_embed, atol=0.1)


def test_positions_are_trained_in_fine_tuning(sources: tuple[dict[str, str], ViT]) -> None:
    specs, encoder = sources
    assert not encoder.pos_embed.requires_grad
    assert all(parameter.requires_grad for parameter in make(specs["iter_7.pth"]).parameters())


# --- random and timm ------------------------------------------------------------------------------------------


def test_random_starts_where_pretraining_starts_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    encoder = write_checkpoint(tmp_path / "c.pth")
    model = {**MODEL, "size": "tiny"}
    torch.manual_seed(1)
    first, report = create_backbone("random", num_classes=5, img_size=(16, 24), model=model)
    state = torch.get_rng_state()
    again, _ = create_backbone(f"random:{tmp_path / 'c.pth'}", num_classes=5, img_size=(16, 24))
    assert torch.equal(state, torch.get_rng_state())  # nobody else's draws are moved
    other, _ = create_backbone("random", num_classes=5, img_size=(16, 24), model=model, seed=1)
    assert report.matched == []
    assert set(report.missing) == set(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    weight = first.blocks[0].mlp.fc1.weight
    assert weight.abs().max().item() == pytest.approx((6 / (24 + 96)) ** 0.5, rel=0.02)  # Xavier-uniform
    assert torch.equal(first.pos_embed.data, sincos_positions(24, (4, 6)))
    for name in ("blocks.0.mlp.fc1.weight", "head.weight", "cls_token"):
        assert not torch.equal(first.get_parameter(name), other.get_parameter(name))
        assert first.get_parameter(name).isfinite().all()
    assert not torch.equal(weight, encoder.blocks[0].mlp.fc1.weight)  # type: ignore[union-attr, index]


def test_head_is_the_same_for_every_source(sources: tuple[dict[str, str], ViT]) -> None:
    """Rows of a table differ in their trunk alone; the head's std is MAE's 2e-5 unless asked otherwise."""
    specs, _ = sources
    heads = [make(specs[name]).head for name in ("iter_7.pth", "mae.pth", "foreign")]
    heads.append(make("random", model=MODEL).head)
    assert all(torch.equal(h.weight, heads[0].weight) and not h.bias.any() for h in heads)
    wide = make("random", model=MODEL, num_classes=400)
    assert wide.head.weight.std().item() == pytest.approx(2e-5, rel=0.05)
    assert make("random", model=MODEL, num_classes=400, head_std=0.01).head.weight.std().item() == pytest.approx(
        0.01, rel=0.05
    )


def test_timm_names(sources: tuple[dict[str, str], ViT]) -> None:
    name = "vit_tiny_patch16_224"
    assert describe_weights(f"timm:{name}").patch_size == describe_weights(f"random:timm:{name}").patch_size == 16
    backbone, report = create_backbone(f"timm:{name}", num_classes=7, img_size=32, drop_path=0.1)
    assert (backbone.num_classes, backbone.patch_embed.grid_size, backbone.global_pool) == (7, (2, 2), "avg")
    assert backbone.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)
    assert "timm's initialisation" in str(report)
    assert backbone.fc_norm.weight.shape == (192,)
    # weights that timm finds, at another size than their own, through our report
    spec = sources[0]["local-dir"]
    resized, report = create_backbone(spec, num_classes=7, img_size=(8, 24))
    reference = timm.create_model(spec[5:].removesuffix(":pretrained"), pretrained=True)
    reference.set_input_size(img_size=(8, 24))
    assert torch.equal(resized.pos_embed, reference.pos_embed)
    assert torch.equal(resized.blocks[1].mlp.fc2.weight, reference.blocks[1].mlp.fc2.weight)
    assert set(report.unexpected) == {"norm.weight", "norm.bias"}
    blank, _ = create_backbone(spec.removesuffix(":pretrained"), num_classes=7, img_size=16)
    assert not torch.equal(blank.blocks[1].mlp.fc2.weight, resized.blocks[1].mlp.fc2.weight)


# --- errors ---------------------------------------------------------------------------------------------------


def fails(kind: type[MlomaeError], match: str, spec: str, **options: Any) -> None:
    with pytest.raises(kind, match=match) as caught:
        create_backbone(spec, **{"num_classes": 5, "img_size": 16, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("match", "spec", "options"),
    [
        ("global_pool must be one of", "random", {"global_pool": "max"}),
        ("drop_path must be .*got 1.5", "random", {"drop_path": 1.5}),
        ("num_classes must be at least 0; got -1", "random", {"num_classes": -1}),
        ("image size 0", "random", {"img_size": 0}),
        ("image size 18 is not divisible by patch size 4", "random", {"img_size": (16, 18), "model": MODEL}),
        ("image size 40 is not divisible by patch size 16", "timm:vit_tiny_patch16_224", {"img_size": 40}),
        ("needs model.embed_dim", "random", {}),
        ("no key 'width'", "random", {"model": {"width": 3}}),
        ("size must be one of", "random", {"model": {"size": "giant"}}),
        ("24 is not divisible by 5 heads", "random", {"model": {**MODEL, "num_heads": 5}}),
        (r"must be inside \[1, 100000\]", "random", {"model": {**MODEL, "patch_size": 0}}),
        ("'resnet18' cannot be built as a ViT", "timm:resnet18", {}),
        ("is a SwinTransformer", "timm:swin_tiny_patch4_window7_224", {"img_size": 224}),
        ("'vit_nothing' cannot be built", "timm:vit_nothing", {}),
        ("names its architecture", "timm:vit_tiny_patch16_224", {"model": MODEL}),
    ],
)
def test_wrong_options(match: str, spec: str, options: dict[str, Any]) -> None:
    fails(ConfigError, match, spec, **options)


def test_wrong_files(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    write_checkpoint(path)
    fails(CheckpointError, "'vit_base' does not exist; give a file of weights", "vit_base")
    fails(CheckpointError, "does not exist", f"random:{tmp_path}/none.pth")
    fails(CheckpointError, "patch_size=4, not 16", str(path), model={"patch_size": 16})
    fails(CheckpointError, "num_heads=2, not 3", str(path), model={"num_heads": 3})
    fails(CheckpointError, "embed_dim=24, not 192", str(path), model={"size": "tiny"})
    fails(ConfigError, "image size 18 is not divisible", str(path), img_size=18)

    (tmp_path / "cut.pth").write_bytes(path.read_bytes()[:2000])
    fails(CheckpointError, "truncated or not a torch file", str(tmp_path / "cut.pth"))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    fails(CheckpointError, "damaged or not a safetensors file", str(tmp_path / "cut.safetensors"))
    torch.save({"conv1.weight": torch.zeros(2, 3, 7, 7)}, tmp_path / "resnet.pth")
    fails(CheckpointError, "holds no plain ViT", str(tmp_path / "resnet.pth"))

    encoder = make_mae().encoder.state_dict()
    save_file({**encoder, "blocks.0.rel_pos": torch.ones(24)}, tmp_path / "more.safetensors")
    fails(
        CheckpointError,
        r"unknown to the model: blocks.0.rel_pos",
        str(tmp_path / "more.safetensors"),
        model={"num_heads": 2},
    )
    save_file({**encoder, "cls_token": encoder["cls_token"] * float("nan")}, tmp_path / "nan.safetensors")
    fails(CheckpointError, "not finite: cls_token", str(tmp_path / "nan.safetensors"), model={"num_heads": 2})
    del encoder["blocks.1.norm2.bias"]
    save_file(encoder, tmp_path / "less.safetensors")
    fails(CheckpointError, "lack blocks.1.norm2.bias", str(tmp_path / "less.safetensors"), model={"num_heads": 2})
    save_file(encoder, tmp_path / "lie.safetensors", metadata={"mlomae.model": json.dumps({**SHAPE, "depth": 7})})
    fails(CheckpointError, "declares depth=7", str(tmp_path / "lie.safetensors"))


def test_heads_of_official_weights(tmp_path: Path) -> None:
    """By the known sizes; another width must be told; who knows better may say so (MAE-Lite: tiny, 12 heads)."""
    path = tmp_path / "mae.pth"
    write_official(path)
    fails(CheckpointError, "how many heads its width 24", str(path))
    fails(ConfigError, "not divisible by 5 heads", str(path), model={"num_heads": 5})
    for dim, _, heads in SIZES.values():
        encoder = ViT(8, 4, dim, 1, heads)
        torch.save({"model": encoder.state_dict()}, path)
        backbone, report = create_backbone(str(path), num_classes=0, img_size=8)
        assert backbone.blocks[0].attn.num_heads == heads
        assert f"num_heads={heads}: the usual number" in str(report)
    torch.save({"model": ViT(8, 4, 192, 1, 12).state_dict()}, path)
    backbone, _ = create_backbone(str(path), num_classes=0, img_size=8, model={"num_heads": 12})
    assert backbone.blocks[0].attn.num_heads == 12


def test_wrong_folders(tmp_path: Path, sources: tuple[dict[str, str], ViT]) -> None:
    fails(CheckpointError, "holds no weights and no config.json", str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    fails(CheckpointError, r"local-dir:.* cannot be loaded \(Expecting", str(tmp_path))
    (tmp_path / "config.json").write_bytes((Path(sources[0]["foreign"]) / "config.json").read_bytes())
    fails(CheckpointError, r"local-dir:.* cannot be loaded \(", str(tmp_path))  # no weights
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    fails(CheckpointError, r"local-dir:.* cannot be loaded \(", str(tmp_path))
