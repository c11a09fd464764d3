"""Exports load elsewhere with the same features, say what they did, and never leave half a file."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mlomae.backbones import export as export_module
from mlomae.backbones.export import export
from mlomae.common.checkpoint import FORMAT
from mlomae.common.errors import CheckpointError, DataError
from mlomae.data import MemorySource
from mlomae.data.copies import FILE, check_trained_on, load_digests, save_digests
from mlomae.models import MAE, ViT, create_encoder
from mlomae.models.loading import load_pretrained
from mlomae.models.places import weights_path
from mlomae.models.weights import read_weights

MODEL = {
    "size": "tiny",
    "img_size": 16,
    "patch_size": 4,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 2,
    "decoder_embed_dim": 12,
    "decoder_depth": 1,
    "decoder_num_heads": 2,
    "norm_pix_loss": True,
}


def make_checkpoint(path: Path, **model: object) -> ViT:
    """A training checkpoint with random parameters; returns its encoder."""
    torch.manual_seed(0)
    section = {**MODEL, **model}
    shape = {k: section[k] for k in ("size", "img_size", "patch_size", "embed_dim", "depth", "num_heads")}
    mae = MAE(create_encoder(**shape), 12, 1, 2)  # type: ignore[arg-type]
    for name, parameter in mae.named_parameters():
        if not name.endswith("pos_embed"):
            torch.nn.init.normal_(parameter, std=0.2)
    augment = {"type": "Plain", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    content = {
        "format": FORMAT,
        "iteration": 7,
        "config": {"model": section, "data": {"augment": augment}},
        "meta": {"name": "run", "seed": 0},
        "modules": {"mae": mae.state_dict(), "mask": {"w": torch.zeros(2)}, "feedback": {"fc.weight": torch.zeros(3)}},
    }
    torch.save(content, path)
    return mae.encoder.eval()


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, ViT]:
    path = tmp_path / "iter_7.pth"
    return path, make_checkpoint(path)


def test_timm_folder_gives_our_features(checkpoint: tuple[Path, ViT], tmp_path: Path) -> None:
    path, encoder = checkpoint
    out = tmp_path / "folder"
    export(path, out, "timm")
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        ours = encoder(images)
        assert ours.std() > 0.1
        assert torch.allclose(model.forward_features(images), ours, atol=1e-6, rtol=1e-6)
        assert torch.allclose(model(images), ours[:, 0], atol=1e-6, rtol=1e-6)
        assert not torch.allclose(timm.create_model(f"local-dir:{out}").forward_features(images), ours, atol=1e-2)
    assert model.num_classes == 0
    assert model.pretrained_cfg["mean"] == [0.1, 0.2, 0.3]
    assert tuple(model.pretrained_cfg["input_size"]) == (3, 16, 16)


@pytest.mark.parametrize(
    ("fmt", "out"),
    [("safetensors", "vit.safetensors"), ("timm", "folder"), ("mmseg", "vit.pth"), ("mmdet", "vit.pth")],
)
def test_what_an_export_was_trained_on_goes_along(fmt: str, out: str, tmp_path: Path) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8))
    source = MemorySource("memory", "train", "run", ["a"], images, [0] * 5, ["run"])
    path = tmp_path / "run" / "checkpoints" / "iter_7.pth"
    path.parent.mkdir(parents=True)
    make_checkpoint(path)
    save_digests(tmp_path / "run", [source])
    target = tmp_path / "exports" / out
    for _ in range(2):  # the second replaces the first
        assert "tells the images" in export(path, target, fmt)
        with pytest.raises(DataError, match=r"5 of 5 evaluation images are in training \(image 0, .*; where\)"):
            check_trained_on(weights_path(target), source, "; where")
    (tmp_path / "exports" / "other.pth").touch()
    assert load_digests(tmp_path / "exports" / "other.pth") is None
    (tmp_path / "run" / FILE).unlink()
    assert "are not known" in export(path, target, fmt)
    assert load_digests(weights_path(target)) is None


def test_timm_folder_takes_a_new_head(checkpoint: tuple[Path, ViT], tmp_path: Path) -> None:
    path, encoder = checkpoint
    export(path, tmp_path / "folder", "timm")
    model = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True, num_classes=5).eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert model(images).shape == (2, 5)
        assert torch.allclose(model.forward_features(images), encoder(images), atol=1e-6, rtol=1e-6)


def test_a_timm_folder_states_the_whole_architecture(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "c.pth", embed_dim=None, num_heads=None)
    export(tmp_path / "c.pth", tmp_path / "folder", "timm")
    arguments = json.loads((tmp_path / "folder" / "config.json").read_text())["model_args"]
    shape = {"img_size": 16, "patch_size": 4, "embed_dim": 192, "depth": 2, "num_heads": 3, "mlp_ratio": 4.0}
    assert arguments == {**shape, "global_pool": "token", "fc_norm": False}


def test_safetensors_round_trip_and_metadata(checkpoint: tuple[Path, ViT], tmp_path: Path) -> None:
    path, encoder = checkpoint
    out = tmp_path / "sub" / "vit.safetensors"
    export(path, out, "safetensors")
    tensors, wanted = load_file(out), encoder.state_dict()
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[k], wanted[k]) for k in wanted)
    with safe_open(out, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["mlomae.name"] == "run"
    assert metadata["mlomae.source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert json.loads(metadata["mlomae.model"])["num_heads"] == 2
    assert str(tmp_path) not in json.dumps(metadata)


def test_exported_weights_continue_pretraining_but_not_with_other_heads(
    checkpoint: tuple[Path, ViT], tmp_path: Path
) -> None:
    path, encoder = checkpoint
    export(path, tmp_path / "vit.safetensors", "safetensors")
    mae = MAE(create_encoder("tiny", 16, 4, 24, 2, 2), 12, 1, 2)
    load_pretrained(mae, tmp_path / "vit.safetensors")
    assert torch.equal(mae.encoder.cls_token, encoder.cls_token)
    with pytest.raises(CheckpointError, match="num_heads=2, not 4"):
        load_pretrained(MAE(create_encoder("tiny", 16, 4, 24, 2, 4), 12, 1, 2), tmp_path / "vit.safetensors")


@pytest.mark.parametrize("fmt", ["mmseg", "mmdet"])
def test_openmmlab_prefix(checkpoint: tuple[Path, ViT], tmp_path: Path, fmt: str) -> None:
    path, encoder = checkpoint
    export(path, tmp_path / "b.pth", fmt)
    content = torch.load(tmp_path / "b.pth", weights_only=True)
    assert set(content) == {"state_dict", "meta"}
    wanted = {f"backbone.{k}": v for k, v in encoder.state_dict().items()}
    assert content["state_dict"].keys() == wanted.keys()
    assert all(torch.equal(content["state_dict"][k], wanted[k]) for k in wanted)
    assert json.loads(json.dumps(content["meta"])) == content["meta"]


def test_mmengine_loads_the_backbone_file(checkpoint: tuple[Path, ViT], tmp_path: Path) -> None:
    runner = pytest.importorskip("mmengine.runner")
    path, encoder = checkpoint
    export(path, tmp_path / "b.pth", "mmseg")
    holder = torch.nn.Module()
    holder.backbone = create_encoder("tiny", 16, 4, 24, 2, 2)
    runner.load_checkpoint(holder, str(tmp_path / "b.pth"), map_location="cpu", strict=True)
    assert torch.equal(holder.backbone.cls_token, encoder.cls_token)


def test_the_report_is_a_summary_that_ends_with_how_to_load(checkpoint: tuple[Path, ViT], tmp_path: Path) -> None:
    path, encoder = checkpoint
    lines = export(path, tmp_path / "folder", "timm").splitlines()
    assert len(lines) < 10
    assert f"an encoder, {len(encoder.state_dict())} tensors" in lines[0]
    assert any("1 tensor of mask, 1 tensor of feedback, 20 tensors of decoder" in line for line in lines)
    assert any(
        "its numbers were measured on the mean of the patch tokens (global_pool='avg')" in line for line in lines
    )
    line = lines[-1].removeprefix("load      ")
    assert line == f"timm.create_model('local-dir:{tmp_path / 'folder'}', pretrained=True, global_pool='avg')"
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        pooled = eval(line, {"timm": timm}).eval()(images)  # what the user is told to type
        torch.testing.assert_close(pooled, encoder(images)[:, 1:].mean(1), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("fmt", ["safetensors", "timm", "mmseg"])
def test_damage_while_writing_is_noticed_and_the_old_export_stays(
    checkpoint: tuple[Path, ViT], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fmt: str
) -> None:
    path, _ = checkpoint
    out = tmp_path / {"safetensors": "o.safetensors", "timm": "o", "mmseg": "o.pth"}[fmt]
    export(path, out, fmt)
    weights = out / "model.safetensors" if fmt == "timm" else out
    before = weights.read_bytes()
    same_bits = export_module._same_bits
    monkeypatch.setattr(export_module, "_same_bits", lambda a, b: same_bits(a, b.clone().fill_(-0.0)))
    with pytest.raises(CheckpointError, match="reads back differently"):
        export(path, out, fmt)
    assert weights.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {path.name, out.name}
    monkeypatch.undo()
    export(path, out, fmt)  # and a good export replaces it
    assert {p.name for p in tmp_path.iterdir()} == {path.name, out.name}


@pytest.mark.parametrize(("fmt", "out"), [("safetensors", "o.safetensors"), ("timm", "o"), ("mmseg", "o.pth")])
def test_who_may_read_an_export_is_up_to_the_umask(
    checkpoint: tuple[Path, ViT], tmp_path: Path, fmt: str, out: str
) -> None:
    before = os.umask(0o027)
    try:
        export(checkpoint[0], tmp_path / out, fmt)
    finally:
        os.umask(before)
    for path in (tmp_path / out).iterdir() if fmt == "timm" else [tmp_path / out]:
        assert path.stat().st_mode & 0o777 == 0o640


def test_comparison_is_of_bits() -> None:
    assert not export_module._same_bits(torch.zeros(2), -torch.zeros(2))
    assert export_module._same_bits(torch.tensor([float("nan")]), torch.tensor([float("nan")]))
    assert not export_module._same_bits(torch.zeros(2), torch.zeros(2, dtype=torch.int32))


def test_bad_inputs(checkpoint: tuple[Path, ViT], tmp_path: Path) -> None:
    path, _ = checkpoint
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "thesis.tex").write_text("keep")
    cases = [
        (path, tmp_path / "x.tf", "tf", "unknown export format 'tf'; choose one of safetensors, timm"),
        (path, tmp_path / "x.bin", "safetensors", "ending in .safetensors"),
        (path, tmp_path / "x", "mmseg", "ending in .pth"),
        (path, occupied, "timm", "holds other things"),
        (tmp_path / "none.pth", tmp_path / "x.pth", "mmseg", "does not exist"),
    ]
    for source, out, fmt, message in cases:
        with pytest.raises(CheckpointError, match=message) as error:
            export(source, out, fmt)
        assert "\n" not in str(error.value)
    assert (occupied / "thesis.tex").read_text() == "keep"


def test_checkpoint_that_contradicts_its_config(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "c.pth")
    content = torch.load(tmp_path / "c.pth", weights_only=True)
    content["config"]["model"]["depth"] = 3
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="contradicts its own config"):
        export(tmp_path / "c.pth", tmp_path / "o.pth", "mmseg")
    assert not (tmp_path / "o.pth").exists()


def test_a_backbone_file_declares_its_heads_too(checkpoint: tuple[Path, ViT], tmp_path: Path) -> None:
    """Shapes do not tell them; without the file's own word a model of other heads would start from it silently."""
    export(checkpoint[0], tmp_path / "b.pth", "mmseg")
    assert read_weights(tmp_path / "b.pth").model["num_heads"] == 2
    wrong = MAE(create_encoder("tiny", 16, 4, 24, 2, num_heads=3), 12, 1, 2)
    with pytest.raises(CheckpointError, match="num_heads=2, not 3"):
        load_pretrained(wrong, tmp_path / "b.pth")
