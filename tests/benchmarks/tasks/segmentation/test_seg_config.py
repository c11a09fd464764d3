"""Configurations are checked key by key; whatever is wrong on the command line is one line, status 2, untrained."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import backbone_samples
import numpy as np
import pytest
import seg_runs
import torch
from mmseg.registry import TRANSFORMS
from PIL import Image
from run_samples import one_line
from seg_runs import main

from benchmarks.tasks.segmentation.config import SegmentationConfig
from benchmarks.tasks.segmentation.model import build_segmentor
from benchmarks.transfer.dense import TransformedImages
from mlomae.backbones.training import TransferStep
from mlomae.common.errors import ConfigError

ROOT = Path(__file__).parents[4]
CONFIGS = sorted((ROOT / "configs" / "segmentation").glob("*.py"))
NOWHERE = Path("nowhere")
INF, NAN = float("inf"), float("nan")
OUT_OF_RANGE: list[tuple[str, Any]] = [
    ("seed", -1),
    ("overlays", -1),
    ("data.batch_size", 0),
    ("data.num_workers", -1),
    ("backbone.img_size", [16, 16, 16]),
    ("backbone.drop_path", 1.0),
    ("optim.type", "adam"),
    ("optim.lr", NAN),
    ("optim.weight_decay", -0.1),
    ("optim.layer_decay", 1.1),
    ("optim.betas", [0.9]),
    ("optim.momentum", 1.0),
    ("optim.warmup", 1.5),
    ("optim.min_lr", 1.0),
    ("optim.clip_grad", 0.0),
    ("train.iterations", 0),
    ("train.decay", "poly"),
    ("train.amp", "fp16"),
    ("train.log_interval", 0),
    ("train.checkpoint_interval", 0),
    ("train.keep_checkpoints", 0),
    ("train.eval_interval", 0),
    ("train.select", "good"),
]


def said_of(changes: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        seg_runs.config(NOWHERE, **changes)
    return one_line(error.value)


@pytest.mark.parametrize(("key", "value"), OUT_OF_RANGE)
def test_values_out_of_range_are_named(key: str, value: Any) -> None:
    assert f"config key '{key}' " in said_of({key.replace(".", "__"): value})


def leaves(values: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        nested = dataclasses.is_dataclass(value)
        yield from leaves(value, f"{prefix}{field.name}.") if nested else [f"{prefix}{field.name}"]


LEAVES = list(leaves(seg_runs.config(NOWHERE)))


@pytest.mark.parametrize("key", LEAVES)
def test_values_of_another_type_are_named(key: str) -> None:
    assert f"config key '{key}' must be " in said_of({key.replace(".", "__"): {1, 2}})  # no key takes a set


def test_every_bounded_key_has_a_case() -> None:
    free = {"name", "demo", "custom_imports", "model", "data.train", "data.test", "data.augment", "data.evaluate"}
    free |= {f"data.{key}" for key in ("allow_near_copies", "allow_seen", "mean", "std", "val")}
    free |= {f"backbone.{key}" for key in ("weights", "model", "out_indices", "with_cp")}
    free |= {f"backbone.{key}" for key in ("window_size", "global_blocks", "rel_pos")}  # the backbone's to check
    assert set(LEAVES) - free == {key for key, _ in OUT_OF_RANGE}


@pytest.mark.parametrize("section", ["", "data.", "backbone.", "optim.", "train."])
def test_unknown_keys_are_named(section: str) -> None:
    assert f"unknown config key '{section}speed'" in said_of({f"{section}speed".replace(".", "__"): 1})


def test_missing_keys_and_keys_that_are_made_are_named() -> None:
    for key in ("name", "model", "data"):
        given = seg_runs.values(NOWHERE)
        del given[key]
        with pytest.raises(ConfigError, match=f"config key '{key}' is missing"):
            SegmentationConfig.from_dict(given)
    assert "config key 'data.test.type' is missing" in said_of({"data__test": {"split": "validation"}})
    for key in ("backbone", "data_preprocessor", "pretrained", "init_cfg"):
        assert f"'model.{key}' is made from the other sections; leave it out" in said_of({f"model__{key}": {}})


def test_plain_values_survive_a_round_trip() -> None:
    config = seg_runs.config(NOWHERE, backbone__img_size=[16, 32], seed=3, overlays=0)
    assert SegmentationConfig.from_dict(config.to_dict()) == config
    assert (config.backbone.height_width, config.backbone.out_indices) == ((16, 32), (0, 1, 2, 3))
    assert seg_runs.config(NOWHERE).backbone.height_width == (16, 16)


# --- the configurations that ship -------------------------------------------------------------------------------------


def reduced(config: SegmentationConfig) -> SegmentationConfig:
    """The same recipe on a ViT of width 24, as deep as its maps want, with narrow heads: what differs is only width."""
    patch = 16 if min(config.backbone.height_width) >= 224 else 8
    depth = config.backbone.out_indices[-1] + 1
    config.backbone.weights = "random"
    config.backbone.model = {"patch_size": patch, "embed_dim": 24, "depth": depth, "num_heads": 2}
    for head in ("decode_head", "auxiliary_head"):
        config.model[head]["channels"] = 8
        config.model[head]["loss_decode"].pop("class_weight", None)  # of as many classes as the recipe's data have
    return config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_build_and_predict(path: Path) -> None:
    config = reduced(SegmentationConfig.load(path))
    assert config.name == path.stem
    assert config.train.decay == "linear"
    TransformedImages(TRANSFORMS, config.data.augment, train=True, seed=0, name="scenes")
    TransformedImages(TRANSFORMS, config.data.evaluate, train=False, seed=0, name="scenes")
    segmentor: Any = build_segmentor(config, 11)[0]
    height, width = config.backbone.height_width
    size = (height // 2, width // 2 + 7)  # of no crop, and no multiple of the patch
    metas = [{"ori_shape": size, "img_shape": size}]
    with torch.no_grad():
        assert segmentor.eval().inference(torch.zeros(1, 3, *size), metas).shape == (1, 11, *size)
    for step in config.data.augment:
        if step["type"] == "RandomCrop":
            assert tuple(step["crop_size"]) == (height, width), "positions are those of a training crop"
    if segmentor.test_cfg["mode"] == "slide":
        assert tuple(segmentor.test_cfg["crop_size"]) == (height, width)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_headers_say_what_a_reader_needs(path: Path) -> None:
    header = path.read_text().split('"""')[1]
    lines = [line.partition(":") for line in header.splitlines()]
    said = {key.strip(): text.strip() for key, colon, text in lines if colon}
    assert "bench-seg" in said["Command"] or f"configs/segmentation/{path.name}" in said["Command"]
    assert said["Hardware"].startswith(("1 ", "8 "))
    assert "TIME" not in header, "measured, or said not to be"
    assert "time" in header.lower() or "hours" in header.lower()
    if "textures" not in path.stem:
        assert path.name in header or "bench-seg CONFIG=" in said["Command"]


