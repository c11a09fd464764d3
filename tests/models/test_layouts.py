"""Weights as other libraries and training scripts write them: found by their keys, features as at home."""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import foreign_layouts as foreign
import numpy as np
import pytest
import torch
from backbone_samples import DECODER, SHAPE, make_mae
from safetensors.torch import save_file
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from mlomae.backbones.create import create_backbone
from mlomae.backbones.provenance import describe_weights
from mlomae.common.errors import CheckpointError
from mlomae.models import MAE, create_encoder
from mlomae.models.loading import load_pretrained
from mlomae.models.weights import read_weights

State = dict[str, Tensor]
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
HEADS = {"num_heads": 2}
MAE_ = make_mae()
BASE: State = {key: value.detach() for key, value in MAE_.encoder.state_dict().items()}
DECODER_: State = {key: value.detach() for key, value in MAE_.decoder.state_dict().items()}
OFFICIAL = BASE | {key if key == "mask_token" else f"decoder_{key}": value for key, value in DECODER_.items()}
PLAIN = VisionTransformer(16, 4, embed_dim=24, depth=2, num_heads=2, num_classes=0).eval()
PLAIN.load_state_dict(BASE)


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


OTHERS: State = {"head.mlp.0.weight": torch.zeros(8, 24), "proj.bias": torch.zeros(3)}
MM = foreign.openmmlab(BASE, "backbone.") | foreign.openmmlab_decoder(DECODER_)
FILES: dict[str, tuple[Any, bool]] = {  # what is in the file, and whether the decoder of an MAE is
    "timm": (BASE, False),
    "official": ({"model": OFFICIAL, "epoch": 3, "args": argparse.Namespace(lr=0.1, out=Path("x"))}, True),
    "numpy": ({"model": BASE, "best": np.float64(1.5), "all": np.arange(3.0)}, False),
    "nested": ({"epoch": 7, "model_state_dict": OFFICIAL, "optimizer_state_dict": {"state": {}}}, True),
    "net": ({"net": BASE | {"head.weight": torch.zeros(5, 24)}, "acc": 71.0}, False),
    "deep": ({"checkpoint": {"target_encoder": under("module.", BASE)}}, False),
    "ddp": ({"model": under("module.", OFFICIAL)}, True),
    "compiled": ({"model": under("_orig_mod.", OFFICIAL)}, True),
    "compiled ddp": (under("module._orig_mod.", BASE), False),
    "ddp compiled": (under("_orig_mod.module.", BASE), False),
    "compiled blocks": ({k.replace("blocks.1.", "blocks.1._orig_mod."): v for k, v in BASE.items()}, False),
    "lightning": ({"state_dict": under("model.", BASE), "hyper_parameters": {"lr": 1e-3}}, False),
    "lightly": (
        {
            "state_dict": under("backbone.vit.", BASE)
            | {"backbone.mask_token": torch.zeros(1, 1, 24)}
            | {k: v for k, v in under("decoder.", OFFICIAL).items() if "decoder_" in k}
            | {"decoder.mask_token": DECODER_["mask_token"]}
        },
        True,
    ),
    "solo-learn": ({"state_dict": under("backbone.", BASE) | under("momentum_backbone.", BASE)}, False),
    "ours": (under("encoder.", BASE) | under("decoder.", DECODER_), True),
    "siblings": (under("student.", BASE) | OTHERS, False),
    "mmpretrain": ({"meta": {}, "state_dict": MM | {"data_preprocessor.mean": torch.zeros(3)}}, True),
    "mmpretrain backbone": ({"state_dict": foreign.openmmlab(BASE)}, False),
    "torchvision": (foreign.torchvision(BASE) | {"heads.head.weight": torch.zeros(5, 24)}, False),
}


