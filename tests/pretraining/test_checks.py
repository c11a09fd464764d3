"""What makes a run useless at its end is found before its first step, or mended with a word that the record keeps."""

import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cls_runs
import numpy as np
import pytest
import tiny
import torch

from mlomae.common.checkpoint import checkpoint_path, list_checkpoints, load_checkpoint, save_atomically
from mlomae.common.errors import CheckpointError, ConfigError, DataError, MlomaeError
from mlomae.data import MemorySource
from mlomae.data.registry import registered_dataset
from mlomae.diagnostics.diagnose import diagnose
from mlomae.pretraining.checks import lowered_batches
from mlomae.pretraining.feedback_gate import FeedbackGate, FeedbackProbe
from mlomae.pretraining.load import evaluate_checkpoint
from mlomae.pretraining.run import run_pretraining
from mlomae.pretraining.step import PretrainStep

SHORT = {"data__eval": None, "train__outer_iterations": 2, "train__picture_interval": 9}
HALVES = [0.5, 0.5, 0.5]


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step fails the test."""

    def fail(*given: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(PretrainStep, "__call__", fail)


# --- sizes ------------------------------------------------------------------------------------------------------------

SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "data.augment.size is 32, and model.img_size is 16; leave it out": (
        {"data__augment": {"type": "Plain", "size": 32}},
        {"data__augment": {"type": "Plain"}},
    ),
    r"data.feedback_augment.mean is \[0.485, .*\], and data.augment.mean is \[0.5, 0.5, 0.5\]; set it to that": (
        {"data__augment": {"type": "Plain", "mean": HALVES}, "data__eval": None},
        {"data__feedback_augment": {"type": "Plain", "mean": HALVES}},
    ),
    r"data.augment.std is \[0.5, 0.5, 0.5\], and evaluation takes .* or set data.eval=None": (
        {**tiny.RANDOM, "data__augment": {"type": "Plain", "std": HALVES}},
        {"data__eval": None},
    ),
}


@pytest.mark.parametrize("said", SIZES)
def test_images_that_do_not_fit_the_model_or_each_other_are_refused(said: str, untrained: None, tmp_path: Path) -> None:
    changes, remedy = SIZES[said]
    with pytest.raises(ConfigError, match=said) as error:
        run_pretraining(tiny.config(**changes), tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(AssertionError, match="trained"):
        run_pretraining(tiny.config(**changes | remedy), tmp_path)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_batches_larger_than_their_images_are_lowered_with_a_word_and_in_the_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """96 images in four classes: 76 of the lower and the head's level, 20 of the upper one."""
    cfg = tiny.config(data__batch_size=100, data__feedback_batch_size=64, **SHORT)
    record = run_pretraining(cfg, tmp_path)
    assert "data.batch_size is 100, more than its images: lowered to 76" in caplog.text
    assert "data.feedback_batch_size is 64, more than its images: lowered to 20" in caplog.text
    assert record["lowered"] == {"batch_size": 76, "feedback_batch_size": 20}
    assert record["images_seen"] == {"lower": 2 * 2 * 76, "head": 40, "upper": 40}
    assert record["config"]["data"]["batch_size"] == 100, "a suite finds its record"
    same = run_pretraining(tiny.config(data__batch_size=76, data__feedback_batch_size=20, **SHORT), tmp_path / "same")
    states = [load_checkpoint(checkpoint_path(work, 2)) for work in (tmp_path, tmp_path / "same")]
    assert tiny.differences(states[0]["modules"], states[1]["modules"]) == []
    assert "lowered" not in same
    data = tiny.trainer(cfg)[1]
    lowered = lowered_batches(cfg, {"batch_size": [data.batches.lower]}, processes=3)
    assert lowered == {"batch_size": 75}, "as many for each of three processes"
    for item in (data.batches[t] for t in range(3)):
        assert all(len(part["index"].unique()) == len(part["index"]) for part in (*item["lower"], item["upper"]))


