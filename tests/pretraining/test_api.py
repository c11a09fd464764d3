"""`mlomae.pretrain`: the run of the command; strategy objects, Datasets and folders in place of those of the config."""

import zlib
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

import mlomae
from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.common.errors import ConfigError, DataError
from mlomae.masking import MaskState, UnweightedMasking
from mlomae.pretraining.run import run_pretraining

SHORT = {"train__outer_iterations": 2, "data__eval": None}


class Left(UnweightedMasking):
    """Removes the left part of the image; its one option is not in any config."""

    def __init__(self, embed_dim: int, grid: tuple[int, int], noise: float = 0.0) -> None:
        super().__init__(embed_dim, grid)
        self.noise, self.calls = noise, 0

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        self.calls += 1
        column_L = torch.arange(16).remainder(4).neg().float()
        return column_L + self.noise * state.uniform(16)


def pictures(folder: Path, count: int = 8) -> Path:
    folder.mkdir(parents=True)
    for i, image_CHW in enumerate(dataset(count, seed=zlib.crc32(str(folder).encode())).tensors[0]):
        Image.fromarray(image_CHW.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
    return folder


def dataset(count: int = 48, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randint(256, (count, 3, 16, 16), generator=generator).byte(), torch.arange(count) % 2)


def test_a_file_values_and_a_config_give_the_run_of_the_command(tmp_path: Path) -> None:
    run_pretraining(tiny.config(**SHORT), tmp_path / "command")
    expected = load_checkpoint(checkpoint_path(tmp_path / "command", 2))
    file = tiny.write_config(tmp_path / "config.py", data__eval=None)
    given: dict[str, tuple[Any, dict[str, Any]]] = {
        "file": (file, {"overrides": {"train.outer_iterations": 2}}),
        "values": (tiny.values(**SHORT), {}),
        "config": (tiny.config(**SHORT), {}),
    }
    for name, (config, options) in given.items():
        record = mlomae.pretrain(config, work_dir=tmp_path / name, **options)
        assert record["outer_iterations"] == 2
        assert tiny.state_differences(expected, load_checkpoint(checkpoint_path(tmp_path / name, 2))) == []
    with pytest.raises(ConfigError, match="overrides are for a config file"):
        mlomae.pretrain(tiny.config(), overrides={"seed": 1})


def test_a_strategy_object_is_used_and_its_class_recorded(tmp_path: Path) -> None:
    strategy = Left(16, (4, 4), noise=0.1)
    record = mlomae.pretrain(tiny.config(**SHORT), strategy=strategy, work_dir=tmp_path)
    assert strategy.calls
    assert record["config"]["mask"] == {"type": "Left", "ratio": 0.75}
    assert "Left" not in mlomae.list_strategies(), "only as long as it runs"
    with pytest.raises(ConfigError, match=r"made for a patch grid \(8, 8\), the model's is \(4, 4\)"):
        mlomae.pretrain(tiny.config(**SHORT), strategy=Left(16, (8, 8)), work_dir=tmp_path / "other")
    of_class = mlomae.pretrain(tiny.config(**SHORT), strategy=Left, work_dir=tmp_path / "class")
    assert of_class["config"] == record["config"]
    path = checkpoint_path(tmp_path, 2)
    assert mlomae.embed(path, dataset().tensors[0]).shape == (48, 16)
    with pytest.raises(ConfigError, match="unknown masking strategy 'Left'"):
        mlomae.load_run(path).model  # noqa: B018


def test_a_strategy_object_resumes(tmp_path: Path) -> None:
    config = tiny.config(data__eval=None, train__outer_iterations=4)
    mlomae.pretrain(config, strategy=Left(16, (4, 4), 0.1), work_dir=tmp_path)
    last = checkpoint_path(tmp_path, 4)
    expected = load_checkpoint(last)
    last.unlink()
    mlomae.pretrain(config, strategy=Left(16, (4, 4), 0.1), work_dir=tmp_path, resume=True)
    assert tiny.state_differences(expected, load_checkpoint(last)) == []


def test_datasets_train_and_evaluate(tmp_path: Path) -> None:
    config = tiny.config(train__outer_iterations=2)
    record = mlomae.pretrain(config, data=dataset(), eval_data=dataset(12, seed=1), work_dir=tmp_path / "a")
    assert record["dataset"] == "TensorDataset"
    assert record["train_source"] == "TensorDataset train, 48 images"
    assert record["eval_source"] == "TensorDataset test, 12 images"
    assert record["metrics"]["n_test"] == 12
    assert "TensorDataset" not in dir(mlomae.load_config), "no trace is left"
    alone = mlomae.pretrain(config, data=dataset(), work_dir=tmp_path / "b")
    assert alone["eval_source"] == "none"
    same = dataset()
    with pytest.raises(DataError, match="evaluation images would reach training"):
        mlomae.pretrain(config, data=same, eval_data=same, work_dir=tmp_path / "c")


def test_folders_are_part_of_the_config(tmp_path: Path) -> None:
    photos = pictures(tmp_path / "photos")
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        pictures(tmp_path / "sets" / name, 4)
    short: dict[str, Any] = {"train__outer_iterations": 1, "data__batch_size": 2, "data__feedback_batch_size": 2}
    plain = tiny.config(**short, **tiny.RANDOM)
    record = mlomae.pretrain(plain, data=photos, work_dir=tmp_path / "a")
    assert record["train_source"] == "pictures photos, 8 images"
    assert record["config"]["data"]["train"] == {"type": "pictures", "root": "photos"}
    record = mlomae.pretrain(tiny.config(**short), data=tmp_path / "sets", work_dir=tmp_path / "b")
    assert (record["train_source"], record["eval_source"]) == (
        "imagefolder train, 8 images",
        "imagefolder test, 8 images",
    )
    with pytest.raises(ConfigError, match=r"mask.type='learned' learns from labels, which .* does not have"):
        mlomae.pretrain(tiny.config(**short), data=photos, work_dir=tmp_path / "c")
    with pytest.raises(ConfigError, match=r"need labels of images, and .* has none"):
        mlomae.pretrain(plain, data=photos, eval_data=tmp_path / "sets" / "test", work_dir=tmp_path / "c")
    with pytest.raises(DataError, match="does not exist"):
        mlomae.pretrain(plain, data=tmp_path / "nowhere", work_dir=tmp_path / "c")
