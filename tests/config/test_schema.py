"""Configurations: the shipped ones build, and every wrong key, type or range is one line that names it."""

import json
from pathlib import Path
from typing import Any

import bad_options
import pytest
import tiny
import torch

from mlomae.common.errors import CheckpointError, ConfigError, MlomaeError
from mlomae.config.schema import PretrainConfig, config_from_dict, load_config
from mlomae.config.strict import overrides
from mlomae.pretraining.continuing import check_same_config
from mlomae.pretraining.optim import build_optimizers, rates
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import TASK

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "configs" / "pretrain").glob("*.py"))
FREE = TASK.free_to_change


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigError) as error:
        tiny.config(**changes)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_no_value_of_another_type_gives_a_traceback(tmp_path: Path) -> None:
    """`make stress` has all of them."""
    refused: dict[str, str] = {}
    for name, values in bad_options.sample(60):
        try:
            bad_options.begin(values, tmp_path)
        except MlomaeError as error:
            refused[name] = str(error)
        except MemoryError:  # which the command line says in one line
            refused[name] = "memory"
    assert len(refused) > 30
    assert not [name for name, text in refused.items() if "\n" in text.strip()]


def test_there_are_shipped_configs() -> None:
    assert len(SHIPPED) >= 3


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_config_loads_and_builds_its_strategy(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert not config.demo
    with torch.device("meta"):  # no weights are made: ViT-B costs nothing
        model = Pretrainer(config, 10)
    levels = model.level_parameters()
    assert levels["theta"]
    assert bool(levels["phi"]) == model.mask.trainable
    assert set(build_optimizers(levels, config)) == {level for level, parameters in levels.items() if parameters}
    for level in ("theta", "omega", "phi"):
        assert len(rates(config.optim[level], config.train.outer_iterations)) == config.train.outer_iterations


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_config_survives_a_checkpoint(path: Path) -> None:
    config = load_config(path)
    again = config_from_dict(config.to_dict())
    assert again == config
    check_same_config(config.to_dict(), again.to_dict(), path, FREE)


def test_a_yaml_config_runs_nothing(tmp_path: Path) -> None:
    path, marker = tmp_path / "tiny.yaml", tmp_path / "marker"
    values = json.dumps(tiny.values())  # JSON is YAML
    path.write_text(values)
    assert load_config(path) == tiny.config()
    path.write_text(f"{values[:-1]}, 'init_from': !!python/object/apply:os.mkdir ['{marker}']}}")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path)
    assert not marker.exists()


def test_base_files_are_one_level_deep() -> None:
    for path in (ROOT / "configs" / "_base_").glob("*.py"):
        assert "_base_ =" not in path.read_text(), path.name


