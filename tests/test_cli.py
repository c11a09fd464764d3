"""The command line under wrong input: non-zero, one line on standard error that names the thing and the remedy."""

import errno
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from mlomae.cli import main
from mlomae.common import checkpoint
from mlomae.models import MAE

Refused = Callable[..., str]
RUNS = itertools.count()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command line, which must fail, and return its only line on standard error."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        status = main([str(a) for a in arguments])
        lines = capsys.readouterr().err.splitlines()
        assert status == 2
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert "Traceback" not in lines[0]
        return lines[0]

    return run


@pytest.fixture
def pretrain(tmp_path: Path, refused: Refused) -> Refused:
    """``pretrain`` on the tiny config with changes, into ``tmp_path/work``; must fail."""

    def run(*arguments: object, **changes: Any) -> str:
        # MMEngine keeps one logger a name and second: a second run would log to the first one's closed stream
        config = tiny.write_config(tmp_path / "config.py", **{"name": f"run{next(RUNS)}", **changes})
        return refused("pretrain", config, "--work-dir", tmp_path / "work", *arguments)

    return run


@pytest.fixture(scope="module")
def good(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two iterations; copy before use."""
    folder = tmp_path_factory.mktemp("good")
    config = tiny.write_config(folder / "config.py", name="good", data__eval=None, train__outer_iterations=2)
    assert main(["pretrain", str(config), "--work-dir", str(folder / "work")]) == 0
    return folder / "work"


def contents(work: Path) -> dict[str, bytes]:
    """Checkpoints with their bytes; each must load."""
    found = checkpoint.list_checkpoints(work)
    for path in found:
        checkpoint.load_checkpoint(path)
    return {path.name: path.read_bytes() for path in found}


def write_images(root: Path, split: str, seed: int, count: int = 8) -> None:
    rng = np.random.default_rng(seed)
    for name in ("cat", "dog"):
        folder = root / split / name
        folder.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / f"{i}.png")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Any]:
    """Changes that make the tiny config read ``tmp_path/data/{train,val}``."""
    root = tmp_path / "data"
    write_images(root, "train", 0)
    write_images(root, "val", 1)
    source = {"type": "imagefolder", "root": str(root)}
    return {"data__train": {**source, "split": "train"}, "data__eval": {**source, "split": "val"}}


# --- configuration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--local-rank", "--local_rank"])
def test_the_rank_that_the_old_launcher_gives_is_known(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``python -m torch.distributed.launch -m mlomae.cli pretrain ...`` puts it before the command."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main([f"{option}=1", "pretrain", "missing.py"]) == 2
    assert "missing.py" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([f"{option}=0", "pretrain", "missing.py"])


def test_missing_config_file(refused: Refused) -> None:
    line = refused("pretrain", "nowhere/config.py")
    assert "config file 'nowhere/config.py' does not exist; see configs/pretrain/" in line


@pytest.mark.parametrize("content", ["model = dict(", "x = 1 / 0", "_base_ = 'gone.py'"])
def test_config_file_that_does_not_run(content: str, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "broken.py").write_text(content)
    assert "broken.py' cannot be read" in refused("pretrain", tmp_path / "broken.py")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sed": 1}, ["'sed'", "did you mean 'seed'?"]),
        ({"model__patchsize": 4}, ["'model.patchsize'", "did you mean 'patch_size'?"]),
        ({"train__outer_iterations": "ten"}, ["'train.outer_iterations'", "must be int"]),
        ({"mask__ratio": 0}, ["'mask.ratio'", "(0, 1)", "got 0"]),
        ({"mask__ratio": 1}, ["'mask.ratio'", "(0, 1)", "got 1"]),
        ({"mask__ratio": 1.5}, ["'mask.ratio'", "(0, 1)", "got 1.5"]),
        ({"mask__ratio": 0.99}, ["mask ratio 0.99 keeps 0 of 16 patches", "choose one"]),
        ({"mask__type": "clever"}, ["unknown masking strategy 'clever'", "choose one of", "random"]),
        ({"mask__hiden": 8}, ["no option 'hiden'", "hidden"]),
        ({"mask__sampling": "best"}, ["'sampling' of masking strategy 'learned'", "topk, gumbel_topk", "'best'"]),
        ({"feedback__type": "guess"}, ["unknown feedback 'guess'", "linear"]),
        ({"feedback__drop": 0.1}, ["no option 'drop'", "dropout"]),
        ({"model__patch_size": 5}, ["image size 16 is not divisible by patch size 5", "choose a patch size"]),
        ({"model__size": "giant"}, ["size must be one of tiny", "got 'giant'"]),
        ({"model__num_heads": 3}, ["width 16 is not divisible by 3 heads", "change"]),
        ({"levels__solver": "guess"}, ["guess", "one_step"]),
        ({"levels__solver_options": {"stepps": 3}}, ["stepps"]),
        ({"data__train__kind": 3}, ["'textures'", "no option 'kind'", "it has"]),
        ({"data__train__classes": 99}, ["classes must be inside [2, 12]", "got 99"]),
        ({"data__augment": {"type": "Rotate"}}, ["Rotate", "Plain"]),
        ({"train__accumulate": 3}, ["train.accumulate=3 does not divide the 8 images"]),
        ({"train__amp": "fp16"}, ["'train.amp'", "one of auto, none, bf16"]),
        ({"init_from": "nowhere.pth"}, ["'nowhere.pth' do not exist", "give a"]),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_wrong_configuration(changes: dict[str, Any], words: list[str], pretrain: Refused, tmp_path: Path) -> None:
    line = pretrain(**changes)
    for word in words:
        assert word in line
    assert contents(tmp_path / "work") == {}


@pytest.mark.parametrize(
    ("option", "words"),
    [("mask.ratio=2.0", "'mask.ratio'"), ("seed", "takes KEY=VALUE; got 'seed'"), ("nme='x'", "did you mean 'name'?")],
)
def test_wrong_overrides(option: str, words: str, pretrain: Refused) -> None:
    assert words in pretrain("--cfg-options", option)


# --- data -----------------------------------------------------------------------------------------------------------


def test_missing_data_root(pretrain: Refused, folders: dict[str, Any], tmp_path: Path) -> None:
    line = pretrain("--data", tmp_path / "nowhere", **folders)
    assert str(tmp_path / "nowhere") in line


def test_empty_class_folder(pretrain: Refused, folders: dict[str, Any], tmp_path: Path) -> None:
    empty = tmp_path / "data" / "train" / "owl"
    empty.mkdir()
    assert f"class folder {empty} holds no image; fill it or delete it" in pretrain(**folders)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_image_is_found_before_training(
    workers: int, pretrain: Refused, folders: dict[str, Any], tmp_path: Path
) -> None:
    damaged = sorted((tmp_path / "data" / "train").glob("*/*.png"))[3]
    damaged.write_bytes(damaged.read_bytes()[:200])
    line = pretrain(**folders, **tiny.RANDOM, data__num_workers=workers)
    assert f"cannot decode {damaged}" in line
    assert "replace or delete this file" in line
    assert not contents(tmp_path / "work")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_is_damaged_while_training_leaves_the_checkpoint_before_it(
    workers: int, pretrain: Refused, folders: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = sorted((tmp_path / "data" / "train").glob("*/*.png"))[3]

    def damage(*_: Any) -> None:
        damaged.write_bytes(damaged.read_bytes()[:200])

    monkeypatch.setattr("mlomae.pretraining.run.keep_digests", damage)  # when all images have been read once
    # one of 12 training images in a batch of 2: the first checkpoint is written before it is reached
    changes = {**tiny.RANDOM, "data__batch_size": 1, "train__checkpoint_interval": 1, "train__keep_checkpoints": 1}
    line = pretrain(**folders, **changes, data__num_workers=workers)
    assert f"cannot decode {damaged}" in line
    assert len(contents(tmp_path / "work")) == 1, "the checkpoint before it is gone"


def test_evaluation_on_the_feedback_source(pretrain: Refused, folders: dict[str, Any], tmp_path: Path) -> None:
    write_images(tmp_path / "other", "train", 2)
    train = {"type": "imagefolder", "root": str(tmp_path / "other"), "split": "train"}
    line = pretrain(data__train=train, data__feedback=folders["data__eval"], data__eval=folders["data__eval"])
    assert "evaluation images would reach training" in line
    assert line.count(str(tmp_path / "data")) >= 2, "both sources are named with their path"
    assert "evaluate on a held-out split" in line


def test_evaluation_on_the_training_images_of_textures(pretrain: Refused) -> None:
    line = pretrain(data__eval={"type": "textures", "split": "train", "count": 96, "size": 16, "classes": 4})
    assert "evaluation images would reach training" in line


# --- checkpoints and work dirs --------------------------------------------------------------------------------------


def test_init_from_another_architecture(pretrain: Refused, good: Path, tmp_path: Path) -> None:
    path = checkpoint.checkpoint_path(good, 2)
    line = pretrain(init_from=str(path), model__depth=1)
    assert str(path) in line
    assert "encoder of width 16, depth 2, patch 4, this model's is of width 16, depth 1" in line
    assert "set the model section to match" in line


def test_a_used_work_dir_without_resume(refused: Refused, good: Path, tmp_path: Path) -> None:
    before = contents(good)
    config = tiny.write_config(tmp_path / "config.py", name="good", data__eval=None, train__outer_iterations=2)
    line = refused("pretrain", config, "--work-dir", good)
    assert f"'{good}' already holds a run; add --resume to continue it, or choose another --work-dir" in line
    assert contents(good) == before


@pytest.mark.parametrize("name", ["record.json", "log.jsonl", "train.log", "images.npz", "checkpoints/iter_2.pth"])
@pytest.mark.timeout(60)
def test_a_pipe_in_a_work_dir_is_not_waited_for(refused: Refused, tmp_path: Path, name: str) -> None:
    path = tmp_path / "work" / name
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    config = tiny.write_config(tmp_path / "config.py", data__eval=None, train__outer_iterations=2)
    for more in ([], ["--resume"]):
        line = refused("pretrain", config, "--work-dir", tmp_path / "work", *more)
        assert f"'{path}' is neither a file nor a folder; remove it" in line
    path.unlink()
    assert main(["pretrain", str(config), "--work-dir", str(tmp_path / "work")]) == 0


def test_resume_with_another_config(refused: Refused, good: Path, tmp_path: Path) -> None:
    before = contents(good)
    changes = {"name": "good", "data__eval": None, "train__outer_iterations": 2, "optim__phi__lr": 0.5}
    config = tiny.write_config(tmp_path / "config.py", **changes)
    line = refused("pretrain", config, "--work-dir", good, "--resume")
    assert "another configuration: optim.phi.lr (0.001 -> 0.5)" in line
    assert "resume with the same one, or choose another work dir" in line
    assert contents(good) == before


def test_work_dir_below_a_file(refused: Refused, tmp_path: Path) -> None:
    config = tiny.write_config(tmp_path / "config.py")
    line = refused("pretrain", config, "--work-dir", config / "work")
    assert str(config) in line


@pytest.mark.parametrize("command", [["export"], ["evaluate"]])
def test_missing_checkpoint(command: list[str], refused: Refused, tmp_path: Path) -> None:
    target = [tmp_path / "out.safetensors"] if command == ["export"] else []
    line = refused(*command, tmp_path / "iter_7.pth", *target)
    assert f"checkpoint '{tmp_path / 'iter_7.pth'}' does not exist; give" in line
    assert not (tmp_path / "out.safetensors").exists()


def test_evaluating_a_checkpoint_without_an_evaluation_set(refused: Refused, good: Path) -> None:
    path = checkpoint.checkpoint_path(good, 2)
    assert "without data.eval" in refused("evaluate", path)
    assert "without data.eval" in refused("evaluate", path, "--data", "somewhere")


# --- while training -------------------------------------------------------------------------------------------------


def test_nan_in_the_loss(pretrain: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, error_of = iter(range(100)), MAE.error_of
    monkeypatch.setattr(MAE, "error_of", lambda *given: error_of(*given) * (torch.nan if next(calls) > 8 else 1.0))
    line = pretrain(**tiny.RANDOM)
    assert "loss_lower is not finite (nan)" in line
    assert "start again in another --work-dir with a lower optim.theta.lr" in line
    assert list(contents(tmp_path / "work")) == ["iter_2.pth", "iter_4.pth"]


def test_a_learning_rate_that_diverges(pretrain: Refused, tmp_path: Path) -> None:
    line = pretrain(**tiny.RANDOM, optim={"theta": {"lr": 1e15, "warmup": 0.0}}, train__outer_iterations=4)
    assert "not finite" in line
    assert "with a lower optim.theta.lr" in line
    assert contents(tmp_path / "work") == {}


def test_a_disk_that_fills_up(pretrain: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = torch.save

    def full(content: Any, file: Any) -> None:
        if content["iteration"] < 6:
            return save(content, file)
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    line = pretrain(**tiny.RANDOM)
    assert "iter_6.pth' cannot be written (No space left on device); free disk space, then resume" in line
    assert list(contents(tmp_path / "work")) == ["iter_2.pth", "iter_4.pth"]
    assert not list((tmp_path / "work" / "checkpoints").glob("*.tmp"))


def test_a_disk_that_fills_up_under_a_picture(
    pretrain: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("mlomae.pretraining.pictures.save_image", full)
    line = pretrain(**tiny.RANDOM)
    assert "No space left on device" in line
    assert "free disk space" in line
    assert list(contents(tmp_path / "work")) == ["iter_2.pth"]


def test_interrupting_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MAE, "error_of", interrupt)
    config = tiny.write_config(tmp_path / "config.py", name="interrupted", **tiny.RANDOM)
    assert main(["pretrain", str(config), "--work-dir", str(tmp_path / "work")]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "go on with --resume" in line


# --- a real process -------------------------------------------------------------------------------------------------


def test_a_process_that_trains_and_fails_prints_one_line(tmp_path: Path) -> None:
    """Warnings of libraries reach standard error too: only a process of its own shows them."""
    options = {"data.eval": None, "optim.theta.lr": 1e15, "optim.theta.warmup": 0.0, "train.checkpoint_interval": 1}
    config = tiny.write_config(tmp_path / "config.py", **{k.replace(".", "__"): v for k, v in options.items()})
    command = [sys.executable, "-m", "mlomae.cli", "pretrain", config, "--work-dir", tmp_path / "work"]
    done = subprocess.run(command, env=tiny.environment(), capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "not finite" in line


def test_a_good_run_prints_its_metrics_and_exports(good: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "encoder.safetensors"
    assert main(["export", str(checkpoint.checkpoint_path(good, 2)), str(out)]) == 0
    assert "equal bit for bit" in capsys.readouterr().out
    assert out.is_file()
