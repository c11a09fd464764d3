"""Influence on the tiny Pretrainer against one backward per patch, and on a planted problem against its closed form."""

from pathlib import Path
from typing import Any

import planted
import pytest
import tiny
import torch
from torch import Tensor
from torch.func import functional_call

from mlomae.multilevel import Point, patch_influence
from mlomae.multilevel.params import fill
from mlomae.pretraining import health, influence
from mlomae.pretraining.health import separate
from mlomae.pretraining.influence import influence_at, model_influence
from mlomae.pretraining.losses import features, patch_errors
from mlomae.pretraining.pretrainer import Pretrainer

FEEDBACKS = {
    "linear": {"type": "linear", "pooling": "avg"},
    "nca": {"type": "nca", "temperature": 0.5},
    "ridge": {"type": "ridge"},
}


def double(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: t.double() if t.is_floating_point() else t for k, t in batch.items()}


def setting(feedback: str, **changes: Any) -> tuple[Pretrainer, dict[str, Any], dict[str, Any], dict[str, Any]]:
    model, data = tiny.trainer(tiny.config(feedback=FEEDBACKS[feedback], data__eval=None, **changes))
    with torch.no_grad():
        for p in model.feedback.parameters():  # a head of zeros would hide the path through it
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    item = data.batches[0]
    return model.double(), *(double(batch) for batch in (item["lower"][0], item["head"], item["upper"]))


def brute_v(model: Pretrainer, head: dict[str, Any], upper: dict[str, Any]) -> dict[str, Tensor]:
    """v with plain autograd on the module itself: no functional call, no cut at the features."""
    theta = {n: p for n, p in model.named_parameters() if n.startswith("mae.") and p.requires_grad}
    z_head, z_upper = features(model, head), features(model, upper)
    if model.feedback.joint:
        value = model.feedback.joint_loss(z_head, z_upper, head, upper)
    else:
        omega = list(model.feedback.parameters())
        loss_upper, loss_head = model.feedback(z_upper, upper), model.feedback(z_head, head)
        q = torch.autograd.grad(loss_upper, omega, retain_graph=True)
        g = torch.autograd.grad(loss_head, omega, create_graph=True)
        value = loss_upper - sum((a * b).sum() for a, b in zip(g, q, strict=True))
    found = torch.autograd.grad(value, list(theta.values()), allow_unused=True)
    return fill({n: g for n, g in zip(theta, found, strict=True) if g is not None}, theta)


@pytest.mark.parametrize("feedback", FEEDBACKS)
@pytest.mark.parametrize("random_mask", [False, True])
def test_influence_equals_one_backward_per_patch(feedback: str, random_mask: bool) -> None:
    model, lower, head, upper = setting(feedback)
    found = model_influence(model, lower, head, upper, random_mask=random_mask)
    v = brute_v(model, head, upper)
    rec = patch_errors(model, model.freeze_mask(lower, random_mask))
    parameters = dict(model.named_parameters())
    for image, patch in [(0, 0), (3, 7), (7, 15), (5, 2)]:
        g = torch.autograd.grad(rec[image, patch], [parameters[n] for n in v], retain_graph=True, allow_unused=True)
        one = sum((a * b).sum() for a, b in zip(g, v.values(), strict=True) if a is not None)
        assert abs(found.influence[image, patch] - one) <= 1e-9 * found.influence.abs().max()
    assert found.influence.shape == found.mask.shape == (8, 16)
    assert not found.influence.requires_grad


