"""Stage I computes nothing that its loss does not read, and has the value and the gradient of the whole computation.

The whole computation is the autoencoder's own forward pass: all patches embedded, all predicted, errors times the mask.
"""

import copy
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from mlomae.masking import AdaptiveMasking, list_strategies
from mlomae.models.mae import patchify
from mlomae.models.vit import some_tokens, transformer
from mlomae.multilevel import hypergradient
from mlomae.pretraining.losses import feedback_tokens, level_problem, lower_terms
from mlomae.pretraining.optim import parameter_groups
from mlomae.pretraining.pretrainer import Pretrainer

CASES: dict[str, dict[str, Any]] = {
    **{name: {"type": name} for name in list_strategies()},
    "learned, tokens not detached": {"type": "learned", "detach_mask_input": False},
    "learned, normalised by weight": {"type": "learned", "normalize": "weight"},
    "amt, some thrown": {"type": "amt", "start": 0.0, "throw": 0.125},
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


def build(mask: dict[str, Any], dtype: torch.dtype) -> tuple[Pretrainer, dict[str, Tensor]]:
    model, data = tiny.trainer(tiny.config(mask={"ratio": 0.75, **mask}, model__decoder_depth=2))
    batch = data.batches[0]["lower"][0]
    with torch.no_grad():
        for p in model.parameters():  # biases, norms and scores away from their initial values
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    return model.to(dtype), {**batch, "image": batch["image"].to(dtype)}


def whole_loss(model: Pretrainer, batch: dict[str, Tensor]) -> Tensor:
    """L_I without what is added to it, from the formula on all patches."""
    tokens = model.mae.encoder.embed(batch["image"])
    mask = model.choose_mask(tokens, batch)
    rec, m = model.mae.patch_error(model.mae(tokens, mask), batch["image"]), mask.mask
    if model.mask.normalize == "weight":
        return ((m * mask.weight * rec).sum(dim=1) / (m * mask.weight).sum(dim=1)).mean()
    return (m * mask.weight * rec).sum() / m.sum()


def gradients(loss: Tensor, model: Pretrainer) -> dict[str, Tensor]:
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {n: g for n, g in zip(named, found, strict=True) if g is not None}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_that_of_the_whole_computation(case: str, dtype: torch.dtype) -> None:
    model, batch = build(CASES[case], dtype)
    model.set_progress(5)
    seen = model.reconstruct(batch)
    loss = lower_terms(model, batch).loss
    if isinstance(model.mask, AdaptiveMasking):
        loss = loss - model.mask.own_loss(seen)
    whole = whole_loss(model, batch)
    assert float(loss.detach()) == pytest.approx(float(whole.detach()), rel=TOLERANCE[dtype])
    if dtype == torch.float64:
        found, expected = gradients(loss, model), gradients(whole, model)
        for name in (
            expected.keys() | found.keys()
        ):  # what an adaptive strategy's own loss reaches cancels up to rounding
            g = found.get(name, torch.zeros(()))
            scale = float(expected[name].abs().max()) if name in expected else 1.0
            error = (g - expected.get(name, torch.zeros(()))).abs().max()
            assert float(error) <= 1e-11 * max(scale, 1e-3), name


@pytest.mark.parametrize("name", list_strategies())
def test_a_strategy_reads_no_more_of_the_tokens_than_it_says(name: str) -> None:
    """ "nothing": the mask of empty tokens is that of any; "values": nothing of θ is reached through the tokens."""
    model, batch = build({"type": name}, torch.float64)
    model.set_progress(5)
    sees = model.mask.sees
    tokens = model.mae.encoder.embed(batch["image"]).detach().requires_grad_()
    patches = patchify(batch["image"], model.mae.encoder.patch_size)
    given = model.tokens_to_see(patches, batch)
    own, other = model.choose_mask(given, batch), model.choose_mask(tokens, batch)
    assert torch.equal(own.mask, other.mask)
    torch.testing.assert_close(own.weight, other.weight, rtol=1e-12, atol=0)
    if sees == "nothing":
        assert given.shape == (8, 16, 0)
    else:
        torch.testing.assert_close(given, tokens.detach(), rtol=1e-12, atol=1e-12)
    if sees != "tokens":
        assert not given.requires_grad
        carried = [t for t in (other.weight, other.gate, other.choice) if t is not None and t.requires_grad]
        for t in carried:
            assert torch.autograd.grad(t.sum(), tokens, allow_unused=True, retain_graph=True) == (None,)


@pytest.mark.parametrize("part", [slice(0, 1), slice(-5, None), slice(None)], ids=["first", "last 5", "all"])
def test_some_tokens_of_a_block(part: slice) -> None:
    torch.manual_seed(0)
    blocks, _ = transformer(24, 1, 3, 4.0)
    block: nn.Module = blocks[0].double()
    x = torch.randn(2, 12, 24, dtype=torch.float64, requires_grad=True)
    found, expected = some_tokens(block, x, part), block(x)[:, part]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    inputs, c = [x, *block.parameters()], torch.randn(found.shape, dtype=torch.float64)
    for a, b in zip(torch.autograd.grad(found, inputs, c), torch.autograd.grad(expected, inputs, c), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("solver", ["one_step", "finite_difference", "unrolled"])
@pytest.mark.parametrize("kind", ["linear", "nca", "ridge"])
def test_feedback_on_the_class_token_is_that_on_all_tokens(kind: str, solver: str) -> None:
    """g_φ and the class scores, with a class token from ``class_token`` and one from among all tokens."""
    settings = tiny.config(feedback={"type": kind, "pooling": "cls"}, levels__solver=solver)
    model, data = tiny.trainer(settings)
    model = model.double()
    cast = lambda batch: {k: t.double() if t.is_floating_point() else t for k, t in batch.items()}  # noqa: E731
    batches = data.batches[0]
    head, upper, last = cast(batches["head"]), cast(batches["upper"]), model.freeze_mask(cast(batches["lower"][-1]))

    def found() -> list[Tensor]:
        given = {"lower_batch": last, "head_batch": head, "upper_batch": upper, "solver": solver}
        g_phi = hypergradient(level_problem(model), *model.level_parameters().values(), **given)
        scores = model.feedback.predict(feedback_tokens(model, upper), feedback_tokens(model, head), head)
        return [*g_phi.values(), scores]

    one = found()
    assert feedback_tokens(model, upper).shape[1] == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model.feedback), "sees_patches", True)
        assert feedback_tokens(model, upper).shape[1] > 1
        every = found()
    assert any(float(t.detach().abs().max()) > 1e-9 for t in one[:-1])
    for a, b in zip(one, every, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8 if solver == "finite_difference" else 1e-10, atol=1e-12)


