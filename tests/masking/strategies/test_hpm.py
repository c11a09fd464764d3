"""HPM: the share of hard patches follows its schedule, and the ranking loss teaches the order of the errors.

Shape legend: B images, L patches, R removed patches.
"""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import MaskState, Reconstruction, keep_count
from mlomae.masking.strategies.hpm import HPMMasking, ranking_loss
from mlomae.models import MAE, ViT


def build(**options: float) -> tuple[HPMMasking, MAE]:
    torch.manual_seed(0)
    mae = MAE(ViT(32, 4, 16, depth=2, num_heads=2), 8, 2, 2)
    strategy = masking.create("hpm", embed_dim=16, grid=(8, 8), **options)
    assert isinstance(strategy, HPMMasking)
    strategy.attach(mae)
    return strategy, mae


def state(batch: int, progress: float) -> MaskState:
    return MaskState(random_keys.fold(random_keys.root_key(0, "hpm"), torch.arange(batch)), progress=progress)


def images(batch: int) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


# --- the masks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.4, 0.75])
@pytest.mark.parametrize(("hard", "progress"), [(0.5, 0.0), (0.5, 0.02), (0.5, 0.6), (0.5, 0.999), (1.0, 0.5)])
def test_the_share_of_hard_patches_follows_its_schedule(
    monkeypatch: pytest.MonkeyPatch, hard: float, progress: float, ratio: float
) -> None:
    """With a planted prediction the top ⌊hard · progress · R⌋ always go; any other patch goes as often as chance."""
    strategy, _ = build(hard=hard)
    prediction = torch.randperm(64, generator=torch.Generator().manual_seed(2)).float()
    monkeypatch.setattr(strategy, "predict", lambda images: prediction.expand(len(images), -1))
    mask = strategy(torch.zeros(2_000, 64, 16), torch.zeros(2_000), ratio, 0, state(2_000, progress)).mask
    removed = 64 - keep_count(64, ratio)
    hardest = math.floor(hard * progress * removed)
    always = mask.mean(dim=0) == 1
    assert set(prediction[always].int().tolist()) == set(range(64 - hardest, 64))
    chance = torch.full((64 - hardest,), (removed - hardest) / (64 - hardest))
    torch.testing.assert_close(mask.mean(dim=0)[~always], chance, atol=0.06, rtol=0)


def test_without_a_share_masks_are_random_and_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, _ = build()
    monkeypatch.setattr(strategy, "predict", None)
    given = torch.zeros(50, 64, 16), torch.zeros(50), 0.75, 0, state(50, 0.01)
    assert torch.equal(strategy(*given).mask, masking.create("random", embed_dim=16, grid=(8, 8))(*given).mask)


def test_the_copies_see_the_whole_image_and_carry_no_gradient() -> None:
    strategy, mae = build()
    whole = images(4).requires_grad_()
    predicted = strategy.predict(whole)
    assert predicted.shape == (4, 64)
    assert not predicted.requires_grad
    for row in (0, 31):
        changed = whole.detach().clone()
        changed[:, :, row, row] += 1
        assert (strategy.predict(changed) != predicted).all()
    with torch.no_grad():
        mae.encoder.norm.weight.mul_(2)
    assert torch.equal(strategy.predict(whole), predicted), "it must not read the model being trained"


# --- the ranking loss -----------------------------------------------------------------------------------------------


def pairs_one_by_one(predicted_BR: Tensor, true_BR: Tensor) -> float:
    terms = []
    for predicted, true in zip(predicted_BR.tolist(), true_BR.tolist(), strict=True):
        for i in range(len(true)):
            for j in range(len(true)):
                if i != j:
                    probability = 1 / (1 + math.exp(predicted[j] - predicted[i]))
                    first, second = true[i] > true[j], true[i] < true[j]
                    terms.append(-first * math.log(probability) - second * math.log(1 - probability))
    return sum(terms) / len(terms)


def test_the_ranking_loss_is_the_double_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, true = torch.randn(2, 3, 12, dtype=torch.float64, generator=generator)
    true[0, :4] = 0.5  # ties
    assert float(ranking_loss(predicted, true)) == pytest.approx(pairs_one_by_one(predicted, true), rel=1e-12)
    assert float(ranking_loss(predicted[:, :1], true[:, :1])) == 0.0
    assert float(ranking_loss(1e4 * predicted, true)) < math.inf


def test_gradient_of_the_ranking_loss() -> None:
    predicted, true = torch.randn(2, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: ranking_loss(x, true), predicted.requires_grad_())
    assert not ranking_loss(predicted.detach(), true.requires_grad_()).requires_grad


