"""Runs whose feedback has no parameters: no optimizer for ω, the same bits after a resume, accuracy in the log."""

import shutil
from pathlib import Path

import pytest
import tiny
import torch

from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.common.errors import ConfigError
from mlomae.pretraining import health
from mlomae.pretraining.losses import features, level_problem
from mlomae.pretraining.run import run_pretraining
from mlomae.pretraining.step import PretrainStep

FEEDBACKS = {
    "nca": {"type": "nca", "temperature": 0.1, "pooling": "avg"},
    "ridge": {"type": "ridge", "penalty": 1.0, "pooling": "cls"},
}
LAST = 4


def config(name: str, **changes: object):
    return tiny.config(feedback=FEEDBACKS[name], data__eval=None, train__outer_iterations=LAST, **changes)


@pytest.mark.parametrize("name", FEEDBACKS)
def test_no_level_for_omega_and_the_mask_learns(name: str) -> None:
    model, data = tiny.trainer(config(name))
    levels = model.level_parameters()
    assert levels["omega"] == {}
    assert levels["theta"]
    assert levels["phi"]
    assert level_problem(model).joint_loss is not None
    before = {k: t.detach().clone() for k, t in levels["phi"].items()}
    step = PretrainStep(model, {k: torch.optim.AdamW(p.values()) for k, p in levels.items() if p})
    losses = step(data.batches[0], 0)
    assert losses.keys() == {"loss_lower", "loss_upper", "reconstruction_error"}
    assert any(not torch.equal(t, before[k]) for k, t in levels["phi"].items())


@pytest.mark.parametrize("name", FEEDBACKS)
def test_a_resumed_run_has_the_same_bits_and_logs_the_feedback_accuracy(name: str, tmp_path: Path) -> None:
    cfg, whole, cut = config(name), tmp_path / "whole", tmp_path / "cut"
    record = run_pretraining(cfg, whole)
    logged = record["metrics"]
    assert {"loss_lower", "loss_upper", "feedback_accuracy"} <= logged.keys()
    assert "loss_head" not in logged
    assert logged["feedback_chance"] == 100.0 / tiny.CLASSES
    straight = load_checkpoint(checkpoint_path(whole, LAST))
    assert straight["optimizers"].keys() == {"theta", "phi"}

    model, data = tiny.trainer(cfg)  # the accuracy in the log, computed again from the checkpoint
    for part, weights in straight["modules"].items():
        getattr(model, part).load_state_dict(weights)
    head, upper = (data.batches[LAST - 1][level] for level in ("head", "upper"))
    with torch.no_grad():
        tokens = [features(model, batch) for batch in (upper, head)]
        accuracy = health.feedback_accuracy(model.feedback, model.feedback.predict(*tokens, head), upper)
    assert float(accuracy) == pytest.approx(logged["feedback_accuracy"])

    (cut / "checkpoints").mkdir(parents=True)
    shutil.copy(checkpoint_path(whole, 2), cut / "checkpoints")
    run_pretraining(cfg, cut, resume=True)
    assert tiny.state_differences(load_checkpoint(checkpoint_path(cut, LAST)), straight) == []


def test_bf16_and_accumulation_run_and_random_masks_need_no_feedback(tmp_path: Path) -> None:
    run_pretraining(config("ridge", train__amp="bf16", train__accumulate=2), tmp_path / "bf16")
    record = run_pretraining(config("nca", **tiny.RANDOM), tmp_path / "random")
    assert "loss_upper" not in record["metrics"]


def test_bad_options_stop_before_training() -> None:
    with pytest.raises(ConfigError, match=r"'temperature' of feedback 'nca' must be positive; got 0.0"):
        tiny.trainer(tiny.config(feedback={"type": "nca", "temperature": 0.0}))
    with pytest.raises(ConfigError, match="no option 'dropout'"):
        tiny.trainer(tiny.config(feedback={"type": "ridge", "dropout": 0.1}))
