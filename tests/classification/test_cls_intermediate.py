"""Supervised intermediate fine-tuning: what a fine-tuning leaves is a backbone, and its labels are not tested on."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cls_runs
import pytest
import torch
from cls_runs import main, run_transfer
from PIL import Image, ImageOps
from run_samples import changed, one_line
from torch.nn import functional as F

from mlomae.backbones.create import create_backbone
from mlomae.backbones.feature_vit import FeatureViT
from mlomae.backbones.provenance import describe_weights
from mlomae.classification.config import ClassificationConfig
from mlomae.common.checkpoint import TRANSFER_FORMAT, checkpoint_path, load_checkpoint, save_atomically
from mlomae.common.errors import CheckpointError, DataError
from mlomae.data.copies import FILE
from mlomae.models.architecture import read_encoder

SEED = 3
NAME = "MLO-MAE + fine-tuned on textures (labels)"


SMALL = {"data__train__count": 32, "data__test__count": 8, "train__epochs": 1, "backbone__model": None, "seed": SEED}
END = 2


def transfer(work: Path, weights: Path, **changes: Any) -> dict[str, Any]:
    """The record of two iterations."""
    values = changed(cls_runs.values(**SMALL, backbone__weights=str(weights)), changes)
    return run_transfer(ClassificationConfig.from_dict(values), work)


@pytest.fixture(autouse=True, scope="module")
def no_pictures() -> Iterator[None]:
    """The confusion matrix is half the time of a transfer as small as these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlomae.classification.run.save_confusion", lambda *arguments: None)
        yield