def test_defaults_are_filled_in() -> None:
    config = tiny.config(optim={"theta": {"lr": 1}})
    assert isinstance(config, PretrainConfig)
    assert config.optim["theta"].lr == 1.0
    assert isinstance(config.optim["theta"].lr, float)
    assert set(config.optim) == {"theta", "omega", "phi"}
    assert config.optim["phi"].betas == (0.9, 0.95)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modell": {}}, ["unknown config key 'modell'", "did you mean 'model'?"]),
        ({"data__batchsize": 8}, ["unknown config key 'data.batchsize'", "did you mean 'batch_size'?"]),
        ({"train__xyz": 8}, ["unknown config key 'train.xyz'", "known keys: outer_iterations"]),
        ({"optim__theta__learning": 1.0}, ["unknown config key 'optim.theta.learning'", "known keys: lr"]),
        ({"optim__psi": {}}, ["unknown config key 'optim.psi'", "theta, omega, phi"]),
        ({"optim": 3}, ["'optim'", "must be a dict", "3"]),
        ({"optim__theta": 3}, ["'optim.theta'", "must be a dict", "3"]),
        ({"model": "base"}, ["'model'", "must be a dict", "'base'"]),
        ({"seed": "0"}, ["'seed'", "must be int", "'0'"]),
        ({"seed": -1}, ["'seed'", "-1"]),
        ({"demo": 1}, ["'demo'", "must be bool", "1"]),
        ({"train__outer_iterations": True}, ["'train.outer_iterations'", "must be int", "True"]),
        ({"train__outer_iterations": 10.0}, ["'train.outer_iterations'", "must be int", "10.0"]),
        ({"optim__theta__lr": "high"}, ["'optim.theta.lr'", "must be float", "'high'"]),
        ({"optim__theta__clip_grad": "high"}, ["'optim.theta.clip_grad'", "float or None"]),
        ({"mask__ratio": 0}, ["'mask.ratio'", "inside (0, 1)", "0"]),
        ({"mask__ratio": 0.0}, ["'mask.ratio'", "inside (0, 1)", "0"]),
        ({"mask__ratio": 1}, ["'mask.ratio'", "inside (0, 1)", "1"]),
        ({"mask__ratio": 1.0}, ["'mask.ratio'", "inside (0, 1)", "1.0"]),
        ({"mask__ratio": 1.5}, ["'mask.ratio'", "inside (0, 1)", "1.5"]),
        ({"mask__ratio": "0.75"}, ["'mask.ratio'", "inside (0, 1)", "'0.75'"]),
        ({"mask__ratio": float("nan")}, ["'mask.ratio'", "inside (0, 1)", "nan"]),
        ({"mask": {"ratio": 0.75}}, ["'mask.type' is missing", "choose"]),
        ({"feedback": {"pooling": "avg"}}, ["'feedback.type' is missing", "choose"]),
        ({"data__val_fraction": 1.0}, ["'data.val_fraction'", "1.0"]),
        ({"data__batch_size": 0}, ["'data.batch_size'", "at least 1"]),
        ({"data__num_workers": -1}, ["'data.num_workers'", "at least 0"]),
        ({"levels__lower_steps": 0}, ["'levels.lower_steps'", "at least 1"]),
        ({"train__accumulate": 0}, ["'train.accumulate'", "at least 1"]),
        ({"train__keep_checkpoints": 0}, ["'train.keep_checkpoints'", "at least 1"]),
        ({"train__amp": "fp16"}, ["'train.amp'", "one of auto, none, bf16", "fp16"]),
        ({"optim__theta__lr": -1e-3}, ["'optim.theta.lr'", "-0.001"]),
        ({"optim__phi__weight_decay": -1.0}, ["'optim.phi.weight_decay'", "-1.0"]),
        ({"optim__phi__min_lr": -1.0}, ["'optim.phi.min_lr'", "-1.0"]),
        ({"optim__phi__warmup": 1.5}, ["'optim.phi.warmup'", "1.5"]),
        ({"optim__phi__betas": [0.9]}, ["'optim.phi.betas'", "two"]),
        ({"optim__phi__betas": [0.9, 1.0]}, ["'optim.phi.betas'", "1.0"]),
        ({"optim__theta__clip_grad": 0.0}, ["'optim.theta.clip_grad'", "positive"]),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_wrong_values_are_refused_by_name(changes: dict[str, Any], words: list[str]) -> None:
    text = refusal(**changes)
    for word in words:
        assert word in text


@pytest.mark.parametrize("key", ["name", "method", "model", "data", "mask", "train"])
def test_a_missing_section_is_named(key: str) -> None:
    values = tiny.values()
    del values[key]
    with pytest.raises(ConfigError, match=f"config key '{key}' is missing; add it"):
        config_from_dict(values)


@pytest.mark.parametrize(
    "content",
    ["name = (", "x = 1 / 0", "_base_ = ['missing.py']", "x = undefined", "x = [][1]", "\0"],
)
def test_a_config_file_that_fails_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"broken\.py' cannot be read"):
        load_config(path)


def test_a_config_file_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.txt"
    path.write_text("name = 'x'")
    with pytest.raises(ConfigError, match=r"config\.txt' cannot be read"):
        load_config(path)


def test_overrides_reach_nested_keys_and_are_checked(tmp_path: Path) -> None:
    path = tiny.write_config(tmp_path / "tiny.py")
    config = load_config(path, {"data.batch_size": 16, "mask.sampling": "topk"})
    assert config.data.batch_size == 16
    assert config.mask == {"type": "learned", "ratio": 0.75, "hidden": 16, "sampling": "topk"}
    with pytest.raises(ConfigError, match=r"data\.batchsize"):
        load_config(path, {"data.batchsize": 16})


