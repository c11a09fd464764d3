"""Weights by position: the middle of every image, whatever it shows; and scores by position that are learned."""

import pytest
import torch

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import MaskState
from mlomae.masking.sampling import central_patches

GRID = (4, 6)


def state(batch: int) -> MaskState:
    return MaskState(random_keys.fold(random_keys.root_key(0, "position"), torch.arange(batch)))


@pytest.mark.parametrize(
    ("area", "middle"),
    [
        (0.25, ["....", ".##.", ".##.", "...."]),
        (0.5, [".##.", "####", "####", ".##."]),  # it covers 0.41 of a patch at a side, 0.17 of one in a corner
        (0.6, ["####", "####", "####", "####"]),  # 0.55 and 0.30
    ],
)
def test_the_middle_is_what_the_box_covers_by_a_quarter_of_a_patch(area: float, middle: list[str]) -> None:
    assert central_patches((4, 4), area).tolist() == [patch == "#" for row in middle for patch in row]


def test_masks_are_those_of_random_masking_and_weights_the_same_for_all_images() -> None:
    strategies = [masking.create(name, embed_dim=8, grid=GRID) for name in ("position", "random")]
    images = torch.rand(5, 3, 16, 24)
    ours, plain = (strategy(torch.zeros(5, 24, 0), images, 0.75, 0, state(5)) for strategy in strategies)
    assert torch.equal(ours.mask, plain.mask)
    assert torch.equal(ours.weight, (1 + 4 * central_patches(GRID, 0.5)).expand(5, -1))
    assert ours.weight.unique().tolist() == [1.0, 5.0]


@pytest.mark.parametrize("options", [{"area": 0.0}, {"area": 1.1}, {"weight": 0.0}])
def test_meaningless_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        masking.create("position", embed_dim=8, grid=GRID, **options)


def test_learned_scores_by_position_do_not_see_the_image() -> None:
    torch.manual_seed(0)
    strategy = masking.create("learned", embed_dim=8, grid=GRID, arch="position", sampling="random")
    weight = strategy(torch.randn(3, 24, 8), torch.zeros(3, 3, 16, 24), 0.5, 0, state(3)).weight
    assert torch.equal(weight, weight[:1].expand(3, -1))
    weight[:, 5].sum().backward()
    (gradient,) = (p.grad for p in strategy.parameters())
    assert gradient is not None
    assert gradient.argmax() == 5
