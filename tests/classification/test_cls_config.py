"""Configurations of transfers are checked key by key; whatever is wrong on the command line is one line, status 2."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import backbone_samples
import cls_runs
import pytest
import torch
from cls_runs import main
from run_samples import one_line

from mlomae.backbones.create import create_backbone
from mlomae.classification.config import ClassificationConfig
from mlomae.classification.run import build_mix, build_transforms
from mlomae.common.errors import ConfigError
from mlomae.models import SIZES

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "classification").glob("*.py"))
INF, NAN = float("inf"), float("nan")
OUT_OF_RANGE: list[tuple[str, Any]] = [
    ("protocol", "fine"),
    ("pooling", "max"),
    ("seed", -1),
    ("seed", 2**32),
    ("data.batch_size", 0),
    ("data.num_workers", -1),
    ("backbone.img_size", 0),
    ("backbone.img_size", [16]),
    ("backbone.img_size", [16, 16, 16]),
    ("backbone.img_size", [16, True]),
    ("backbone.img_size", [16, "16"]),
    ("backbone.drop_path", 1.0),
    ("backbone.drop_path", -0.1),
    ("backbone.global_pool", "map"),
    ("optim.type", "adam"),
    ("optim.lr", 0.0),
    ("optim.lr", NAN),
    ("optim.lr", INF),
    ("optim.weight_decay", -0.1),
    ("optim.layer_decay", 0.0),
    ("optim.layer_decay", 1.1),
    ("optim.betas", [0.9]),
    ("optim.betas", [0.9, 1.0]),
    ("optim.betas", ["a", "b"]),
    ("optim.momentum", 1.0),
    ("optim.warmup", 1.5),
    ("optim.min_lr", -1e-6),
    ("optim.min_lr", 1.0),
    ("optim.clip_grad", 0.0),
    ("optim.clip_grad", INF),
    ("train.epochs", 0),
    ("train.amp", "fp16"),
    ("train.label_smoothing", 1.0),
    ("train.ema", 1.0),
    ("train.log_interval", 0),
    ("train.checkpoint_interval", 0),
    ("train.keep_checkpoints", 0),
    ("train.eval_interval", 0),
    ("train.select", "good"),
    ("knn.k", 0),
    ("queries", 0),
    ("knn.temperature", 0.0),
    ("knn.temperature", INF),
]


def said_of(changes: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        cls_runs.config(**changes)
    return one_line(error.value)


@pytest.mark.parametrize(("key", "value"), OUT_OF_RANGE)
def test_values_out_of_range_are_named(key: str, value: Any) -> None:
    assert f"config key '{key}' " in said_of({key.replace(".", "__"): value})


def leaves(kind: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(kind):
        default = field.default_factory if field.default_factory is not dataclasses.MISSING else None
        nested = default if dataclasses.is_dataclass(default) else None
        if field.name == "data":
            nested = next(iter({type(cls_runs.config().data)}))
        yield from leaves(nested, f"{field.name}.") if nested else [f"{prefix}{field.name}"]


LEAVES = list(leaves(ClassificationConfig))


@pytest.mark.parametrize("key", LEAVES)
def test_values_of_another_type_are_named(key: str) -> None:
    said = said_of({key.replace(".", "__"): {1, 2}})  # no key takes a set
    assert f"config key '{key}' must be " in said


def test_every_bounded_key_has_a_case() -> None:
    free = {"name", "demo", "custom_imports", "data.train", "data.test", "data.augment", "data.evaluate", "data.mix"}
    free |= {"data.allow_near_copies", "data.allow_seen", "data.reduced_decoding", "data.val"}
    free |= {"backbone.weights", "backbone.model"}
    assert set(LEAVES) - free == {key for key, _ in OUT_OF_RANGE}


@pytest.mark.parametrize("section", ["", "data.", "backbone.", "optim.", "train.", "knn."])
def test_unknown_keys_are_named(section: str) -> None:
    assert f"unknown config key '{section}speed'" in said_of({f"{section}speed".replace(".", "__"): 1})


def test_missing_keys_and_sections_of_another_kind_are_named() -> None:
    for key in ("name", "protocol", "data"):
        given = cls_runs.values()
        del given[key]
        with pytest.raises(ConfigError, match=f"config key '{key}' is missing"):
            ClassificationConfig.from_dict(given)
    assert "config key 'data.train.type' is missing" in said_of({"data__train": {"split": "train"}})
    assert "config section 'optim' must be a dict" in said_of({"optim": 3})


def test_contradictions_are_named() -> None:
    assert "set train.label_smoothing" in said_of({"data__mix": {"label_smoothing": 0.1}})
    said = said_of({"protocol": "linear", "data__augment": None, "data__mix": {"mixup": 0.8}})
    assert "config key 'data.mix'" in said
    assert "'attentive' is for protocol='linear'" in said_of({"protocol": "knn", "pooling": "attentive"})


def test_plain_values_survive_a_round_trip() -> None:
    config = cls_runs.config(data__mix={"mixup": 0.8}, backbone__img_size=[16, 32], train__ema=0.9)
    assert ClassificationConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("kind", ["rand_augment", "crop_flip", "pad_crop"])
def test_every_augmentation_can_be_named(kind: str) -> None:
    config = cls_runs.config(data__augment={"type": kind, "hflip": 0.1}, data__mix={"mixup": 0.8})
    augment, plain = build_transforms(config)
    assert augment is not plain
    assert build_mix(config, 4) is not None


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configs_load_and_their_parts_can_be_built(path: Path) -> None:
    config = ClassificationConfig.load(path)
    build_transforms(config)
    build_mix(config, 1000)
    b = config.backbone
    size = b.img_size if isinstance(b.img_size, int) else tuple(b.img_size)
    model = b.model or {"size": "base", "patch_size": 16 if torch.tensor(size).min() >= 96 else 4}
    dim, _, heads = SIZES.get(model.get("size", ""), (0, 0, 0))
    model = {"embed_dim": dim, "num_heads": heads, **model, "depth": 1}  # the size is not what is tested
    options = {"img_size": size, "drop_path": b.drop_path, "global_pool": b.global_pool, "model": model}
    backbone, _ = create_backbone("random", num_classes=3, keep_norm=config.protocol != "finetune", **options)
    height, width = (size, size) if isinstance(size, int) else size
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, height, width)).shape == (1, 3)


# --- the command line -------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no weights": ({"backbone__weights": None}, "no backbone was named"),
    "missing weights": ({"backbone__weights": "nowhere.pth"}, "backbone 'nowhere.pth' does not exist"),
    "unknown model": ({"backbone__weights": "timm:vit_huge_patch1", "backbone__model": None}, "vit_huge_patch1"),
    "no architecture": ({"backbone__model": None}, "model.embed_dim"),
    "architecture of text": (
        {"backbone__model": {**cls_runs.SHAPE, "depth": "2"}},
        "backbone model: depth must be int; got '2'",
    ),
    "size and patch": ({"backbone__img_size": 18}, "18"),
    "odd batch with mixup": ({"data__mix": {"mixup": 0.8}, "data__batch_size": 15}, "15 in a process is odd"),
    "batch larger than the set": ({"data__batch_size": 97}, "batch_size 97 exceeds the 96 training images"),
    "linear, one image": ({"protocol": "linear", "data__batch_size": 1}, "2 images, for the head's BatchNorm"),
    "unknown source": ({"data__train__type": "texture"}, "texture"),
    "source without a name": ({"data__train__type": 3}, "3"),
    "unknown option of a source": ({"data__test__colours": 3}, "colours"),
    "text for a number": ({"data__train__count": "x"}, "'count' of data set 'textures' must be int or None; got 'x'"),
    "missing folder": ({"data__train": {"type": "imagefolder", "root": "nowhere"}}, "nowhere"),
    "unknown transform": ({"data__augment": {"type": "randaug"}}, "randaug"),
    "transform without a name": ({"data__augment": {}}, "without a type"),
    "unknown option of a transform": ({"data__augment": {"type": "pad_crop", "pad": 1}}, "no option 'pad'"),
    "wrong value of a transform": (
        {"data__augment": {"type": "pad_crop", "padding": "x"}},
        "option 'padding' of training transform 'pad_crop' must be int or None",
    ),
    "unknown option of evaluation": ({"data__evaluate": {"crop": 1}}, "'data.evaluate' has no option 'crop'"),
    "wrong value of evaluation": (
        {"data__evaluate": {"crop_pct": "x"}},
        "option 'crop_pct' of config section 'data.evaluate' must be float; got 'x'",
    ),
    "unknown option of mixing": ({"data__mix": {"mixupp": 1}}, "'data.mix' has no option 'mixupp'"),
    "wrong value of mixing": (
        {"data__mix": {"mixup": "x"}},
        "option 'mixup' of config section 'data.mix' must be float; got 'x'",
    ),
    "number of classes of mixing": ({"data__mix": {"num_classes": 3}}, "no option 'num_classes'"),
}


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    return one_line(said)


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs_are_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes, expected = WRONG[case]
    config, work = cls_runs.write_config(tmp_path / "config.py", **changes), tmp_path / "work"
    assert expected in refusal([str(config), "--work-dir", str(work)], capsys)
    assert not list(work.rglob("*.*"))


def test_wrong_arguments_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(cls_runs.write_config(tmp_path / "config.py"))
    folder = cls_runs.values()
    folder["data"]["train"] = folder["data"]["test"] = {"type": "imagefolder", "root": "x"}
    images = tmp_path / "images.py"
    images.write_text("".join(f"{key} = {value!r}\n" for key, value in folder.items()))
    occupied = tmp_path / "occupied"
    occupied.write_text("mine")
    damaged = tmp_path / "damaged.pth"
    backbone_samples.write_checkpoint(damaged)
    damaged.write_bytes(damaged.read_bytes()[:500])
    cases = {
        ("nowhere.py",): "config file 'nowhere.py' does not exist",
        (config, "--weights", str(damaged)): "damaged.pth",
        (config, "--weights", str(tmp_path)): "holds no weights and no config.json",
        (str(images), "--data", str(tmp_path / "nowhere")): "nowhere",
        (config, "--data", str(tmp_path)): "'textures' has no option 'root'",
        (config, "--seed", "-1"): "config key 'seed'",
        (config, "--cfg-options", "optim.lr"): "takes KEY=VALUE",
        (config, "--cfg-options", "optim.rate=1"): "unknown config key 'optim.rate'",
        (config, "--work-dir", str(occupied)): "occupied",
    }
    for arguments, expected in cases.items():
        given = list(arguments)
        if "--work-dir" not in given:
            given += ["--work-dir", str(tmp_path / "work")]
        assert expected in refusal(given, capsys)
    assert not (tmp_path / "work").exists()
    assert occupied.read_text() == "mine"


def test_the_program_ends_with_status_2(tmp_path: Path) -> None:
    config = cls_runs.write_config(tmp_path / "config.py", backbone__weights=None)
    command = [sys.executable, "-m", "mlomae.cli", "bench", "classification", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "no backbone was named" in one_line(done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["config.py"]