def test_a_run_that_has_repeated_images_is_not_resumed_with_other_batches(tmp_path: Path) -> None:
    cfg = tiny.config(data__feedback_batch_size=64, **SHORT)
    run_pretraining(cfg, tmp_path)
    path = checkpoint_path(tmp_path, 2)
    state = load_checkpoint(path)
    del state["meta"]["lowered"]
    save_atomically(state, path)
    with pytest.raises(
        CheckpointError, match=r"other sizes \(as configured, now .*20.*choose another work dir"
    ) as error:
        run_pretraining(cfg, tmp_path, resume=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("size", "remedy"), [(16, "raise data.feedback_batch_size"), (64, "more labelled images")])
def test_the_warning_of_a_feedback_at_chance_counts_images_once_and_names_a_remedy_that_helps(
    size: int, remedy: str
) -> None:
    model, data = tiny.trainer(tiny.config(data__feedback_batch_size=size, **SHORT))
    probe = FeedbackProbe(model, FeedbackGate(-1), data.batches)
    assert remedy in probe._remedy()
    assert "of 20 upper images" in probe._describe(0.25, 200)


# --- labels -----------------------------------------------------------------------------------------------------------


class Listed(MemorySource):
    """Noise of 16 pixels, as many images of each class as ``counts`` says."""

    def __init__(self, split: str, counts: list[int]) -> None:
        generator = torch.Generator().manual_seed(sum(map(ord, split)))
        images = torch.randint(256, (sum(counts), 3, 16, 16), generator=generator).to(torch.uint8)
        labels = np.repeat(np.arange(len(counts)), counts)
        super().__init__("listed", split, split, ["a", "b", "c"][: len(counts)], images, labels, [split])


@pytest.fixture
def listed() -> Iterator[None]:
    with registered_dataset("listed", Listed):
        yield


def source(split: str, *counts: int) -> dict[str, Any]:
    return {"type": "listed", "split": split, "counts": list(counts)}


TEST = {"data__eval": source("test", 4, 4)}
LEARNED = {"data__eval": None, "data__batch_size": 2, "data__feedback_batch_size": 2}
ONE_CLASS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the linear probe needs two classes at least, and it gets 12 images of .*, all of 'a'; set data.eval=None": (
        {**tiny.RANDOM, **TEST, "data__train": source("train", 12, 0)},
        {"data__eval": None},
    ),
    "the linear probe needs .* it gets 1 image of .*; set data.eval=None, or raise data.probe_limit": (
        {**tiny.RANDOM, **TEST, "data__train": source("train", 12, 12), "data__probe_limit": 1},
        {"data__probe_limit": 24},
    ),
    "need labels of images, and .* has none; set it to None": (
        {**tiny.RANDOM, "data__eval": source("test", 4), "data__train": source("train", 12)},
        {"data__eval": None},
    ),
    "the head level of feedback 'linear' needs .*, all of 'a'; add images, or set data.feedback": (
        {**LEARNED, "data__train": source("train", 12, 0)},
        {"data__feedback": source("other", 12, 12)},
    ),
    "the upper level of feedback 'linear' needs .*, all of 'b'; add images, or set data.feedback": (
        {**LEARNED, "data__train": source("train", 1, 12)},
        {"data__train": source("train", 2, 12)},
    ),
    "auxiliary.type='classification' needs .*, all of 'a'; set auxiliary=None": (
        {
            **tiny.RANDOM,
            "data__eval": None,
            "data__train": source("train", 12, 0),
            "auxiliary": {"type": "classification"},
        },
        {"auxiliary": None},
    ),
}


