"""Exports of every format compute the same elsewhere; the real libraries where they are installed."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from backbone_samples import DECODER, MODEL, SHAPE, make_mae, write_checkpoint
from foreign_layouts import mmpretrain_vit
from torch import Tensor

from mlomae.backbones.create import create_backbone
from mlomae.backbones.export import export
from mlomae.backbones.export_formats import FORMATS
from mlomae.backbones.export_source import read_source
from mlomae.backbones.finetuned import read_finetuned, save_timm_folder
from mlomae.cli import build_parser
from mlomae.common.errors import CheckpointError
from mlomae.models import MAE, ViT, create_encoder
from mlomae.models.loading import load_pretrained
from mlomae.models.weights import read_weights

IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ViT]:
    path = tmp_path_factory.mktemp("run") / "iter_7.pth"
    return path, write_checkpoint(path)


def classifier(folder: Path, pooling: str = "avg", **options: Any) -> tuple[Path, Any]:
    """A fine-tuned one as a timm folder."""
    vit, _ = create_backbone(
        "random", num_classes=3, img_size=16, model=MODEL, global_pool=pooling, head_std=0.5, **options
    )
    torch.manual_seed(2)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    folder.mkdir()
    save_timm_folder(vit.eval(), ["ant", "bee", "cat"], {"crop_pct": 1.0, "mean": [0.5] * 3}, folder)
    return folder, vit


def pooled(encoder: ViT, pooling: str) -> Tensor:
    with torch.no_grad():
        tokens = encoder(IMAGES)
    return tokens[:, 0] if pooling == "token" else tokens[:, 1:].mean(1)


def close(found: Tensor, wanted: Tensor) -> None:
    assert wanted.std() > 0.05
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_the_command_knows_all_formats() -> None:
    parser = build_parser()
    for fmt in FORMATS:
        assert parser.parse_args(["export", "c", "o", "--format", fmt]).format == fmt


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_timm_with_either_pooling(checkpoint: tuple[Path, ViT], pooling: str, tmp_path: Path) -> None:
    """Also with a new head, which stands on what the numbers were measured on."""
    path, encoder = checkpoint
    export(path, tmp_path / "o", "timm")
    for options in ({}, {"num_classes": 4}):
        model = timm.create_model(f"local-dir:{tmp_path / 'o'}", pretrained=True, global_pool=pooling, **options).eval()
        with torch.no_grad():
            close(model.forward_head(model.forward_features(IMAGES), pre_logits=True), pooled(encoder, pooling))
    assert "global_pool='avg'" in model.pretrained_cfg["description"]


@pytest.mark.parametrize("fmt", ["huggingface", "huggingface-mae", "openmmlab", "timm", "safetensors", "mmseg"])
def test_an_export_is_read_again(checkpoint: tuple[Path, ViT], fmt: str, tmp_path: Path) -> None:
    path, encoder = checkpoint
    export(path, out := tmp_path / f"o{FORMATS[fmt].suffix}", fmt)
    model = None if fmt != "openmmlab" else MODEL
    vit, _ = create_backbone(str(out), num_classes=0, img_size=16, global_pool="token", model=model)
    with torch.no_grad():
        close(vit.eval().forward_features(IMAGES), encoder(IMAGES))
    if fmt == "huggingface-mae":
        mae = MAE(create_encoder(**SHAPE), **DECODER)
        assert not load_pretrained(mae, out).missing
        assert torch.equal(mae.decoder.pred.weight, make_mae().decoder.pred.weight)


def test_huggingface_itself(checkpoint: tuple[Path, ViT], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    path, encoder = checkpoint
    line = export(path, tmp_path / "o", "huggingface").splitlines()[-1].removeprefix("load      ")
    model, loading = eval(line[:-1] + ", output_loading_info=True)", {"transformers": transformers})
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        close(model.eval()(IMAGES).last_hidden_state, encoder(IMAGES))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "o")
    assert processor.image_mean == pytest.approx([0.485, 0.456, 0.406])


def test_huggingfaces_mae_itself(checkpoint: tuple[Path, ViT], tmp_path: Path) -> None:
    """Encoder and decoder: the prediction for every patch."""
    transformers = pytest.importorskip("transformers")
    path, _ = checkpoint
    line = export(path, tmp_path / "o", "huggingface-mae").splitlines()[-1].removeprefix("load      ")
    model, loading = eval(line[:-1] + ", output_loading_info=True)", {"transformers": transformers})
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    model.config.mask_ratio, mae = 0.5, make_mae()
    with torch.no_grad():
        out = model.eval()(IMAGES, noise=torch.arange(16.0).expand(3, -1))
        latents = mae.encoder.encode(mae.encoder.embed(IMAGES)[:, :8])
        close(out.logits, mae.decoder(latents, out.ids_restore))


def test_huggingfaces_classifier(tmp_path: Path) -> None:
    folder, vit = classifier(tmp_path / "c", "token")
    export(folder, tmp_path / "o", "huggingface")
    state = read_weights(tmp_path / "o")
    assert "classifier.weight" in state.left_out
    averaged, _ = classifier(tmp_path / "a", "avg")
    with pytest.raises(CheckpointError, match=r"classifies the mean of its tokens.*export it to timm or onnx"):
        export(averaged, tmp_path / "p", "huggingface")
    transformers = pytest.importorskip("transformers")
    model = transformers.ViTForImageClassification.from_pretrained(tmp_path / "o").eval()
    with torch.no_grad():
        close(model(IMAGES).logits, vit(IMAGES))
    assert model.config.id2label == {0: "ant", 1: "bee", 2: "cat"}


@pytest.mark.parametrize("pooling", ["avg", "token"])
def test_a_classifier_is_exported_with_its_head(pooling: str, tmp_path: Path) -> None:
    folder, vit = classifier(tmp_path / "c", pooling)
    report = export(folder, tmp_path / "t", "timm")
    assert "a classifier of 3 classes" in report
    assert "it classifies" in report
    again = read_finetuned(tmp_path / "t")
    assert again.classes == ["ant", "bee", "cat"]
    assert again.evaluate["crop_pct"] == 1.0
    with torch.no_grad():
        close(again.model(IMAGES), vit(IMAGES))
    export(folder, tmp_path / "o.pt2", "torch-export")
    with torch.no_grad():
        close(torch.export.load(tmp_path / "o.pt2").module()(IMAGES), vit(IMAGES))
    with pytest.raises(CheckpointError, match=f"fine-tuned with pooling '{pooling}'; leave pooling out"):
        export(folder, tmp_path / "q.pt2", "torch-export", pooling="token" if pooling == "avg" else "avg")


@pytest.mark.parametrize("pooling", [None, "token"])
def test_torch_export_takes_any_number_of_images(
    checkpoint: tuple[Path, ViT], pooling: str | None, tmp_path: Path
) -> None:
    path, encoder = checkpoint
    line = export(path, tmp_path / "o.pt2", "torch-export", pooling=pooling).splitlines()[-1]
    with torch.no_grad():
        found = eval(line.removeprefix("load      "), {"torch": torch, "images": IMAGES})
    close(found, pooled(encoder, pooling or "avg"))


@pytest.mark.parametrize("kind", ["encoder", "classifier"])
def test_onnx_in_onnxruntime(checkpoint: tuple[Path, ViT], kind: str, tmp_path: Path) -> None:
    for needed in ("onnxscript", "onnx"):
        pytest.importorskip(needed)
    runtime = pytest.importorskip("onnxruntime")
    source, vit = classifier(tmp_path / "c") if kind == "classifier" else (checkpoint[0], None)
    line = export(source, tmp_path / "o.onnx", "onnx").splitlines()[-1].removeprefix("load      ")
    for count in (1, 3):
        (found,) = eval(line, {"onnxruntime": runtime, "images": IMAGES[:count].numpy()})
        with torch.no_grad():
            wanted = vit(IMAGES) if vit is not None else pooled(checkpoint[1], "avg")
        torch.testing.assert_close(torch.from_numpy(found), wanted[:count], atol=1e-4, rtol=0)


def test_weights_of_others_are_exported(tmp_path: Path) -> None:
    """Registers and layer scale go to timm, and are refused by name where there is no place for them."""
    vit = timm.models.vision_transformer.VisionTransformer(
        16, 4, embed_dim=24, depth=2, num_heads=2, num_classes=0, reg_tokens=2, init_values=0.5
    ).eval()
    torch.save({"net": vit.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="how many heads"):
        export(tmp_path / "w.pth", tmp_path / "o", "timm")
    export(tmp_path / "w.pth", tmp_path / "o", "timm", num_heads=2)
    model = timm.create_model(f"local-dir:{tmp_path / 'o'}", pretrained=True).eval()
    with torch.no_grad():
        close(model.forward_features(IMAGES), vit.forward_features(IMAGES))
    with pytest.raises(CheckpointError, match="a ViT with registers and layer scale, which Hugging Face's lacks"):
        export(tmp_path / "w.pth", tmp_path / "h", "huggingface", num_heads=2)
    assert not (tmp_path / "h").exists()


def test_mmpretrain_itself(checkpoint: tuple[Path, ViT], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mmpretrain.version")
    arch = {"embed_dims": 24, "num_layers": 2, "num_heads": 2, "feedforward_channels": 96}
    model = mmpretrain_vit(monkeypatch)(arch=arch, img_size=16, patch_size=4, out_type="raw")
    model.eval()
    export(checkpoint[0], tmp_path / "o.pth", "openmmlab")
    state = torch.load(tmp_path / "o.pth", weights_only=True)["state_dict"]
    model.load_state_dict({key.removeprefix("backbone."): value for key, value in state.items()})
    with torch.no_grad():
        close(model(IMAGES)[-1], checkpoint[1](IMAGES))


def test_a_damaged_graph_is_not_written(
    checkpoint: tuple[Path, ViT], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlomae.backbones.export_formats.TOLERANCE", -1.0)
    with pytest.raises(CheckpointError, match="computes something else than the model"):
        export(checkpoint[0], tmp_path / "o.pt2", "torch-export")
    assert not list(tmp_path.iterdir())


def test_a_source_says_what_is_left_out(checkpoint: tuple[Path, ViT]) -> None:
    source = read_source(checkpoint[0])
    assert source.left_out == {"mask": 1}
    assert set(source.decoder) == set(make_mae().decoder.state_dict())
