"""``levels.mask_pooling``: σ weights what the feedback pools, φ follows the explicit gradient, and runs stay exact."""

import shutil
from pathlib import Path

import pytest
import tiny
import torch
from torch.nn import functional as F

from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.common.errors import ConfigError
from mlomae.multilevel import hypergradient
from mlomae.pretraining.losses import features, feedback_tokens, level_problem
from mlomae.pretraining.run import run_pretraining

NCA = {"type": "nca"}
LAST = 4


def config(**changes: object):
    values = {
        "feedback": NCA,
        "mask__sampling": "random",
        "mask__scale": 2.0,
        "levels__mask_pooling": True,
        "levels__solver": "explicit",
        "data__eval": None,
        "train__outer_iterations": LAST,
    }
    return tiny.config(**(values | changes))


def test_the_mean_of_the_tokens_becomes_the_mean_weighted_by_sigma() -> None:
    model, data = tiny.trainer(config())
    batch = data.batches[0]["upper"]
    z = features(model, batch)
    sigma = model.mask.scores(model.mae.encoder.embed(batch["image"]), None)
    seen = feedback_tokens(model, batch)
    expected = (sigma.unsqueeze(-1) * z[:, 1:]).sum(1) / sigma.sum(1, keepdim=True)
    torch.testing.assert_close(seen[:, 1:].mean(1), expected)
    assert torch.equal(seen[:, 0], z[:, 0])
    plain = tiny.trainer(config(levels__mask_pooling=False, levels__solver="one_step"))[0]
    plain.load_state_dict(model.state_dict())
    assert torch.equal(feedback_tokens(plain, batch), z)


def test_the_hypergradient_is_autograd_through_the_weights() -> None:
    model, data = tiny.trainer(config())
    model.double()
    item = data.batches[0]
    head, upper = ({**b, "image": b["image"].double()} for b in (item["head"], item["upper"]))
    levels = model.level_parameters()
    found = hypergradient(
        level_problem(model), **levels, lower_batch=None, head_batch=head, upper_batch=upper, solver="explicit"
    )
    pooled = []
    for batch in (head, upper):
        tokens = model.mae.encoder.embed(batch["image"]).detach()
        logits = model.mask.net(tokens)
        logits = (logits - logits.mean(1, keepdim=True)) / (logits.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
        sigma = torch.sigmoid(2.0 * logits)
        z = model.mae.encoder(batch["image"]).detach()[:, 1:]
        pooled.append((sigma.unsqueeze(-1) * z).sum(1) / sigma.sum(1, keepdim=True))
    centre = pooled[0].mean(0)
    a, b = (F.normalize(p - centre, dim=1) for p in pooled)
    p = ((b @ a.T) / 0.1).softmax(1)
    own = (p * (upper["label"][:, None] == head["label"])).sum(1)
    loss = -own[own > 0].log().mean()
    expected = torch.autograd.grad(loss, list(levels["phi"].values()))
    for got, want in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("feedback", [NCA, {"type": "ridge"}, {"type": "linear", "pooling": "avg"}])
@pytest.mark.parametrize("solver", ["explicit", "one_step", "sama"])
def test_phi_moves_with_every_feedback(feedback: dict, solver: str) -> None:
    model, data = tiny.trainer(config(feedback=feedback, levels__solver=solver))
    levels = model.level_parameters()
    before = {k: t.detach().clone() for k, t in levels["phi"].items()}
    tiny.step_of(model)(data.batches[0], 0)
    assert any(not torch.equal(t, before[k]) for k, t in levels["phi"].items())


def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    record = run_pretraining(config(), whole)
    assert {"loss_upper", "feedback_accuracy", "sigma_object_auroc"} <= record["metrics"].keys()
    (cut / "checkpoints").mkdir(parents=True)
    shutil.copy(checkpoint_path(whole, 2), cut / "checkpoints")
    run_pretraining(config(), cut, resume=True)
    states = [load_checkpoint(checkpoint_path(folder, LAST)) for folder in (whole, cut)]
    assert tiny.state_differences(*states) == []


def test_bf16_and_sama_run(tmp_path: Path) -> None:
    changes = {"train__amp": "bf16", "levels__solver": "sama", "train__accumulate": 2, "levels__v_momentum": 0.5}
    run_pretraining(config(**changes), tmp_path)


def test_random_sampling_ignores_phi() -> None:
    model, data = tiny.trainer(config())
    batch = data.batches[0]["lower"][0]
    tokens = model.mae.encoder.embed(batch["image"])
    first = model.choose_mask(tokens, batch)
    with torch.no_grad():
        for p in model.mask.parameters():
            p.add_(torch.randn_like(p))
    second = model.choose_mask(tokens, batch)
    assert torch.equal(first.mask, second.mask)
    assert not torch.equal(first.weight, second.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels__mask_pooling": False}, "needs levels.mask_pooling=True"),
        ({"feedback": {"type": "nca", "pooling": "cls"}}, "pooling='avg'"),
        ({"levels__solver": "finite_difference"}, "does not work with levels.mask_pooling"),
        ({"levels__v_momentum": 0.5}, "no response vector"),
    ],
)
def test_contradictions_are_one_line_errors(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.trainer(config(**changes))
