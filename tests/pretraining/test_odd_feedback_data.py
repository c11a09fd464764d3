"""Runs on data that a feedback cannot use, or can barely: one line, or the documented fallback."""

import functools
from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

from mlomae.common.errors import ConfigError
from mlomae.data import Textures
from mlomae.pretraining.run import run_pretraining
from mlomae.pretraining.step import PretrainStep

SHORT = {"data__eval": None, "train__outer_iterations": 2, "train__picture_interval": 9}


@pytest.fixture
def unlabelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images in one folder, as unlabelled sets come: one class, which says nothing."""
    original = Textures.__init__

    @functools.wraps(original)
    def init(self: Textures, **options: object) -> None:
        original(self, **options)
        self.classes, self.labels = ["all"], self.labels * 0

    monkeypatch.setattr(Textures, "__init__", init)


@pytest.mark.parametrize("kind", ["linear", "nca", "ridge"])
def test_a_learned_mask_on_unlabelled_images_is_refused(kind: str, unlabelled: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"textures train .+ does not have; set data\.feedback to") as error:
        run_pretraining(tiny.config(feedback={"type": kind}, **SHORT), tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_random_masks_need_no_labels(unlabelled: None, tmp_path: Path) -> None:
    record = run_pretraining(tiny.config(**SHORT, **tiny.RANDOM), tmp_path)
    assert record["images_seen"]["head"] == 0


def test_the_log_says_what_is_left_out_and_which_classes_are_in_one_part_alone(tmp_path: Path) -> None:
    for name, count in {"a": 3, "b": 2, "c": 1}.items():
        (tmp_path / "data" / "train" / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (16, 16), (40 * i, 90, 9)).save(tmp_path / "data" / "train" / name / f"{i}.png")
    (tmp_path / "data" / "train" / "a" / "notes.txt").touch()
    source = {"type": "imagefolder", "root": str(tmp_path / "data"), "split": "train"}
    record = run_pretraining(tiny.config(data__train=source, **SHORT), tmp_path / "run")
    assert record["images_seen"]["upper"] > 0
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count(f"imagefolder train at {tmp_path / 'data'}: left out: 1 .txt\n") == 1
    assert log.count("classes of one image, which is in the training part of the split: c\n") == 1


@pytest.mark.parametrize("kind", ["linear", "nca", "ridge"])
@pytest.mark.parametrize("size", [2, 100])
def test_a_feedback_batch_below_the_classes_or_above_the_data_trains(kind: str, size: int) -> None:
    """Two samples for four classes; 100, of which 20 are left, for 76 head and 20 upper images."""
    model, data = tiny.trainer(tiny.config(feedback={"type": kind}, data__feedback_batch_size=size))
    levels = {k: p for k, p in model.level_parameters().items() if p}
    step = PretrainStep(model, {k: torch.optim.AdamW(p.values(), 1e-3) for k, p in levels.items()})
    for t in range(2):
        batch = data.batches[t]
        assert len(batch["upper"]["index"].unique()) == len(batch["upper"]["index"]) == min(size, 20)
        losses = step(batch, t)
        assert all(loss.isfinite() for loss in losses.values())
    assert all(p.isfinite().all() for p in model.parameters())