def write(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


def features(spec: str, **options: Any) -> Tensor:
    given = {"num_classes": 0, "img_size": 16, "global_pool": "token", "model": HEADS, **options}
    with torch.no_grad():
        return create_backbone(spec, **given)[0].eval().forward_features(IMAGES)


@pytest.mark.parametrize("name", FILES)
def test_every_layout_is_found_and_computes_the_same(name: str, tmp_path: Path) -> None:
    content, has_decoder = FILES[name]
    spec = write(tmp_path / "w.pth", content)
    with torch.no_grad():
        torch.testing.assert_close(features(spec), PLAIN.forward_features(IMAGES), atol=1e-5, rtol=0)
    mae = MAE(create_encoder(**SHAPE), **DECODER)
    report = load_pretrained(mae, spec)
    assert all(torch.equal(mae.encoder.state_dict()[key], BASE[key]) for key in BASE)
    same = [torch.equal(mae.decoder.state_dict()[key], DECODER_[key]) for key in DECODER_ if "pos_embed" not in key]
    assert all(same) if has_decoder else not any(same[:1])
    assert has_decoder == (report.missing == [])
    assert describe_weights(spec).patch_size == 4


def test_what_is_beside_the_encoder_is_listed(tmp_path: Path) -> None:
    spec = write(tmp_path / "w.pth", FILES["siblings"][0])
    _, report = create_backbone(spec, num_classes=0, img_size=16, model=HEADS)
    assert set(OTHERS) <= set(report.unexpected)
    assert set(OTHERS) <= set(load_pretrained(make_mae(), spec).unexpected)


@pytest.mark.parametrize("five", [False, True])
@pytest.mark.parametrize("kind", ["folder", "bin", "with config.json"])
def test_hugging_face_keeps_its_epsilon(kind: str, five: bool, tmp_path: Path) -> None:
    """1e-12 and not 1e-6: small inputs, so that it shows."""
    small = BASE | {"patch_embed.proj.weight": BASE["patch_embed.proj.weight"] * 1e-3}
    small |= {key: torch.zeros(1) * BASE[key] for key in ("patch_embed.proj.bias", "cls_token", "pos_embed")}
    blocks = "decoder_encoder.layer.{}" if five else "decoder_layers.{}"
    state = foreign.hugging_face(small, "vit.", "layers.{}" if five else "encoder.layer.{}", five)
    state |= foreign.hugging_face_decoder(DECODER_, blocks)
    config = {"model_type": "vit_mae", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config |= {"patch_size": 4, "layer_norm_eps": 1e-5 if kind == "with config.json" else 1e-12, "hidden_act": "gelu"}
    if kind != "bin":
        (tmp_path / "config.json").write_text(json.dumps(config))
    file = tmp_path / ("pytorch_model.bin" if kind == "bin" else "model.safetensors")
    torch.save(state, file) if kind == "bin" else save_file({k: v.contiguous() for k, v in state.items()}, file)
    spec = str(tmp_path if kind == "folder" else file)
    reference = VisionTransformer(
        16,
        4,
        embed_dim=24,
        depth=2,
        num_heads=2,
        num_classes=0,
        norm_layer=partial(torch.nn.LayerNorm, eps=config["layer_norm_eps"]),
    ).eval()
    reference.load_state_dict(small)
    PLAIN.load_state_dict(small)
    with torch.no_grad():
        wanted, other = reference.forward_features(IMAGES), PLAIN.forward_features(IMAGES)
    PLAIN.load_state_dict(BASE)
    found = features(spec, model=HEADS if kind == "bin" else None)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert not torch.allclose(found, other, atol=1e-3)
    report = load_pretrained(mae := MAE(create_encoder(**SHAPE), **DECODER), spec)
    assert torch.equal(mae.decoder.pred.weight, DECODER_["pred.weight"])
    eps = config["layer_norm_eps"]
    assert f"model.norm_eps={eps:g} keeps it" in str(report)
    report = load_pretrained(mae := MAE(create_encoder(**SHAPE, norm_eps=eps), **DECODER), spec)
    assert "keeps it" not in str(report)
    with torch.no_grad():
        torch.testing.assert_close(mae.encoder(IMAGES), wanted, atol=1e-5, rtol=0)


def vit(**options: Any) -> VisionTransformer:
    torch.manual_seed(1)
    made = VisionTransformer(16, 4, embed_dim=24, depth=2, num_heads=2, num_classes=0, **options)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made.eval()


@pytest.mark.parametrize(
    "options",
    [
        {"reg_tokens": 4},
        {"reg_tokens": 4, "no_embed_class": True},
        {"init_values": 1e-5},
        {"qkv_bias": False},
        {"reg_tokens": 1, "init_values": 1.0},
    ],
)
@pytest.mark.parametrize("size", [16, 24])
def test_what_timms_vit_has_is_loaded(options: dict[str, Any], size: int, tmp_path: Path) -> None:
    source = vit(**options)
    spec = write(tmp_path / "w.pth", source.state_dict())
    found, _ = create_backbone(spec, num_classes=0, img_size=size, global_pool="token", model=HEADS)
    images = torch.randn(2, 3, size, size)
    source.set_input_size(img_size=size)
    with torch.no_grad():
        torch.testing.assert_close(found.eval().forward_features(images), source.forward_features(images))
    if "qkv_bias" not in options:
        with pytest.raises(CheckpointError, match=r"w.pth.*holds a ViT with (registers|layer scale) \(encoder\."):
            load_pretrained(make_mae(), spec)


def test_a_distillation_token_is_a_register(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = VisionTransformerDistilled(16, 4, embed_dim=24, depth=2, num_heads=2, num_classes=5, weight_init="skip")
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    spec = write(tmp_path / "w.pth", {"model": source.state_dict()})
    with torch.no_grad():
        torch.testing.assert_close(features(spec), source.eval().forward_features(IMAGES))
    with pytest.raises(CheckpointError, match="a distillation token"):
        load_pretrained(make_mae(), spec)


@pytest.mark.parametrize("registers", [True, False])
def test_dinov2_is_loaded_as_timm_does(registers: bool, tmp_path: Path) -> None:
    state = vit(init_values=1e-5).state_dict() | {"mask_token": torch.zeros(1, 24)}
    state |= {"register_tokens": torch.randn(1, 4, 24)} if registers else {}
    spec = write(tmp_path / "w.pth", state)
    more = {"reg_tokens": 4, "no_embed_class": True} if registers else {}
    reference = vit(init_values=1e-5, **more)
    reference.load_state_dict(checkpoint_filter_fn(dict(state), reference), strict=registers)
    with torch.no_grad():
        torch.testing.assert_close(features(spec), reference.forward_features(IMAGES))


def test_a_fine_tuned_mae_gives_its_norm_and_its_features(tmp_path: Path) -> None:
    tuned = {k.replace("norm.", "fc_norm.") if k.startswith("norm.") else k: v for k, v in BASE.items()}
    spec = write(
        tmp_path / "w.pth", {"model": tuned | {"head.weight": torch.randn(5, 24), "head.bias": torch.zeros(5)}}
    )
    reference = VisionTransformer(16, 4, embed_dim=24, depth=2, num_heads=2, num_classes=0, global_pool="avg").eval()
    reference.load_state_dict(tuned)
    pooled, _ = create_backbone(spec, num_classes=0, img_size=16, model=HEADS)
    with torch.no_grad():
        torch.testing.assert_close(pooled.eval()(IMAGES), reference(IMAGES))
        torch.testing.assert_close(features(spec), PLAIN.forward_features(IMAGES))
    report = load_pretrained(mae := make_mae(), spec)
    assert torch.equal(mae.encoder.norm.weight, BASE["norm.weight"])
    assert "the fine-tuned fc_norm" in str(report)
    mm = write(tmp_path / "mm.pth", {"state_dict": foreign.openmmlab(BASE, "backbone.", "ln2")})
    assert torch.equal(read_weights(mm).encoder["fc_norm.weight"], BASE["norm.weight"])


def test_one_of_several_is_named_after_the_file(tmp_path: Path) -> None:
    other = {key: value + 1 for key, value in BASE.items()}
    path = tmp_path / "w.pth"
    torch.save({"student": under("module.backbone.", other), "teacher": under("backbone.", BASE) | OTHERS}, path)
    with pytest.raises(CheckpointError, match=r"several ViTs: student.backbone, teacher.backbone; .*FILE#student"):
        read_weights(path)
    assert torch.equal(read_weights(f"{path}#teacher.backbone").encoder["cls_token"], BASE["cls_token"])
    assert describe_weights(f"{path}#teacher.backbone").method == "w#teacher.backbone"
    with pytest.raises(CheckpointError, match=r"no ViT at 'ema'; choose one of 'student.backbone', 'teacher.backbone'"):
        features(f"{path}#ema")
    torch.save({"state_dict": BASE, "state_dict_ema": other}, path)
    file = read_weights(path)
    assert torch.equal(file.encoder["cls_token"], BASE["cls_token"])
    assert "state_dict_ema" in str(file.notes)
    assert torch.equal(read_weights(f"{path}#state_dict_ema").encoder["cls_token"], other["cls_token"])
    odd = tmp_path / "a#b.pth"
    torch.save(BASE, odd)
    assert read_weights(odd).encoder.keys() == BASE.keys()


def test_the_hub_is_asked_for_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the local cache, as huggingface_hub lays it out."""
    folder = tmp_path / "models--me--vit" / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (tmp_path / "models--me--vit" / "refs").mkdir()
    (tmp_path / "models--me--vit" / "refs" / "main").write_text("0" * 40)
    config = {"model_type": "vit", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps({**config, "patch_size": 4, "layer_norm_eps": 1e-6}))
    save_file({k: v.contiguous() for k, v in foreign.hugging_face(BASE).items()}, folder / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path), raising=False)
    with torch.no_grad():
        wanted = PLAIN.forward_features(IMAGES)
    torch.testing.assert_close(features("hf-hub:me/vit", model=None), wanted, atol=1e-5, rtol=0)
    load_pretrained(make_mae(), "hf-hub:me/vit")
    assert describe_weights("hf-hub:me/vit").method == "hf-hub:me/vit"
    with pytest.raises(CheckpointError, match=r"'hf-hub:me/none' cannot be fetched .*check the name"):
        features("hf-hub:me/none")


def test_a_model_in_several_files(tmp_path: Path) -> None:
    keys = list(BASE)
    parts = {"model-1.safetensors": keys[:5], "model-2.safetensors": keys[5:]}
    for name, own in parts.items():
        save_file({key: BASE[key].contiguous() for key in own}, tmp_path / name)
    index = {"weight_map": {key: name for name, own in parts.items() for key in own}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_weights(tmp_path).encoder.keys() == BASE.keys()
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lists model-2.safetensors, which is missing.*fetch it again"):
        read_weights(tmp_path)
    for odd in ("model.safetensors.index.json", "../model-1.safetensors", 5):  # itself, another folder, no name
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"norm.weight": odd}}))
        with pytest.raises(CheckpointError, match=rf"lists {odd}, which is missing"):
            read_weights(tmp_path)


def test_what_is_no_plain_vit_is_told_what_was_looked_for(tmp_path: Path) -> None:
    spec = write(tmp_path / "w.pth", {"state_dict": {"conv1.weight": torch.zeros(2), "bn1.bias": torch.zeros(2)}})
    with pytest.raises(CheckpointError, match=r"no plain ViT \(timm: patch_embed.proj.weight, .*\), but conv1.weight"):
        load_pretrained(make_mae(), spec)
    spec = write(tmp_path / "v.pth", {k: v for k, v in BASE.items() if k != "cls_token"})
    with pytest.raises(CheckpointError, match="without a class token"):
        features(spec)
