"""What makes a run useless at its end is found before its first step, or mended with a word that the record keeps."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from mlomae.common.checkpoint import checkpoint_path, load_checkpoint, save_atomically
from mlomae.common.errors import CheckpointError, ConfigError
from mlomae.pretraining.feedback_gate import FeedbackGate, FeedbackProbe
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
    for item in (tiny.trainer(cfg)[1].batches[t] for t in range(3)):
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
