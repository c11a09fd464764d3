"""A cheaper upper level: φ moves in every n-th iteration, and what nobody reads is not loaded."""

from pathlib import Path

import pytest
import tiny
import torch

from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.multilevel import OuterStep
from mlomae.pretraining import run
from mlomae.pretraining.feedback_gate import needed_levels
from mlomae.pretraining.losses import level_problem, lower
from mlomae.pretraining.run import run_pretraining
from mlomae.pretraining.step import PretrainStep

STEPS = 7


@pytest.mark.parametrize("kind", ["linear", "nca"])
@pytest.mark.parametrize("warmup", [0, 2])
def test_phi_moves_in_every_second_iteration_after_the_warm_up(kind: str, warmup: int) -> None:
    """The same bits as an `OuterStep` driven by hand."""
    cfg = tiny.config(feedback={"type": kind}, levels__upper_every=2, levels__warmup=warmup)
    (model, data), (other, _) = tiny.trainer(cfg), tiny.trainer(cfg)
    optimizers = []
    for each in (model, other):
        levels = {k: p for k, p in each.level_parameters().items() if p}
        optimizers.append({k: torch.optim.AdamW(p.values(), 1e-3) for k, p in levels.items()})
    ours = PretrainStep(model, optimizers[0])
    step = OuterStep(
        level_problem(other),
        **other.level_parameters(),
        optimizers=optimizers[1],
        lower_loss=lambda theta, phi, batch: lower(other, batch),
        clip_grad=cfg.optim["theta"].clip_grad,
    )
    moved = []
    for t in range(STEPS):
        item = data.batches[t]
        before = {k: v.clone() for k, v in model.mask.state_dict().items()}
        losses = ours(data.batches[t], t)
        if tiny.differences(before, dict(model.mask.state_dict())):
            moved.append(t)
        assert ("loss_upper" in losses) == (t in moved)
        assert ("loss_head" in losses) == (kind == "linear"), "the head learns in every iteration"
        item["head"]["dropout_key"] = item["head"]["key"]
        batches = [{**batch, "warmup": t < warmup} for batch in item["lower"]]
        step(batches, item["head"], item["upper"], t >= warmup and (t - warmup) % 2 == 0)
        assert tiny.differences(dict(model.state_dict()), dict(other.state_dict())) == []
    assert moved == list(range(warmup, STEPS, 2))


@pytest.mark.parametrize("kind", ["linear", "nca"])
def test_batches_that_are_not_read_are_not_loaded_and_make_no_difference(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intervals = {f"train__{name}_interval": 5 for name in ("log", "picture", "checkpoint")}
    cfg = tiny.config(feedback={"type": kind}, data__eval=None, levels__upper_every=4, levels__warmup=1, **intervals)
    needed = needed_levels(cfg)
    few = () if kind == "nca" else ("head",)
    both = ("head", "upper")
    assert [needed(t) for t in range(10)] == [few, both, few, few, both, both, few, few, few, both]
    run_pretraining(cfg, tmp_path / "needed")
    monkeypatch.setattr(run, "needed_levels", lambda config: None)
    run_pretraining(cfg, tmp_path / "everything")
    states = [load_checkpoint(checkpoint_path(tmp_path / name, 10)) for name in ("needed", "everything")]
    assert tiny.state_differences(*states) == []


def test_a_warm_up_of_unknown_length_loads_everything() -> None:
    assert needed_levels(tiny.config(levels__warmup_margin=1.0)) is None