def test_predictions_of_removed_patches_are_the_rows_of_all_predictions() -> None:
    model, batch = build({"type": "random"}, torch.float64)
    mae, tokens = model.mae, model.mae.encoder.embed(batch["image"])
    mask = model.choose_mask(tokens, batch)
    latents = mae.encode_kept(tokens, mask)
    every, found = mae.decoder(latents, mask.ids_restore), mae.decoder.predict_removed(latents, mask)
    for b, removed in enumerate(mask.mask.bool()):
        assert sorted(mask.ids_removed[b].tolist()) == removed.nonzero().flatten().tolist()
        torch.testing.assert_close(found[b], every[b, mask.ids_removed[b]], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mae.encode_patches(patchify(batch["image"], 4), mask), latents, rtol=1e-12, atol=1e-12)


def test_only_kept_patches_are_embedded_and_only_removed_ones_predicted() -> None:
    """By the shapes that the layers see: B = 8, L = 16, K = 4."""
    model, batch = build({"type": "random"}, torch.float32)
    seen: dict[str, tuple[int, ...]] = {}
    decoder = model.mae.decoder
    for name, layer in {"mlp": decoder.blocks[-1].mlp, "pred": decoder.pred, "first": decoder.blocks[0].mlp}.items():
        layer.register_forward_hook(lambda _, given, out, name=name: seen.update({name: given[0].shape[:2]}))
    model.mae.encoder.patch_embed.register_forward_hook(lambda *_: seen.update(embed=()))
    lower_terms(model, batch)
    assert seen == {"mlp": (8, 12), "pred": (8, 12), "first": (8, 17)}


def test_errors_of_kept_patches_are_there_for_who_asks() -> None:
    model, batch = build({"type": "random"}, torch.float64)
    seen = model.reconstruct(batch)
    assert seen.rec_BL.shape == (8, 16)
    torch.testing.assert_close(seen.mask.of_removed(seen.rec_BL), seen.rec_BR, rtol=1e-12, atol=0)
    assert seen.embedded_BLD is None
    torch.testing.assert_close(seen.tokens_BLD, model.mae.encoder.embed(batch["image"]))


def test_a_step_moves_every_parameter_along_the_gradient_of_the_whole_computation() -> None:
    """With an optimizer that is not fused, so that the layout of a gradient in memory does not matter to it."""
    model, batch = build({"type": "random"}, torch.float64)
    theta = model.level_parameters()["theta"]
    by_hand = copy.deepcopy(model)
    named = {n: p for n, p in by_hand.named_parameters() if n in theta}
    groups = parameter_groups(named, model.config.optim["theta"].weight_decay)
    settings = model.config.optim["theta"]
    settings.clip_grad = None
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, foreach=False, fused=False)
    found = gradients(whole_loss(by_hand, batch), by_hand)
    for name, p in named.items():
        p.grad = found[name].contiguous()
    before = {n: p.detach().clone() for n, p in theta.items()}
    tiny.step_of(model)({"lower": [batch]}, 0)
    optimizer.step()
    for name, p in theta.items():
        moved = float((named[name].detach() - before[name]).abs().max())
        assert moved > 1e-5, name
        torch.testing.assert_close(p, named[name], rtol=0, atol=1e-7 * moved, msg=name)
