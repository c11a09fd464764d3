"""Auxiliary losses and those of a strategy: what they move, that the log tells them apart, that a resume keeps them."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from mlomae import auxiliary, masking
from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.common.errors import ConfigError, DataError
from mlomae.masking import AdaptiveMasking, Mask, MaskState, Reconstruction
from mlomae.masking import base as registry
from mlomae.masking.base import mask_from_scores
from mlomae.models import MAE
from mlomae.multilevel import list_solvers
from mlomae.pretraining.run import run_pretraining

CLASSIFICATION = {**tiny.RANDOM, "auxiliary": {"type": "classification", "weight": 0.5}}


class Pulling(AdaptiveMasking):
    """Random masks; its parameter is drawn towards 3, it counts how often it was asked and sees the progress."""

    scheduled = True

    def __init__(self, embed_dim: int, grid: tuple[int, int]) -> None:
        super().__init__(embed_dim, grid)
        self.level = nn.Parameter(torch.zeros(2))
        self.register_buffer("copy", torch.zeros(16))
        self.seen: list[float] = []

    def attach(self, mae: MAE) -> None:
        self.copy.copy_(mae.encoder.cls_token.detach().flatten())

    def follow(self, mae: MAE, progress: float) -> None:
        self.copy.lerp_(mae.encoder.cls_token.flatten(), 0.5)

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        self.seen.append(state.progress)
        return mask_from_scores(state.uniform(tokens_BLD.shape[1]), ratio)

    def own_loss(self, seen: Reconstruction) -> Tensor:
        return (self.level - 3.0).square().sum()


@pytest.fixture
def pulling(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(registry._STRATEGIES._builders, "pulling", Pulling)
    return {"method": "pulling", "mask": {"type": "pulling", "ratio": 0.75}}


def steps(changes: dict[str, Any], count: int) -> tuple[Any, list[dict[str, float]]]:
    model, data = tiny.trainer(tiny.config(**changes))
    step = tiny.step_of(model)
    found = [step(data.batches[t], t) for t in range(count)]
    return model, [{name: float(value) for name, value in losses.items()} for losses in found]


def test_the_strategys_parameters_move_with_theta_and_the_log_tells_the_losses_apart(pulling: dict[str, Any]) -> None:
    model, losses = steps(pulling, 3)
    plain, alone = steps(tiny.RANDOM, 3)
    assert (model.mask.level > 1e-4).all()
    assert losses[0]["loss_beside"] == pytest.approx(
        2 * (9 + (3 - float(model.config.optim["theta"].lr)) ** 2) / 2, 1e-3
    )
    assert losses[2]["loss_beside"] < losses[0]["loss_beside"]
    assert set(alone[0]) == {"loss_lower", "reconstruction_error"}
    # the strategy draws what random masking draws, and its loss does not touch θ but by the common bound of the norm
    assert losses[0]["loss_lower"] == pytest.approx(alone[0]["loss_lower"], rel=1e-2)
    assert list(model.level_parameters()["theta"])[-1] == "mask.level"
    assert not any(name.startswith("mask.") for name in plain.level_parameters()["theta"])


def test_it_is_attached_follows_once_an_iteration_and_knows_the_progress(pulling: dict[str, Any]) -> None:
    first, _ = tiny.trainer(tiny.config(**pulling))
    assert torch.equal(first.mask.copy, first.mae.encoder.cls_token.flatten())
    model, _ = steps(pulling, 4)
    assert model.mask.seen == [0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3]
    assert not torch.equal(model.mask.copy, model.mae.encoder.cls_token.flatten())
    assert (model.mask.copy - model.mae.encoder.cls_token.flatten()).abs().max() < 1e-2
    assert not model.mask.copy.requires_grad


def test_a_strategy_without_a_schedule_sees_no_progress(monkeypatch: pytest.MonkeyPatch, pulling: Any) -> None:
    monkeypatch.setattr(Pulling, "scheduled", False)
    assert set(steps(pulling, 3)[0].mask.seen) == {0.0}


def test_chunks_of_a_batch_give_the_same_losses(pulling: dict[str, Any]) -> None:
    for changes in (pulling, CLASSIFICATION):
        (_, whole), (_, parts) = steps(changes, 3), steps({**changes, "train__accumulate": 2}, 3)
        for a, b in zip(whole, parts, strict=True):
            assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.parametrize("kind", ["pulling", "classification"])
def test_a_resumed_run_ends_with_the_same_bits(kind: str, pulling: dict[str, Any], tmp_path: Path) -> None:
    config = tiny.config(**(pulling if kind == "pulling" else CLASSIFICATION), name=kind)
    record = run_pretraining(config, tmp_path / "straight")
    assert record["metrics"]["loss_beside"] > 0
    source = checkpoint_path(tmp_path / "straight", 6)
    target = checkpoint_path(tmp_path / "resumed", 6)
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    run_pretraining(config, tmp_path / "resumed", resume=True)
    states = [load_checkpoint(checkpoint_path(tmp_path / name, 10)) for name in ("straight", "resumed")]
    assert tiny.state_differences(*states) == []
    assert any(t.numel() for t in states[0]["modules"]["mask" if kind == "pulling" else "auxiliary"].values())


def test_the_first_losses_are_the_same_for_every_solver() -> None:
    """Solvers take the lower loss again at other parameters; the log shows that of the steps on θ."""
    first = {}
    for solver in sorted(set(list_solvers()) - {"explicit"}):  # which has nothing to follow without pooled features
        changes = {"levels__solver": solver, "auxiliary": {"type": "uniformity", "weight": 1.0}}
        _, (first[solver],) = steps(changes, 1)
    assert first["one_step"].keys() >= {"loss_lower", "loss_beside", "loss_head", "reconstruction_error"}
    assert first["one_step"]["loss_beside"] > 0.1
    for name in ("loss_lower", "loss_beside", "loss_head", "reconstruction_error"):
        assert len({losses[name] for losses in first.values()}) == 1, (name, first)


def test_a_step_leaves_its_batch_as_it_is() -> None:
    model, data = tiny.trainer(tiny.config(auxiliary={"type": "classification", "weight": 0.5}, levels__warmup=1))
    step = tiny.step_of(model)
    for t in range(2):  # with random masks, then with learned ones
        batch, again = data.batches[t], data.batches[t]
        step(batch, t)
        assert tiny.differences(batch, again) == []


def test_a_gate_keeps_the_reconstruction_and_passes_its_gradient() -> None:
    """d rec / d gate by central differences in float64."""
    model, data = tiny.trainer(tiny.config(**tiny.RANDOM))
    model.double()
    batch = {k: v.double() if v.is_floating_point() else v for k, v in data.batches[0]["lower"][0].items()}
    tokens = model.mae.encoder.embed(batch["image"]).detach()
    mask = model.choose_mask(tokens, batch)

    def error(gate: Tensor) -> Tensor:
        return model.mae.patch_error(model.mae(tokens, replace(mask, gate=gate)), batch["image"]).mean()

    gate = torch.ones(mask.mask.shape, dtype=torch.float64, requires_grad=True)
    bare = model.mae.patch_error(model.mae(tokens, mask), batch["image"]).mean()
    assert error(gate).item() == bare.item()
    (found,) = torch.autograd.grad(error(gate), gate)
    assert (found[mask.mask == 1] == 0).all()
    image, patch = 3, int(mask.ids_keep[3, 0])
    step = torch.zeros_like(gate)
    step[image, patch] = 1e-5
    numeric = (error(gate + step) - error(gate - step)) / 2e-5
    assert float(found[image, patch]) == pytest.approx(float(numeric), rel=1e-6)


def seen(latents: Tensor, label: Tensor | None) -> Reconstruction:
    nothing: Any = None
    return Reconstruction(nothing, nothing, nothing, nothing, latents, nothing, nothing, label)


def test_uniformity_against_pairs_one_by_one() -> None:
    latents = torch.randn(6, 4, 8, generator=torch.Generator().manual_seed(0))
    z = latents[:, 0]
    pairs = [float(torch.cosine_similarity(a, b, dim=0)) ** 2 for a in z for b in z]
    term = auxiliary.create("uniformity", embed_dim=8, num_classes=3, weight=0.5)
    assert float(term(seen(latents, None))) == pytest.approx(0.5 * sum(pairs) / 36, rel=1e-5)
    assert float(term(seen(torch.ones(6, 4, 8), None))) == pytest.approx(0.5)
    basis = torch.eye(8)[:6, None].expand(6, 4, 8)
    assert float(term(seen(basis, None))) == pytest.approx(0.5 / 6)


def test_joint_classification_is_the_cross_entropy_of_a_linear_head() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, label = torch.randn(6, 5, 8, generator=generator).requires_grad_(), torch.arange(6) % 3
    term: Any = auxiliary.create("classification", embed_dim=8, num_classes=3, weight=0.5)
    with torch.no_grad():
        term.fc.weight.copy_(torch.randn(3, 8, generator=generator))
    mean = latents[:, 1:].mean(dim=1)
    z = (mean - mean.mean(dim=1, keepdim=True)) / (mean.var(dim=1, keepdim=True, correction=0) + 1e-5).sqrt()
    p = (z @ term.fc.weight.T).softmax(dim=1)
    value = term(seen(latents, label))
    assert float(value.detach()) == pytest.approx(-0.5 * float(p[range(6), label].log().mean()), rel=1e-5)
    (gradient,) = torch.autograd.grad(value, latents)
    assert (gradient[:, 1:] != 0).any()
    assert (gradient[:, 0] == 0).all(), "the class token has no part in it"
    with pytest.raises(DataError, match="no labels"):
        term(seen(latents, None))


def test_joint_classification_moves_its_head_and_theta() -> None:
    (model, losses), (plain, _) = steps(CLASSIFICATION, 2), steps(tiny.RANDOM, 2)
    fresh, _ = tiny.trainer(tiny.config(**CLASSIFICATION))
    assert losses[0]["loss_beside"] == pytest.approx(0.5 * math.log(tiny.CLASSES), rel=0.05)
    assert not torch.equal(model.auxiliary.fc.weight, fresh.auxiliary.fc.weight)
    assert not torch.equal(model.mae.encoder.norm.weight, plain.mae.encoder.norm.weight)
    assert "auxiliary.fc.weight" in model.level_parameters()["theta"]


def test_configurations(pulling: dict[str, Any]) -> None:
    assert "auxiliary" not in tiny.config(**tiny.RANDOM).to_dict(), "hashes of old records would change"
    assert tiny.config(**CLASSIFICATION).to_dict()["auxiliary"]["weight"] == 0.5
    for changes, words in (
        ({**tiny.RANDOM, "auxiliary": {"weight": 1.0}}, "auxiliary.type"),
        (
            {**tiny.RANDOM, "auxiliary": {"type": "nothing"}},
            "unknown auxiliary loss 'nothing'; choose one of classification, .*uniformity",
        ),
        ({**tiny.RANDOM, "auxiliary": {"type": "uniformity", "weight": -1.0}}, "'weight' of .*; got -1.0"),
        ({**CLASSIFICATION, "train__compile": True}, "does not work with auxiliary"),
        ({**pulling, "train__compile": True}, "does not work with mask.type='pulling'"),
    ):
        with pytest.raises(ConfigError, match=words):
            tiny.trainer(tiny.config(**changes))
    assert not masking.is_trainable("pulling")
