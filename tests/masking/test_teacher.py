"""The teacher: its attention against the unfused softmax, its copy of the encoder, timm's models, refused ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from foreign_layouts import hugging_face
from torch import Tensor

from mlomae.common.errors import CheckpointError, ConfigError
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD
from mlomae.masking import teacher as module
from mlomae.masking.teacher import Teacher
from mlomae.models import MAE, ViT, loading

SMALL = {"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}
Timm = Callable[..., None]


def autoencoder(img_size: int = 16, **sizes: int) -> MAE:
    """Seeded; weights large enough that attention is far from even."""
    torch.manual_seed(0)
    mae = MAE(ViT(img_size, **{**SMALL, **sizes}), decoder_embed_dim=8, decoder_depth=1, decoder_num_heads=2)
    for block in mae.encoder.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.5)
        torch.nn.init.normal_(block.attn.qkv.bias, std=0.5)
    return mae


def attached(mae: MAE, *args: Any, **options: Any) -> Teacher:
    teacher = Teacher(*args, **options)
    teacher.attach(mae)
    return teacher


def pixels(size: int = 16, count: int = 3) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def softmax_of_last_block(model: Any, run: Callable[[], object]) -> Tensor:
    """(B, H, N, N) as the block itself computes it when its attention is not fused."""
    found: list[Tensor] = []
    attention = model.blocks[-1].attn
    attention.fused_attn = False
    handle = attention.attn_drop.register_forward_hook(lambda _, given, __: found.append(given[0]))
    run()
    handle.remove()
    attention.fused_attn = True
    return found[0].detach()


@pytest.fixture
def timm_vit(monkeypatch: pytest.MonkeyPatch) -> Timm:
    """Makes ``timm:test`` a small ViT with options, whose weights are those of seed 3, spread out."""
    create = timm.create_model

    def enable(**extra: Any) -> None:
        def build(name: str, **options: Any) -> Any:
            if name != "test":
                return create(name, **options)
            torch.manual_seed(3)
            model = create("vit_tiny_patch16_224", **{**SMALL, **extra, **options})
            for block in model.blocks:
                torch.nn.init.normal_(block.attn.qkv.weight, std=0.5)
            return model

        monkeypatch.setattr(timm, "create_model", build)

    return enable


def test_attention_of_our_encoder_is_the_unfused_softmax() -> None:
    mae, images = autoencoder(), pixels()
    teacher = attached(mae)
    full = softmax_of_last_block(mae.encoder, lambda: mae.encoder(images))
    assert full.shape == (3, 2, 17, 17)
    assert full[:, :, 0].std() > 0.02, "the case must not be the even one"
    torch.testing.assert_close(teacher.attention(images), full[:, :, 0, 1:])
    rows = module.class_attention(mae.encoder.blocks[-1], mae.encoder.blocks[:-1](teacher._embed(images)))
    torch.testing.assert_close(rows.sum(-1), torch.ones(3, 2))
    torch.testing.assert_close(rows[..., 0], full[:, :, 0, 0])


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"qk_norm": True, "qkv_bias": False},
        {"reg_tokens": 3, "no_embed_class": True},
        {"pre_norm": True, "init_values": 0.1, "depth": 1},
        {"global_pool": "avg"},
    ],
    ids=lambda extra: next(iter(extra), "plain"),
)
def test_attention_and_features_of_timms_vit(extra: dict[str, Any], timm_vit: Timm) -> None:
    timm_vit(**extra)
    teacher, images = attached(autoencoder(), "timm:test"), pixels()
    given = images * teacher.scale + teacher.shift
    full = softmax_of_last_block(teacher.model, lambda: teacher.model.forward_features(given))
    prefix = 1 + extra.get("reg_tokens", 0)
    assert full.shape[-1] == prefix + 16
    torch.testing.assert_close(teacher.attention(images), full[:, :, 0, prefix:])
    torch.testing.assert_close(teacher.features(images), teacher.model.forward_features(given)[:, prefix:])


def test_features_of_our_encoder_are_its_patch_tokens() -> None:
    mae, images = autoencoder(), pixels()
    features = attached(mae).features(images)
    torch.testing.assert_close(features, mae.encoder(images)[:, 1:].detach())
    assert not features.requires_grad


def test_a_timm_model_sees_images_by_its_own_mean_and_deviation(timm_vit: Timm) -> None:
    timm_vit(pretrained_cfg={"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.2)})
    teacher = attached(autoencoder(), "timm:test")
    raw = torch.rand(2, 3, 16, 16)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    seen = ((raw - mean) / std) * teacher.scale + teacher.shift
    own = (raw - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.25, 0.2]).view(3, 1, 1)
    torch.testing.assert_close(seen, own)
    copy = attached(autoencoder())
    assert torch.equal(copy.scale, torch.ones(3, 1, 1))
    assert torch.equal(copy.shift, torch.zeros(3, 1, 1))


def test_other_grids_are_interpolated_and_other_sizes_resized(timm_vit: Timm) -> None:
    timm_vit()
    teacher = attached(autoencoder(patch_size=8), "timm:test")  # 4x4 patches for a 2x2 grid
    own = attached(autoencoder(), "timm:test")
    fine = own.attention(pixels()).unflatten(2, (4, 4))
    found = teacher.attention(pixels())
    assert found.shape == (3, 2, 4)
    expected = torch.nn.functional.interpolate(fine, (2, 2), mode="bilinear", antialias=True)
    torch.testing.assert_close(found, expected.flatten(2))
    assert teacher.features(pixels()).shape == (3, 4, 16)
    planted = (torch.arange(4.0)[:, None] // 2).expand(4, 4).reshape(1, 1, 16)  # upper and lower half
    assert teacher._on_grid(planted).flatten().tolist() == pytest.approx([1 / 7, 1 / 7, 6 / 7, 6 / 7])
    larger = attached(autoencoder(), "timm:test", size=32)
    assert larger.model.patch_embed.grid_size == (8, 8)
    assert larger.attention(pixels()).shape == (3, 2, 16)
    constant = pixels()[:, :, :1, :1].expand(3, 3, 16, 16)  # an even image is the same at every size
    enlarged = (constant * larger.scale + larger.shift)[:, :, :1, :1].expand(3, 3, 32, 32)
    direct = larger.model.forward_features(enlarged)
    torch.testing.assert_close(larger.features(constant), larger._on_grid(direct[:, 1:].mT).mT, atol=1e-4, rtol=1e-4)


def test_the_copy_follows_as_a_moving_average() -> None:
    mae = autoencoder()
    teacher = attached(mae, decay=0.75)
    start = {name: p.clone() for name, p in mae.encoder.named_parameters()}
    expected = dict(start)
    for step in range(3):
        with torch.no_grad():
            for p in mae.encoder.parameters():
                p.add_(step + 1.0)
        teacher.follow(mae)
        expected = {n: 0.75 * expected[n] + 0.25 * p for n, p in mae.encoder.named_parameters()}
    for name, p in teacher.model.named_parameters():
        torch.testing.assert_close(p, expected[name].detach())
        assert not p.requires_grad
    assert not any(p is q for p, q in zip(teacher.parameters(), mae.encoder.parameters(), strict=True))
    exact = attached(autoencoder(), decay=0.0)
    exact.follow(mae)
    assert all(torch.equal(p, q) for p, q in zip(exact.parameters(), mae.encoder.parameters(), strict=True))


def test_the_state_holds_the_model_and_nothing_that_the_specification_says(timm_vit: Timm) -> None:
    timm_vit()
    for spec in ("encoder", "timm:test"):
        teacher = attached(autoencoder(), spec)
        assert {name.removeprefix("model.") for name in teacher.state_dict()} == set(teacher.model.state_dict())
    frozen = {name: value.clone() for name, value in teacher.state_dict().items()}
    teacher.follow(autoencoder())
    assert all(torch.equal(value, frozen[name]) for name, value in teacher.state_dict().items())
    assert not teacher.train().model.training


def test_attention_stays_exact_enough_under_autocast() -> None:
    """Close patches must not tie: the softmax is taken in float32."""
    teacher = attached(autoencoder())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attention, features = teacher.attention(pixels()), teacher.features(pixels())
    assert attention.dtype == features.dtype == torch.float32
    torch.testing.assert_close(attention, teacher.attention(pixels()), atol=0.05, rtol=0)
    assert not torch.equal(attention, attention.bfloat16().float())


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ("resnet18", {}, "unknown teacher 'resnet18'"),
        ("timm:resnet18", {}, "cannot be built as a ViT"),
        ("timm:no_such_model", {}, "cannot be built as a ViT"),
        ("timm:swin_tiny_patch4_window7_224", {"size": 224}, "not a plain ViT with a class token"),
        ("timm:deit_tiny_distilled_patch16_224", {}, "not a plain ViT with a class token"),
        ("timm:test", {"class_token": False, "global_pool": "avg"}, "not a plain ViT with a class token"),
        ("timm:test", {"block_fn": timm.models.vision_transformer.ResPostBlock}, "not a plain ViT with a class token"),
        ("timm:test", {"size": 18}, "do not divide images of 18; set mask.teacher_size"),
        ("timm:test", {"size": 0}, "teacher_size=0"),
        ("encoder", {"size": 32}, "teacher_size=32 must"),
        ("encoder", {"decay": 1.0}, "'decay' of the teacher .*; got 1.0"),
        ("encoder", {"decay": float("nan")}, "'decay' of the teacher .*; got nan"),
    ],
)
def test_what_is_refused_in_one_line(spec: str, options: dict[str, Any], words: str, timm_vit: Timm) -> None:
    own = {key: options.pop(key) for key in ("size", "decay") if key in options}
    timm_vit(**options)
    with pytest.raises(ConfigError, match=words) as error:
        attached(autoencoder(), spec, **own)
    assert "\n" not in str(error.value)


def test_weights_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: Any) -> Any:
        if pretrained:
            raise OSError("no route\nto host")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(loading, "check_reachable", lambda *_: None)
    with pytest.raises(CheckpointError, match="cannot be loaded \\(no route to host\\)") as error:
        attached(autoencoder(), "timm:vit_tiny_patch16_224:pretrained", size=32)
    assert "\n" not in str(error.value)


def test_a_file_of_weights_is_a_teacher(tmp_path: Path) -> None:
    """The features of the file's own model, at its size and at another; renormalised where the file says how."""
    source = timm.models.vision_transformer.VisionTransformer(16, 4, embed_dim=192, depth=1, num_heads=3, num_classes=0)
    torch.nn.init.normal_(source.blocks[0].attn.qkv.weight, std=0.5)
    torch.save({"teacher": source.eval().state_dict()}, tmp_path / "w.pth")
    images = pixels()
    for spec in (f"{tmp_path / 'w.pth'}", f"{tmp_path / 'w.pth'}#teacher"):
        teacher = attached(autoencoder(), spec)
        torch.testing.assert_close(teacher.features(images), source.forward_features(images)[:, 1:])
        assert not any(parameter.requires_grad for parameter in teacher.parameters())
    with pytest.raises(ConfigError, match=r"patches of 4 pixels, which do not divide images of 18"):
        attached(autoencoder(), str(tmp_path / "w.pth"), size=18)
    torch.save(hugging_face(source.state_dict()), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"model_type": "vit", "layer_norm_eps": 1e-6}')
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    teacher = attached(autoencoder(), str(tmp_path))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    wanted = source.forward_features((images * std + mean - 0.5) / 0.5)[:, 1:]
    torch.testing.assert_close(teacher.features(images), wanted, atol=1e-4, rtol=0)