@pytest.fixture(scope="module")
def chain(one_thread: None, no_pictures: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A pretraining and its fine-tuning: checkpoints and records."""
    work = tmp_path_factory.mktemp("chain")
    start, before = cls_runs.pretrain(work / "pretrained", seed=SEED)
    record = transfer(work / "finetuned", start, name="intermediate")
    return {"start": start, "before": before, "ckpt": checkpoint_path(work / "finetuned", END), "record": record}


def edited(source: Path, target: Path, change: Any) -> Path:
    state = load_checkpoint(source, TRANSFER_FORMAT)
    change(state)
    save_atomically(state, target)
    return target


@pytest.mark.parametrize("protocol", ["finetune", "linear", "knn"])
def test_every_protocol_takes_it_and_the_record_says_what_it_is(
    protocol: str, chain: dict[str, Any], tmp_path: Path
) -> None:
    config = cls_runs.write_config(tmp_path / "config.py", **SMALL, protocol=protocol)
    assert main([str(config), "--weights", str(chain["ckpt"]), "--work-dir", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert (record["method"], record["seed"]) == (NAME, SEED)
    weights = record["config"]["backbone"]["weights"]
    assert weights == {"method": NAME, "config_hash": chain["record"]["config_hash"], "iteration": END}
    assert record["pretrained"]["images_seen"] == chain["before"]["images_seen"]["lower"] + END * 16
    spent = chain["before"]["cpu_s"] + chain["record"]["cpu_s"]
    assert record["pretrained"]["clock"]["cpu"] == pytest.approx(spent, abs=0.1)


@torch.no_grad()
def test_the_weights_are_those_that_were_fine_tuned(chain: dict[str, Any]) -> None:
    saved = load_checkpoint(chain["ckpt"], TRANSFER_FORMAT)["modules"]["backbone"]
    vit, report = create_backbone(str(chain["ckpt"]), num_classes=0, img_size=16, global_pool="avg", keep_norm=True)
    assert vit.blocks[0].attn.num_heads == 2
    assert "norm: the fine-tuned fc_norm" in str(report)
    own = vit.state_dict()
    for key, value in saved.items():
        if not key.startswith("head."):
            assert torch.equal(own[key.replace("fc_norm.", "norm.")], value), key
    pretrained, _ = create_backbone(str(chain["start"]), num_classes=0, img_size=16, keep_norm=True)
    assert not torch.equal(pretrained.state_dict()["blocks.1.mlp.fc1.weight"], own["blocks.1.mlp.fc1.weight"])
    image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x = vit.forward_features(image)[:, 1:].mean(dim=1)  # norm, then mean: the affine part of fc_norm is there
    tokens = vit.blocks(vit._pos_embed(vit.patch_embed(image)))[:, 1:]
    plain = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6).mean(dim=1)
    torch.testing.assert_close(x, plain * saved["fc_norm.weight"] + saved["fc_norm.bias"])


def test_fine_tuning_again_starts_with_a_fresh_norm_and_head(chain: dict[str, Any]) -> None:
    vit, report = create_backbone(str(chain["ckpt"]), num_classes=4, img_size=16, global_pool="avg")
    assert torch.equal(vit.fc_norm.weight, torch.ones(16))
    saved = load_checkpoint(chain["ckpt"], TRANSFER_FORMAT)["modules"]["backbone"]
    assert not torch.equal(vit.head.weight, saved["head.weight"])
    assert {"head.weight", "norm.weight"} <= set(report.unexpected)


def test_dense_tasks_take_it(chain: dict[str, Any]) -> None:
    vit = FeatureViT(str(chain["ckpt"]), img_size=16, out_indices=(0, 1))
    assert [tuple(m.shape) for m in vit(torch.zeros(1, 3, 16, 16))] == [(1, 16, 4, 4)] * 2


def test_a_class_token_keeps_its_norm_and_an_average_its_weights(chain: dict[str, Any], tmp_path: Path) -> None:
    changes = {"backbone__global_pool": "token", "train__ema": 0.5}
    transfer(tmp_path, chain["start"], **changes)
    path = checkpoint_path(tmp_path, END)
    modules = load_checkpoint(path, TRANSFER_FORMAT)["modules"]
    state = read_encoder(path)[0].encoder
    assert torch.equal(state["norm.weight"], modules["ema"]["module.norm.weight"])
    assert torch.equal(state["blocks.0.mlp.fc1.weight"], modules["ema"]["module.blocks.0.mlp.fc1.weight"])
    assert not torch.equal(state["blocks.0.mlp.fc1.weight"], modules["backbone"]["blocks.0.mlp.fc1.weight"])


def test_seeds_share_an_identity_and_recipes_do_not(chain: dict[str, Any], tmp_path: Path) -> None:
    other, _ = cls_runs.pretrain(tmp_path / "pretrained", seed=SEED + 1)
    transfer(tmp_path / "seed", other, seed=SEED + 1)
    transfer(tmp_path / "recipe", chain["start"], optim__lr=1e-3)
    paths = (chain["ckpt"], *(checkpoint_path(tmp_path / name, END) for name in ("seed", "recipe")))
    one, seed, recipe = (describe_weights(str(path)) for path in paths)
    assert one.identity == seed.identity
    assert (one.seed, seed.seed) == (SEED, SEED + 1)
    assert one.identity != recipe.identity
    assert one.method == recipe.method


def test_other_transfers_leave_no_backbone(chain: dict[str, Any], tmp_path: Path) -> None:
    transfer(tmp_path / "linear", chain["start"], protocol="linear")
    probe = checkpoint_path(tmp_path / "linear", END)
    dense = edited(probe, tmp_path / "dense.pth", lambda s: (s["modules"].clear(), s["config"].pop("protocol")))
    for path, word in ((probe, "linear"), (dense, "dense task")):
        for use in (describe_weights, read_encoder, lambda spec: create_backbone(spec, num_classes=0, img_size=16)):
            with pytest.raises(CheckpointError, match=f"{word}.*fine-tunes no backbone") as error:
                use(str(path))
            one_line(error.value)


def test_a_checkpoint_of_before_they_declared_it_asks_for_the_heads(chain: dict[str, Any], tmp_path: Path) -> None:
    old = edited(chain["ckpt"], tmp_path / "old.pth", lambda s: [s["meta"].pop(k) for k in ("model", "labelled")])
    with pytest.raises(CheckpointError, match=r"set model\.num_heads") as error:
        create_backbone(str(old), num_classes=0, img_size=16)
    one_line(error.value)
    vit, _ = create_backbone(str(old), num_classes=0, img_size=16, model={"num_heads": 2})
    assert vit.blocks[0].attn.num_heads == 2
    assert len(describe_weights(str(old)).labelled) == 1


# --- what it was fine-tuned on must not be tested on --------------------------------------------------------------

SWAPPED = {
    "data__train": {**cls_runs.TEXTURES, "split": "test", "count": 32},
    "data__test": {**cls_runs.TEXTURES, "split": "train", "count": 8},
}


def folder(root: Path, parts: dict[str, int]) -> Path:
    """An image folder of two classes; the images of a part are those of its number."""
    for part, number in parts.items():
        for i in range(8):
            path = root / part / f"class{i % 2}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            generator = torch.Generator().manual_seed(100 * number + i)
            pixels = torch.randint(256, (16, 16, 3), dtype=torch.uint8, generator=generator)
            Image.fromarray(pixels.numpy()).save(path)
    return root


def folders(root: Path) -> dict[str, Any]:
    sources = {part: {"type": "imagefolder", "root": str(root), "split": part} for part in ("train", "test")}
    return {"data__train": sources["train"], "data__test": sources["test"], "data__batch_size": 4}


def test_test_images_that_were_fine_tuned_on_are_refused(chain: dict[str, Any], tmp_path: Path) -> None:
    """The pair of the fine-tuning is fine by itself, and so is that of the transfer."""
    transfer(tmp_path / "swapped", chain["start"], **SWAPPED)
    leaked = checkpoint_path(tmp_path / "swapped", END)
    with pytest.raises(DataError, match="evaluation images would reach training") as error:
        transfer(tmp_path / "leak", leaked)
    one_line(error.value)
    assert not (tmp_path / "leak" / "record.json").exists()
    transfer(tmp_path / "again", leaked, **SWAPPED)  # the same pair: its test images are unseen
    again = checkpoint_path(tmp_path / "again", END)
    twice = describe_weights(str(again))
    assert twice.method == f"{NAME} + fine-tuned on textures (labels)"
    assert [source["split"] for source in twice.labelled] == ["test", "test"]
    with pytest.raises(DataError, match="evaluation images would reach training"):
        transfer(tmp_path / "later", again)


def test_near_copies_of_them_are_accepted_where_the_configuration_does(chain: dict[str, Any], tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a", {"train": 1, "test": 2}), folder(tmp_path / "b", {"train": 3, "test": 1})
    for path in (second / "test").rglob("*.png"):
        ImageOps.mirror(Image.open(path)).save(path)
    transfer(tmp_path / "one", chain["start"], **folders(first))
    ckpt = checkpoint_path(tmp_path / "one", END)
    with pytest.raises(DataError, match="8 of 8 evaluation images have near copies in training"):
        transfer(tmp_path / "two", ckpt, **folders(second))
    record = transfer(tmp_path / "two", ckpt, **folders(second), data__allow_near_copies=True)
    assert record["copies"]["pretraining"] == {"compared": 8, "equal": 0, "near": 8}


def test_copies_of_them_elsewhere_are_refused_too(chain: dict[str, Any], tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a", {"train": 1, "test": 2}), folder(tmp_path / "b", {"train": 3, "test": 1})
    transfer(tmp_path / "one", chain["start"], **folders(first))
    ckpt = checkpoint_path(tmp_path / "one", END)
    with pytest.raises(DataError, match="8 of 8 evaluation images are in training"):
        transfer(tmp_path / "two", ckpt, **folders(second))
    shutil.rmtree(first)  # the digests beside the weights remain
    with pytest.raises(DataError, match=r"8 of 8 evaluation images are in training .*; pretraining of"):
        transfer(tmp_path / "later", ckpt, **folders(second))
    (tmp_path / "one" / FILE).unlink()  # weights of an earlier version: kind and part are known
    record = transfer(tmp_path / "unknown", ckpt, **folders(second))
    assert record["copies"] == {"training": {"compared": 8, "equal": 0, "near": 0}, "pretraining": "unknown"}
    swapped = {**folders(second), "data__train": {"type": "imagefolder", "root": str(second), "split": "test"}}
    swapped["data__test"] = {"type": "imagefolder", "root": str(second), "split": "train"}
    with pytest.raises(DataError, match="fine-tuned with the labels of imagefolder train") as error:
        transfer(tmp_path / "three", ckpt, **swapped)
    one_line(error.value)


def test_what_cannot_be_compared_is_said(
    chain: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = folder(tmp_path / "a", {"train": 1, "test": 2}), folder(tmp_path / "b", {"train": 3, "test": 4})
    transfer(tmp_path / "one", chain["start"], **folders(first))
    assert "not compared" not in capsys.readouterr().out
    shutil.rmtree(first)
    transfer(tmp_path / "two", checkpoint_path(tmp_path / "one", END), **folders(second))
    assert "imagefolder train, which the backbone was fine-tuned on, is not compared" in capsys.readouterr().out
