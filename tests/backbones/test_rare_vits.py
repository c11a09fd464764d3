"""ViTs with registers, layer scale, other MLPs or epsilons, after a transfer: built again from its checkpoint."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import cls_runs
import pytest
import seg_runs
import torch
from photos import write_photos
from safetensors.torch import save_file
from timm import create_model
from timm.models.vision_transformer import VisionTransformer

from mlomae import cli
from mlomae.backbones.create import create_backbone
from mlomae.backbones.finetuned import read_finetuned
from mlomae.backbones.load import evaluate_transfer
from mlomae.classification.classify import write_model
from mlomae.common import checkpoint
from mlomae.common.checkpoint import list_checkpoints
from mlomae.common.files import read_json
from mlomae.models import weights
from mlomae.models.architecture import is_plain, section_of

SHAPE = {"patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2}
RARE: dict[str, dict[str, Any]] = {
    "registers": {"reg_tokens": 2, "no_embed_class": True},
    "registers with positions": {"reg_tokens": 1},
    "layer scale, no biases": {"init_values": 0.5, "qkv_bias": False},
    "MLP, epsilon": {"mlp_ratio": 2.0, "norm_layer": partial(torch.nn.LayerNorm, eps=1e-2)},
}


def rare_vit(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    vit = VisionTransformer(16, num_classes=0, **SHAPE, **options)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return vit


def write(file: Path, vit: VisionTransformer) -> str:
    """As an export of ours, which says heads and epsilon."""
    file.parent.mkdir(parents=True, exist_ok=True)
    model = {**SHAPE, "norm_eps": vit.blocks[0].norm1.eps}  # type: ignore[union-attr]
    save_file(vit.state_dict(), file, {"mlomae.name": "x", "mlomae.model": json.dumps(model)})
    return str(file)


@pytest.mark.parametrize("name", RARE)
def test_a_fine_tuned_one_is_evaluated_used_and_exported(name: str, tmp_path: Path) -> None:
    spec, work = write(tmp_path / "w.safetensors", rare_vit(**RARE[name])), tmp_path / "run"
    cls_runs.run_transfer(cls_runs.config(backbone={"weights": spec, "img_size": 16}), work)
    metrics = read_json(work / "record.json")["metrics"]
    assert evaluate_transfer(work)["top1"] == metrics["top1"]
    write_model(work)
    images = torch.randn(2, 3, 16, 16)
    tuned = read_finetuned(list_checkpoints(work)[-1])
    if "norm_layer" not in RARE[name]:  # which timm's config cannot say
        with torch.no_grad():
            torch.testing.assert_close(create_model(f"local-dir:{work}", pretrained=True)(images), tuned.logits(images))
    assert tuned.model.blocks[0].norm1.eps == (1e-2 if "norm_layer" in RARE[name] else 1e-6)  # type: ignore[index, union-attr]
    assert cli.main(["export", str(work), str(tmp_path / "out.safetensors")]) == 0


@pytest.mark.parametrize("name", RARE)
def test_a_segmenter_of_one_is_evaluated(name: str, tmp_path: Path) -> None:
    scenes = seg_runs.write_data(tmp_path / "scenes")
    spec, work = write(tmp_path / "w.safetensors", rare_vit(**RARE[name])), tmp_path / "run"
    backbone = {"weights": spec, "img_size": 16, "out_indices": [0, 1, 2, 3]}
    seg_runs.run_transfer(seg_runs.config(scenes, backbone=backbone, train__iterations=2), work)
    metrics = read_json(work / "record.json")["metrics"]
    assert evaluate_transfer(work)["mIoU"] == pytest.approx(metrics["mIoU"], abs=1e-9)


@pytest.mark.parametrize("name", RARE)
def test_random_weights_of_its_architecture_begin_as_pretraining_does(name: str, tmp_path: Path) -> None:
    vit = rare_vit(**RARE[name])
    spec = write(tmp_path / "w.safetensors", vit)
    options: dict[str, Any] = {"num_classes": 0, "img_size": 16, "global_pool": "token"}
    found, _ = create_backbone(f"random:{spec}", **options)
    assert {k: v.shape for k, v in found.state_dict().items()} == {k: v.shape for k, v in vit.state_dict().items()}
    assert is_plain(vit)
    again, _ = create_backbone("random", model=section_of(vit), **options)
    assert section_of(again) == section_of(vit)
    assert all(torch.equal(again.state_dict()[key], value) for key, value in found.state_dict().items())
    if "reg_tokens" in RARE[name]:
        assert 0.005 < found.reg_token.std().item() < 0.05  # type: ignore[union-attr]
    if "init_values" in RARE[name]:
        assert (found.blocks[0].ls1.gamma == 1).all()  # type: ignore[union-attr, union-attr]


def test_what_a_run_cannot_describe_is_refused_before_it_is_trained(tmp_path: Path, capsys) -> None:
    name = "vit_xsmall_patch16_clip_224"
    data = write_photos(tmp_path / "pets", 5, 2)
    command = ["classify", "--data", str(data), "--weights", f"timm:{name}", "--out", str(tmp_path / "run")]
    assert cli.main(command) == 2
    assert f"'timm:{name}' has more than a plain ViT" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_command_reads_a_checkpoint_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    cls_runs.run_transfer(cls_runs.config(), tmp_path / "run")
    photo = next(write_photos(tmp_path / "pets", 5, 2).rglob("*.jpg"))
    looks, intact = [], checkpoint.check_intact
    for module in (checkpoint, weights):
        monkeypatch.setattr(module, "check_intact", lambda path: (looks.append(path), intact(path))[1])
    loaded, load = [], torch.load
    whole = lambda *args, **options: (loaded.append(args[0]), load(*args, **options))[1]  # noqa: E731
    monkeypatch.setattr(torch, "load", lambda *a, **k: load(*a, **k) if k.get("mmap") else whole(*a, **k))
    file = list_checkpoints(tmp_path / "run")[-1]
    for arguments in (["predict", "run", str(photo)], ["export", "run", "out.safetensors"], ["evaluate", "run"]):
        monkeypatch.chdir(tmp_path)
        assert cli.main(arguments) == 0
        assert [path.resolve() for path in looks] == [path.resolve() for path in loaded] == [file]
        looks.clear(), loaded.clear()