def test_the_full_recipe_is_the_published_one() -> None:
    config = SegmentationConfig.load(ROOT / "configs" / "segmentation" / "upernet_vit-base_ade20k.py")
    assert (config.train.iterations, config.data.batch_size, config.train.amp) == (160_000, 16, "bf16")
    assert round(config.optim.warmup * config.train.iterations) == 1500
    assert dataclasses.astuple(config.optim)[:5] == ("adamw", 1e-4, 0.05, 0.65, (0.9, 0.999))
    assert (config.optim.min_lr, config.backbone.drop_path, config.backbone.img_size) == (0.0, 0.1, 512)
    assert config.backbone.out_indices == (3, 5, 7, 11)
    assert (config.model["decode_head"]["channels"], config.model["auxiliary_head"]["channels"]) == (768, 256)
    assert config.model["auxiliary_head"]["loss_decode"]["loss_weight"] == 0.4
    assert config.model["test_cfg"] == {"mode": "slide", "crop_size": [512, 512], "stride": [341, 341]}


# --- the command line -------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no weights": ({"backbone__weights": None}, "no backbone was named"),
    "missing weights": ({"backbone__weights": "nowhere.pth"}, "backbone 'nowhere.pth' does not exist"),
    "unknown model": ({"backbone__weights": "timm:vit_huge_patch1", "backbone__model": None}, "vit_huge_patch1"),
    "size and patch": ({"backbone__img_size": 18}, "18 is not divisible by patch size 4"),
    "blocks": ({"backbone__out_indices": [0, 1, 2, 9]}, "must be rising block numbers from 0 to 3"),
    "batch larger than the set": ({"data__batch_size": 25}, "batch_size 25 exceeds the 24 training images"),
    "one image": ({"data__batch_size": 1}, "BatchNorm needs 2 images a process"),
    "unknown source": ({"data__train__type": "scenefolder"}, "unknown data set 'scenefolder'"),
    "unknown option of a source": ({"data__test__colours": 3}, "'scene_folder' has no option 'colours'"),
    "missing folder": ({"data__train__root": "nowhere"}, "nowhere"),
    "missing split": ({"data__train__split": "train"}, "train"),
    "number for a split": ({"data__train__split": 3}, "option 'split' of data set 'scene_folder' must be str; got 3"),
    "training images tested": ({"data__test__split": "training"}, "evaluation images would reach training"),
    "unknown transform": ({"data__augment": [{"type": "RandomCropp"}]}, "'data.augment' is refused by mmseg"),
    "unknown option of a transform": (
        {"data__augment": [{"type": "RandomFlip", "probability": 1}]},
        "'data.augment' is refused by mmseg",
    ),
    "crop larger than the positions": (
        {"data__augment": [{"type": "Resize", "scale": [40, 40]}, {"type": "RandomCrop", "crop_size": [32, 32]}]},
        "leave 32x32 pixels of",
    ),
    "unknown transform of evaluation": ({"data__evaluate": [{"type": "Resizes"}]}, "'data.evaluate' is refused by"),
    "transform that does not fit": ({"data__evaluate": [{"type": "LoadAnnotations"}]}, "fail on"),
    "no decode_head": ({"model": {"neck": seg_runs.MODEL["neck"]}}, "'model.decode_head' is missing"),
    "wrong option of a head": ({"model__decode_head__pools": [1]}, "'model' is refused by mmseg"),
    "heads for other maps": ({"model__decode_head__in_index": [4]}, "does not fit the backbone's maps"),
    "mode of inference": ({"model__test_cfg": {"mode": "slide"}}, "needs crop_size and stride"),
    "unknown key": ({"train__epochs": 3}, "unknown config key 'train.epochs'"),
}


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    def fail(*given: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(TransferStep, "__call__", fail)
    capsys.readouterr()
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert said.splitlines()[-1].startswith("error: ")
    return one_line(said)


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.filterwarnings("ignore")
def test_wrong_inputs_are_one_line(
    case: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, expected = WRONG[case]
    config, work = seg_runs.write_config(tmp_path / "config.py", scenes, **changes), tmp_path / "work"
    assert expected in refusal([str(config), "--work-dir", str(work)], capsys, monkeypatch)
    assert not list(work.rglob("*.*"))


def damage(folder: Path, kind: str) -> None:
    """What is wrong with image 2 of the training part."""
    image, annotation = (folder / part / "training" / "000002.png" for part in ("images", "annotations"))
    values = np.array(Image.open(annotation))
    if kind == "missing image":
        image.unlink()
    elif kind == "missing annotation":
        annotation.unlink()
    elif kind == "another size":
        Image.fromarray(values[:-1]).save(annotation)
    elif kind == "value above the classes":
        values[0, 0] = 6
        Image.fromarray(values).save(annotation)
    elif kind == "colours":
        Image.fromarray(np.stack([values] * 3, axis=-1)).save(annotation)
    elif kind == "nothing labelled":
        for path in annotation.parent.iterdir():
            Image.fromarray(np.zeros_like(np.array(Image.open(path)))).save(path)
    elif kind == "other classes":
        (folder / "classes.txt").write_text("a\nb\nc\nd\n")


DAMAGED = {
    "missing image": "have no image (000002)",
    "missing annotation": "have no annotation (000002)",
    "another size": "differ in size from their images (000002.png: 15x16 against 16x16 pixels)",
    "value above the classes": "000002.png has the value 6, above its 5 classes",
    "colours": "are RGB pictures",
    "nothing labelled": "no pixel of 24 annotations has a label",
    "other classes": "has the value 5, above its 4 classes",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_wrong_data_is_one_line(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = seg_runs.write_data(tmp_path / "data")
    damage(data, kind)
    config, work = seg_runs.write_config(tmp_path / "config.py", data), tmp_path / "work"
    assert DAMAGED[kind] in refusal([str(config), "--work-dir", str(work)], capsys, monkeypatch)
    assert not list(work.rglob("record.json"))


def test_wrong_arguments_are_one_line(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = str(seg_runs.write_config(tmp_path / "config.py", scenes))
    occupied = tmp_path / "occupied"
    occupied.write_text("mine")
    damaged = tmp_path / "damaged.pth"
    backbone_samples.write_checkpoint(damaged)
    damaged.write_bytes(damaged.read_bytes()[:500])
    cases = {
        ("nowhere.py",): "config file 'nowhere.py' does not exist; see configs/segmentation/",
        (config, "--weights", str(damaged)): "damaged.pth",
        (config, "--weights", str(tmp_path)): "holds no weights and no config.json",
        (config, "--data", str(tmp_path / "nowhere")): "nowhere does not exist",
        (config, "--seed", "-1"): "config key 'seed'",
        (config, "--cfg-options", "optim.lr"): "takes KEY=VALUE",
        (config, "--cfg-options", "optim.rate=1"): "unknown config key 'optim.rate'",
        (config, "--work-dir", str(occupied)): "occupied",
    }
    for arguments, expected in cases.items():
        given = list(arguments)
        if "--work-dir" not in given:
            given += ["--work-dir", str(tmp_path / "work")]
        assert expected in refusal(given, capsys, monkeypatch)
    assert not (tmp_path / "work").exists()
    assert occupied.read_text() == "mine"


@pytest.mark.slow
def test_the_program_ends_with_status_2(scenes: Path, tmp_path: Path) -> None:
    config = seg_runs.write_config(tmp_path / "config.py", scenes, backbone__weights=None)
    command = [sys.executable, "-m", "mlomae.cli", "bench", "segmentation", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "no backbone was named" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.py"]