def test_the_words_true_and_false_are_no_texts() -> None:
    pairs = ["a.b=false", "c=True", "d=none", "e=1e3", "f=['x']"]
    assert overrides(pairs) == {"a.b": False, "c": True, "d": "none", "e": 1000.0, "f": ["x"]}


def test_resuming_may_change_what_does_not_change_the_numbers() -> None:
    saved = tiny.config().to_dict()
    free = tiny.config(data__num_workers=4, train__log_interval=1, train__picture_interval=1, train__keep_checkpoints=1)
    check_same_config(saved, free.to_dict(), Path("x"), FREE)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"optim__phi__lr": 1e-4},
        {"mask__sampling": "topk"},
        {"train__outer_iterations": 20},
        {"data__batch_size": 16},
        {"data__eval": None},
        {"model__depth": 1},
    ],
    ids=lambda c: next(iter(c)),
)
def test_resuming_may_not_change_what_does(changes: dict[str, Any]) -> None:
    key = next(iter(changes)).replace("__", ".")
    with pytest.raises(CheckpointError, match=f"another configuration: .*{key}.*resume with the same one"):
        check_same_config(tiny.config().to_dict(), tiny.config(**changes).to_dict(), Path("x"), FREE)


CUB = """
data = dict(
    train=dict(type="cub200", root="birds", split="train", subset=True),
    eval=dict(type="cub200", root="birds", split="test", subset=True),
)
name, method, model, train = "a", "MAE", dict(), dict()
mask = dict(type="learned", ratio=0.6, arch="token")
"""


def written(tmp_path: Path, child: str = "") -> Path:
    (tmp_path / "base.py").write_text(CUB)
    path = tmp_path / "child.py"
    path.write_text(f'_base_ = ["base.py"]\n{child}')
    return path


@pytest.mark.parametrize("way", ["child", "options"])
def test_another_type_drops_the_options_of_the_old_one_and_says_so(tmp_path: Path, way: str, capsys: Any) -> None:
    options = {"data.train.type": "imagefolder", "data.train.root": "photos", "mask.type": "random"}
    child = 'data = dict(train=dict(type="imagefolder", root="photos"))\nmask = dict(type="random")'
    config = load_config(written(tmp_path, child if way == "child" else ""), options if way == "options" else None)
    assert config.data.train == {"type": "imagefolder", "root": "photos", "split": "train"}
    assert config.data.eval is not None
    assert config.data.eval["subset"] is True, "it kept its type"
    assert config.mask == {"type": "random", "ratio": 0.6}
    said = capsys.readouterr().out.splitlines()
    assert "note: type 'imagefolder' takes the place of 'cub200', whose options are dropped: subset" in said
    assert "note: type 'random' takes the place of 'learned', whose options are dropped: arch" in said


def test_an_option_that_is_given_for_the_new_type_stays(tmp_path: Path) -> None:
    options = {"data.train.type": "imagefolder", "data.train.subset": False}
    assert load_config(written(tmp_path), options).data.train["subset"] is False, "which is refused when it is opened"
    unknown = load_config(written(tmp_path), {"data.train.type": "of a plug-in"})
    assert unknown.data.train["subset"] is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dict(type='imagefolder', root='a b')", {"type": "imagefolder", "root": "a b"}),
        ("dict(a=dict(b=[1, dict(c=None)]))", {"a": {"b": [1, {"c": None}]}}),
        ("(0.9, 0.95)", (0.9, 0.95)),
        ("dict(a=open('x'))", "dict(a=open('x'))"),
        ("list(a=1)", "list(a=1)"),
        ("-1e-3", -1e-3),
        ("True", True),
        ("true", True),
    ],
)
def test_values_of_the_command_line(text: str, expected: Any) -> None:
    assert overrides([f"key={text}"]) == {"key": expected}


def test_rates_are_those_of_levels(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'optim\.lr'; each level has its own: optim\.theta\.lr"):
        load_config(written(tmp_path), {"optim.lr": 0.1})
    with pytest.raises(ConfigError, match=r"'optim\.tetha'; the levels are theta, omega, phi"):
        load_config(written(tmp_path), {"optim.tetha.lr": 0.1})