def test_the_right_order_lowers_it_and_the_wrong_one_raises_it() -> None:
    true = torch.rand(5, 20, generator=torch.Generator().manual_seed(0))
    right, none, wrong = (float(ranking_loss(s * 50 * true, true)) for s in (1.0, 0.0, -1.0))
    assert right < 0.5 < none < 1 < wrong
    assert none == pytest.approx(math.log(2))


def test_only_removed_patches_are_compared() -> None:
    strategy, _ = build()
    mask = strategy(torch.zeros(4, 64, 16), images(4), 0.75, 0, state(4, 0.5))
    values = torch.rand(4, 64)
    for row, found, removed in zip(values, mask.of_removed(values), mask.mask, strict=True):
        assert sorted(found.tolist()) == sorted(row[removed == 1].tolist())


def seen(strategy: HPMMasking, mae: MAE, progress: float = 0.5) -> Reconstruction:
    batch, now = images(8), state(8, progress)
    tokens = mae.encoder.embed(batch)
    mask = strategy(tokens, batch, 0.75, 0, now)
    latents = mae.encode_kept(tokens, mask)
    rec = mask.of_removed(mae.patch_error(mae.decoder(latents, mask.ids_restore), batch))
    return Reconstruction(mae, batch, tokens, mask, latents, rec, now)


def test_the_loss_moves_predictor_and_encoder_but_not_the_decoder() -> None:
    strategy, mae = build(weight=2.0)
    given = seen(strategy, mae)
    loss = strategy.own_loss(given)
    predicted = strategy.predictor(given.latents_BKD, given.mask.ids_restore).squeeze(-1).detach()
    plain = ranking_loss(given.mask.of_removed(predicted), given.mask.of_removed(given.rec_BL))
    assert float(loss.detach()) == pytest.approx(2 * float(plain))
    loss.backward()
    assert all(p.grad is not None for p in strategy.predictor.parameters() if p.requires_grad)
    assert float(mae.encoder.blocks[0].mlp.fc1.weight.grad.abs().sum()) > 0
    assert all(p.grad is None for p in mae.decoder.parameters()), "the true error is a constant"
    assert all(p.grad is None for p in strategy.copies.parameters())


def test_the_predictor_learns_the_order_of_the_errors() -> None:
    """The error is a function of the position, which it can see: after some steps the order is mostly found."""
    strategy, mae = build()
    with torch.no_grad():
        given = seen(strategy, mae)
        fixed = replace(given, rec_BR=given.mask.of_removed(torch.arange(64).sin().expand(8, -1)))
    optimizer = torch.optim.Adam([p for p in strategy.predictor.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(60):
        loss = strategy.own_loss(fixed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.65 * losses[0]


# --- the copies -----------------------------------------------------------------------------------------------------


def test_the_copies_follow_with_the_decay_of_the_schedule() -> None:
    strategy, mae = build(decay=0.5, decay_end=0.9, rise=0.2)
    before = copy.deepcopy(strategy.copies.state_dict())
    with torch.no_grad():
        for p in [*mae.encoder.parameters(), *strategy.predictor.parameters()]:
            p.add_(1.0)
        for progress, decay in ((0.0, 0.5), (0.1, 0.7), (0.2, 0.9), (0.9, 0.9)):
            expected = {
                name: decay * before[name] + (1 - decay) * current
                for prefix, module in (("encoder.", mae.encoder), ("predictor.", strategy.predictor))
                for name, current in ((prefix + key, value) for key, value in module.state_dict().items())
            }
            strategy.follow(mae, progress)
            before = copy.deepcopy(strategy.copies.state_dict())
            assert before.keys() == expected.keys()
            for name, value in before.items():
                torch.testing.assert_close(value, expected[name])


def test_the_copies_are_part_of_a_checkpoint_but_not_of_what_is_trained() -> None:
    strategy, _ = build()
    names = set(strategy.state_dict())
    assert {"copies.encoder.cls_token", "copies.predictor.pred.weight", "predictor.pred.weight"} <= names
    assert not any(p.requires_grad for p in strategy.copies.parameters())
    assert strategy.predictor.pred.out_features == 1


@pytest.mark.parametrize(
    "options",
    [{"hard": -0.1}, {"hard": 1.1}, {"weight": -1.0}, {"weight": math.nan}, {"decay": 0.99999}, {"rise": 0.0}],
    ids=str,
)
def test_values_out_of_range_are_a_one_line_error(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"of masking strategy 'hpm' must be (at least|inside|a number)") as error:
        build(**options)
    assert "\n" not in str(error.value)
