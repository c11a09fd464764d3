"""AMT: weights by hand, draws against the exact law, when snapshots are taken, and thrown patches."""

from collections import Counter
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import Mask, MaskState
from mlomae.masking.strategies.amt import attention_weight
from mlomae.models import MAE, ViT


def autoencoder(side: int = 2) -> MAE:
    torch.manual_seed(0)
    return MAE(ViT(4 * side, 4, 8, 1, 2), decoder_embed_dim=8, decoder_depth=1, decoder_num_heads=2)


def attached(mae: MAE, **options: Any) -> Any:
    strategy = masking.create("amt", embed_dim=8, grid=mae.encoder.grid, **options)
    strategy.attach(mae)
    return strategy


def choose(strategy: Any, attention_HL: Tensor, count: int, ratio: float, progress: float = 0.5) -> Mask:
    """Masks of ``count`` keys for one image with this attention."""
    strategy.teacher.attention = lambda images: attention_HL.expand(count, -1, -1)
    state = MaskState(random_keys.fold(random_keys.root_key(0), torch.arange(count)), progress=progress)
    return strategy(torch.empty(count, 0), torch.empty(count, 0), ratio, 0, state)


def test_the_weight_by_hand() -> None:
    attention = torch.tensor([[[0.1, 0.2, 0.5], [0.3, 0.1, 0.2], [0.2, 0.2, 0.2]]])
    torch.testing.assert_close(attention_weight(attention), torch.tensor([[1.0, 0.25, 1.5]]) / 3)


def test_even_attention_is_random_masking() -> None:
    masks = choose(attached(autoencoder(4)), torch.full((2, 16), 0.05), 3_000, 0.75).mask
    torch.testing.assert_close(masks.mean(0), torch.full((16,), 0.75), atol=0.04, rtol=0)


def test_removed_and_thrown_patches_follow_the_law_of_drawing_without_replacement() -> None:
    """Every (set of two removed, thrown one) of four patches has the probability that orders of drawing add up to."""
    attention = torch.tensor([[0.1, 0.2, 0.3, 0.35], [0.4, 0.1, 0.2, 0.15]])
    weight = attention_weight(attention[None])[0].double()
    law: Counter[tuple[frozenset[int], int]] = Counter()
    for order in permutations(range(4)):
        p, left = 1.0, float(weight.sum())
        for i in order:
            p, left = p * float(weight[i]) / left if left > 0 else p, left - float(weight[i])
        law[frozenset(order[:2]), order[2]] += p
    assert sum(law.values()) == pytest.approx(1)
    count = 40_000
    mask = choose(attached(autoencoder(), throw=0.25), attention, count, 0.5)
    assert mask.ids_keep.shape == (count, 1)
    seen: Counter[tuple[frozenset[int], int]] = Counter()
    for row, kept in zip(mask.mask.tolist(), mask.ids_keep.tolist(), strict=True):
        removed = frozenset(i for i in range(4) if row[i])
        (thrown,) = set(range(4)) - removed - set(kept)
        seen[removed, thrown] += 1
    for case, p in law.items():
        assert seen[case] / count == pytest.approx(p, abs=0.01)


def test_a_patch_without_attention_goes_last() -> None:
    attention = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    assert (choose(attached(autoencoder()), attention, 2_000, 0.75).mask[:, 0] == 0).all()


def test_masks_are_random_until_the_start_and_nothing_is_thrown() -> None:
    strategy, attention = attached(autoencoder(4), throw=0.125), torch.linspace(0.01, 0.1, 16)[None]
    before = choose(strategy, attention, 3_000, 0.75, progress=0.0999)
    torch.testing.assert_close(before.mask.mean(0), torch.full((16,), 0.75), atol=0.04, rtol=0)
    assert before.ids_keep.shape[1] == 4
    after = choose(strategy, attention, 3_000, 0.75, progress=0.1)
    assert after.mask.mean(0)[-1] > 0.85 > 0.1 > after.mask.mean(0)[0]
    assert after.ids_keep.shape[1] == 2
    assert (after.mask.sum(1) == 12).all()


def test_snapshots_are_those_of_the_start_and_of_every_tenth_after_it() -> None:
    mae = autoencoder()
    strategy, used = attached(mae, start=0.25, every=0.1), []
    for t in range(100):
        used.append(float(strategy.teacher.model.norm.bias[0]))
        with torch.no_grad():
            mae.encoder.norm.bias.fill_(t + 1)  # the encoder after iteration t
        strategy.follow(mae, t / 100)
    assert used[:26] == list(range(26)), "random masks do not use it; at the start it is the encoder"
    due = [25] * 10 + [36] * 10 + [46] * 10 + [56] * 10 + [66] * 10 + [76] * 10 + [86] * 10 + [96] * 4
    assert used[26:] == due


def test_thrown_patches_are_neither_encoded_nor_scored() -> None:
    """Other pixels there change neither latents nor the loss; the decoder predicts there all the same."""
    mae = autoencoder(4)
    strategy, images = attached(mae, throw=0.125), torch.randn(6, 3, 16, 16)
    mask = choose(strategy, torch.rand(2, 16), 6, 0.75)
    tokens = mae.encoder.embed(images).detach()
    thrown = (mask.mask == 0).scatter(1, mask.ids_keep, False)
    assert (thrown.sum(1) == 2).all()
    other = torch.where(thrown.unsqueeze(-1), torch.randn_like(tokens), tokens)
    prediction = mae(tokens, mask)
    assert prediction.shape[:2] == (6, 16)
    assert torch.equal(prediction, mae(other, mask))
    hidden = torch.where(mask.mask.bool().unsqueeze(-1), torch.randn_like(tokens), tokens)
    assert torch.equal(prediction, mae(hidden, mask))
    seen = torch.where((mask.mask.bool() | thrown).unsqueeze(-1), tokens, torch.randn_like(tokens))
    assert not torch.allclose(prediction, mae(seen, mask))


@pytest.mark.parametrize("options", [{"start": -0.1}, {"every": 0.0}, {"throw": 1.0}, {"start": float("nan")}])
def test_values_out_of_range_are_refused_in_one_line(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(options.values())))) as error:
        masking.create("amt", embed_dim=8, grid=(4, 4), **options)
    assert "\n" not in str(error.value)


def test_a_share_that_leaves_nothing_visible_is_refused_before_training() -> None:
    strategy = masking.create("amt", embed_dim=8, grid=(4, 4), throw=0.25)
    strategy.check_ratio(16, 0.65)
    with pytest.raises(ConfigError, match=r"of 16 patches ratio 0.75 leaves 4 and throw=0.25 takes 4"):
        strategy.check_ratio(16, 0.75)
