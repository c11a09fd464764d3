"""SemMAE: parts' budgets against a plain oracle, the cut to the exact number, and planted clusters."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import MaskState
from mlomae.masking.strategies.semmae import SemMAEMasking, budgets, cluster
from mlomae.models import keep_count, mask_from_scores

part_maps = st.lists(st.integers(0, 5), min_size=4, max_size=40)


def state(count: int, progress: float = 0.0, seed: int = 0) -> MaskState:
    return MaskState(random_keys.fold(random_keys.root_key(seed), torch.arange(count)), progress=progress)


def strategy(parts: int = 6) -> SemMAEMasking:
    found = masking.create("semmae", embed_dim=8, grid=(8, 8), parts=parts)
    assert isinstance(found, SemMAEMasking)
    return found


def oracle(parts: list[int], count: int, order: list[int], removed: int, ratio: float, progress: float) -> list[int]:
    """The budget of every part, one patch at a time where whole parts are removed."""
    sizes = [parts.count(p) for p in range(count)]
    whole, left = [0] * count, removed
    for p in order:
        for _ in range(sizes[p]):
            if left:
                whole[p], left = whole[p] + 1, left - 1
    share = 1 - progress**2
    return [round(share * round(ratio * n) + (1 - share) * w) for n, w in zip(sizes, whole, strict=True)]


@given(
    parts=part_maps,
    progress=st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.9999]),
    ratio=st.sampled_from([0.5, 0.6, 0.75]),
    seed=st.integers(0, 2**20),
)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_budgets_of_given_parts(parts: list[int], progress: float, ratio: float, seed: int) -> None:
    removed = len(parts) - keep_count(len(parts), ratio)
    order = random.Random(seed).sample(range(6), 6)
    lots = torch.empty(1, 6).scatter(1, torch.tensor([order]), torch.arange(6.0)[None])
    expected = oracle(parts, 6, order, removed, ratio, progress)
    sizes = torch.tensor([[parts.count(p) for p in range(6)]])
    assert budgets(sizes, lots, removed, ratio, progress)[0].tolist() == expected

    # and the mask takes them: all of these, then others, or not all of these if there are too many
    given_state = state(1, progress, seed)
    mask = mask_from_scores(strategy().ranking_of(torch.tensor([parts]), ratio, given_state), ratio).mask[0]
    lots_own = given_state.uniform(6, 2)
    expected = oracle(parts, 6, lots_own[0].argsort().tolist(), removed, ratio, progress)
    taken = [sum(int(m) for m, q in zip(mask.tolist(), parts, strict=True) if q == p) for p in range(6)]
    assert sum(taken) == removed
    if sum(expected) >= removed:
        assert all(t <= e for t, e in zip(taken, expected, strict=True))
    if sum(expected) <= removed:
        assert all(t >= e for t, e in zip(taken, expected, strict=True))


def quarters(count: int) -> Tensor:
    """Four parts of 16 patches."""
    return torch.arange(64).div(16, rounding_mode="floor").expand(count, -1)


def removed_by_part(progress: float, count: int = 400) -> Tensor:
    ranking = strategy(4).ranking_of(quarters(count), 0.75, state(count, progress))
    return mask_from_scores(ranking, 0.75).mask.unflatten(1, (4, 16)).sum(dim=2)


def test_every_part_loses_its_share_at_first_and_all_or_nothing_at_last() -> None:
    assert (removed_by_part(0.0) == 12).all()
    late = removed_by_part(0.999)
    assert ((late == 0) | (late == 16)).all()
    torch.testing.assert_close((late == 0).float().mean(0), torch.full((4,), 0.25), atol=0.07, rtol=0)
    middle = removed_by_part(0.5**0.5)  # half and half: 6 + 8 of three parts and 6 of the spared one
    assert (middle.sort(dim=1).values == torch.tensor([6, 14, 14, 14])).all()


def test_patches_of_a_part_go_evenly() -> None:
    ranking = strategy(4).ranking_of(quarters(3_000), 0.75, state(3_000))
    shares = mask_from_scores(ranking, 0.75).mask.mean(0)
    torch.testing.assert_close(shares, torch.full((64,), 0.75), atol=0.04, rtol=0)


def noise(count: int, parts: int, length: int) -> Tensor:
    return state(count).uniform(parts * length).unflatten(1, (parts, length))


def test_planted_groups_are_the_parts() -> None:
    """Three directions with noise, in shuffled places, for nearly every draw of the first centres."""
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(48)[torch.randperm(48, generator=generator)] % 3
    features = torch.eye(16)[group] * torch.rand(48, 1, generator=generator).add(0.5)
    features = (features + 0.1 * torch.randn(48, 16, generator=generator)).expand(50, -1, -1)
    found = cluster(features, noise(50, 3, 48))
    together, expected = found[:, :, None] == found[:, None], group[:, None] == group
    assert (together == expected).all(dim=(1, 2)).float().mean() > 0.9


def test_clustering_is_a_local_optimum_or_close_to_it() -> None:
    """Every patch is nearest to the mean of its own part, for nearly all patches after a few rounds."""
    features = torch.randn(20, 30, 5, generator=torch.Generator().manual_seed(0))
    found, x = cluster(features, noise(20, 4, 30)), torch.nn.functional.normalize(features, dim=2)
    agreed = 0
    for image in range(20):
        centres = torch.stack([x[image][found[image] == p].sum(0) for p in range(4)])
        centres = torch.nn.functional.normalize(centres, dim=1)
        agreed += int(((x[image] @ centres.T).argmax(1) == found[image]).sum())
    assert agreed > 0.9 * 600


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_features_are_one_part_and_the_mask_is_random(value: float) -> None:
    parts = cluster(torch.full((500, 16, 8), value), noise(500, 6, 16))
    assert (parts == 0).all()
    for progress in (0.0, 0.999):
        mask = mask_from_scores(strategy().ranking_of(parts, 0.75, state(500, progress)), 0.75).mask
        torch.testing.assert_close(mask.mean(0), torch.full((16,), 0.75), atol=0.08, rtol=0)


@pytest.mark.parametrize("parts", [0, -1])
def test_a_number_of_parts_below_one_is_refused(parts: int) -> None:
    with pytest.raises(ConfigError, match=f"must be at least 1; got {parts}"):
        strategy(parts)