@pytest.mark.parametrize("said", ONE_CLASS)
def test_images_of_one_class_are_refused_where_labels_matter(
    said: str, listed: None, untrained: None, tmp_path: Path
) -> None:
    changes, remedy = ONE_CLASS[said]
    with pytest.raises(MlomaeError, match=said) as error:
        run_pretraining(tiny.config(**changes), tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(AssertionError, match="trained"):
        run_pretraining(tiny.config(**changes | remedy), tmp_path)


def test_few_images_lower_k_and_a_class_without_images_is_named(
    listed: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"data__train": source("train", 6, 1, 0), "data__eval": source("test", 4, 4, 2)}
    cfg = tiny.config(**SHORT | tiny.RANDOM | changes)
    record = run_pretraining(cfg, tmp_path)
    assert "k-NN has 7 training images: k is lowered to that, from 20" in caplog.text
    assert "tested without a training image, and k-NN and linear probe cannot find them: c" in caplog.text
    assert record["metrics"]["knn_k"] == record["metrics"]["n_train"] == 7
    assert record["metrics"]["chance"] == pytest.approx(100 * 4 / 10), "of a constant prediction"
    caplog.clear()
    assert evaluate_checkpoint(tmp_path)["knn_k"] == 7
    assert "k is lowered to that" in caplog.text
    enough = {"data.train.counts": [12, 12, 0]}
    assert "knn_k" not in evaluate_checkpoint(tmp_path, enough)
    with pytest.raises(DataError, match=r"add images of another class to data\.train"):
        evaluate_checkpoint(tmp_path, {"data.train.counts": [12, 0, 0]})


def test_the_only_image_of_a_class_is_trained_on_and_said(
    listed: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = run_pretraining(tiny.config(**SHORT | LEARNED | {"data__train": source("train", 12, 12, 1)}), tmp_path)
    assert "one image, which is in the training part of the split: c" in (tmp_path / "train.log").read_text()
    assert math.isfinite(record["metrics"]["loss_upper"])
    assert record["classes"] == 3


def test_chance_of_a_feedback_is_that_of_a_constant_prediction(listed: None, tmp_path: Path) -> None:
    record = run_pretraining(tiny.config(**SHORT | LEARNED | {"data__train": source("train", 30, 10, 10)}), tmp_path)
    assert record["metrics"]["feedback_chance"] == pytest.approx(100 * 6 / 10)
    assert diagnose(tmp_path, batches=2, batch_size=4)[0]["feedback_chance"] == pytest.approx(100 * 6 / 10)


# --- the disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def leave(size: float) -> None:
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path: SimpleNamespace(free=int(size)) if path.is_dir() else None
        )

    return leave


RUNS: dict[str, Callable[..., Any]] = {
    "learned": lambda work, **more: run_pretraining(tiny.config(**SHORT | STEPS), work, **more),
    "finetune": lambda work, **more: cls_runs.run_transfer(cls_runs.config(**STEPS), work, **more),
    "sgd": lambda work, **more: cls_runs.run_transfer(cls_runs.config(**STEPS, optim__type="sgd"), work, **more),
}
STEPS = {"train__checkpoint_interval": 1, "train__keep_checkpoints": 1}


@pytest.mark.parametrize("kind", RUNS)
def test_a_disk_without_room_for_the_checkpoints_is_refused_before_the_first_step(
    kind: str, free: Callable[[float], None], tmp_path: Path
) -> None:
    RUNS[kind](tmp_path / "whole")
    (path,) = list_checkpoints(tmp_path / "whole")
    size = path.stat().st_size
    free(1.6 * size)
    with pytest.raises(
        CheckpointError, match=r"has .* MB free, and 2 checkpoints at a time .*; free .* --work-dir"
    ) as error:
        RUNS[kind](tmp_path / "small" / "run")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("small/**/*.pth"))
    found = float(re.findall(r"take (\S+) MB", str(error.value))[0])
    assert found == pytest.approx(size / 1e6, abs=0.051, rel=0.1), "the estimate is the size of the file"
    free(2.1 * size)
    RUNS[kind](tmp_path / "small" / "run")
    free(0)
    RUNS[kind](tmp_path / "small" / "run", resume=True)  # nothing is left to write