def test_parts_give_the_influence_of_the_whole() -> None:
    whole = model_influence(*setting("linear"))
    parts = model_influence(*setting("linear", train__accumulate=4))
    torch.testing.assert_close(parts.influence, whole.influence, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(parts.loss_upper, whole.loss_upper, rtol=1e-12, atol=0)


def test_paths_of_the_run_are_used() -> None:
    both, direct = setting("linear"), setting("linear", levels__solver_options={"paths": "direct"})
    v_free = model_influence(*direct).influence
    assert not torch.allclose(v_free, model_influence(*both).influence, rtol=1e-3)
    model, lower, _, upper = direct
    theta = model.level_parameters()["theta"]
    g = torch.autograd.grad(model.feedback(features(model, upper), upper), list(theta.values()), allow_unused=True)
    v = {n: t for n, t in zip(theta, g, strict=True) if t is not None}
    batch = model.freeze_mask(lower)
    expected = patch_influence(lambda t, b: functional_call(model, t, (patch_errors, b)), theta, v, batch)
    torch.testing.assert_close(v_free, expected, rtol=1e-9, atol=1e-12)


def test_own_and_random_masks_differ_for_a_learned_mask_and_repeat() -> None:
    model, lower, head, upper = setting("nca")
    own, random = (model_influence(model, lower, head, upper, random_mask=r).mask for r in (False, True))
    assert not own.equal(random)
    assert own.sum(dim=1).equal(random.sum(dim=1))
    assert random.equal(model_influence(model, lower, head, upper, random_mask=True).mask)
    assert own.equal(model.choose_mask(model.mae.encoder.embed(lower["image"]), lower).mask)


def test_nothing_of_the_model_moves() -> None:
    model, lower, head, upper = setting("linear", levels__v_momentum=0.9)
    before = {k: t.clone() for k, t in model.state_dict().items()}
    generator = torch.get_rng_state()
    model_influence(model, lower, head, upper)
    assert tiny.differences(before, dict(model.state_dict())) == []
    assert generator.equal(torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


# --- planted ---------------------------------------------------------------------------------------------------------


def check_planted(influence_module: Any, health_module: Any) -> None:
    """Object patches have I = 4d, background 0: every batch finds them without an error."""
    gaps = []
    for seed in range(5):
        batch = planted.batch(seed)
        at = Point(planted.problem(), planted.theta(), {}, batch, batch, lower_batch=batch)
        found, loss = influence_module.influence_at(at, planted.errors)
        expected = torch.where(batch["object"], 4 * batch["difficulty"], 0.0)
        assert (found - expected).abs().max() <= 1e-9
        assert float(loss) == 1.0
        separation = health_module.separate(found, batch["object"], batch["mask"])
        assert separation.auroc == 1.0
        gaps.append(separation.gap)
    assert health_module.spread(gaps).t > 10


def test_planted_objects_are_found() -> None:
    check_planted(influence, health)


def test_weight_on_planted_objects_lowers_the_upper_loss_and_on_background_does_not() -> None:
    """The documented sign, by real steps on the lower loss with and without extra weight."""
    batch = planted.batch()

    def upper_after(weight: Tensor) -> float:
        theta = {k: t.requires_grad_() for k, t in planted.theta().items()}
        loss = (weight * planted.errors(theta, batch)).mean()
        g = torch.autograd.grad(loss, list(theta.values()))
        moved = {k: t - 0.1 * d for (k, t), d in zip(theta.items(), g, strict=True)}
        return float(planted.problem().head_loss({}, planted.problem().features(moved, batch), batch).detach())

    plain = torch.ones_like(batch["difficulty"])
    assert upper_after(plain + batch["object"]) < upper_after(plain)
    assert upper_after(plain + ~batch["object"]) == upper_after(plain)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("influence_along(errors, at.theta, response.v,", "-influence_along(errors, at.theta, response.v,"),
        ("response.loss_upper\n", "-response.loss_upper\n"),
    ],
)
def test_a_wrong_sign_of_the_influence_fails(old: str, new: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_planted(planted.mutant(influence, tmp_path, old, new), health)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "(values[objects].mean() - values[~objects].mean())",
            "(values[~objects].mean() - values[objects].mean())",
        ),
        ("auroc(values, objects))", "auroc(-values, objects))"),
        ("(mean - null) / (sd / math.sqrt(n))", "(null - mean) / (sd / math.sqrt(n))"),
    ],
)
def test_a_wrong_sign_of_the_separation_fails(old: str, new: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_planted(influence, planted.mutant(health, tmp_path, old, new))


def test_kept_patches_are_left_out() -> None:
    batch = planted.batch()
    at = Point(planted.problem(), planted.theta(), {}, batch, batch, lower_batch=batch, chunks=2)
    found, _ = influence_at(at, planted.errors)
    spoiled = torch.where(batch["mask"] > 0, found, torch.where(batch["object"], -100.0, 100.0))
    assert separate(spoiled, batch["object"], batch["mask"]) == separate(found, batch["object"], batch["mask"])
    everywhere = separate(spoiled, batch["object"])
    assert everywhere is not None
    assert everywhere.auroc < 1.0
