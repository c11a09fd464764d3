"""Properties every masking strategy has, whatever it prefers; a newly registered strategy is covered by its name."""

from dataclasses import fields, replace
from fractions import Fraction
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import Mask, MaskingStrategy, MaskState, keep_count
from mlomae.masking.base import _STRATEGIES as registry
from mlomae.masking.base import register
from mlomae.models import MAE, ViT, mask_from_scores

D = 8
DETERMINED = {"attmask", "cl_mae"}  # the image decides: other keys hardly change its mask
BY_PLACE: set[str] = set()  # the place decides: the same patches are removed from most images; none of ours
every_strategy = pytest.mark.parametrize("name", masking.list_strategies())
every_varied = pytest.mark.parametrize("name", [name for name in masking.list_strategies() if name not in BY_PLACE])
VARIANTS = [
    ("amt", {"start": 0.0}),
    ("attmask", {"variant": "high"}),
    ("attmask", {"variant": "low", "prob": 0.5}),
    ("block", {"variant": "square"}),
    ("colormae", {"colour": "red"}),
    ("grid", {"corner": "shared"}),
    ("pixel_statistics", {"sampling": "topk", "statistic": "edges", "prefer": "low"}),
    ("self_guided", {"start": 0.0}),
    ("semmae", {"parts": 2}),
    ("simmim", {"cell": 1}),
]
every_variant = pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in masking.list_strategies()] + VARIANTS,
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
reproducible = settings(deadline=None, max_examples=40, derandomize=True)
ratios = st.integers(1, 999).map(lambda i: i / 1000)
sides = st.integers(2, 16)


def build(name: str, grid: tuple[int, int], **options: object) -> MaskingStrategy:
    torch.manual_seed(0)
    strategy = masking.create(name, embed_dim=D, grid=grid, **options)
    if attached(name):
        mae = autoencoder(grid[0])
        torch.manual_seed(1)  # what the strategy builds does not depend on whether the model was there
        strategy.attach(mae)
    return strategy.double()


@cache
def autoencoder(side: int) -> MAE:
    """For images of ``side`` by ``side`` patches of 4 pixels."""
    torch.manual_seed(0)
    encoder = ViT(4 * side, patch_size=4, embed_dim=D, depth=2, num_heads=2)
    return MAE(encoder, decoder_embed_dim=D, decoder_depth=1, decoder_num_heads=2)


def attached(name: str) -> bool:
    """Whether the strategy has parts of a model, whose images are square."""
    return registry.get(name).attach is not MaskingStrategy.attach


def supported(name: str, grid: tuple[int, int], ratio: float) -> tuple[tuple[int, int], float]:
    """The case itself, or a similar one that the strategy accepts: "grid" takes even sides and one ratio, a model
    square images."""
    gh, gw = grid
    if attached(name):
        return (gh, gh), ratio
    return ((gh - gh % 2, gw - gw % 2), 0.75) if name == "grid" else (grid, ratio)


def sample_keys(batch: int, epoch: int = 0, seed: int = 0) -> Tensor:
    return random_keys.fold(random_keys.fold(random_keys.root_key(seed), epoch), torch.arange(batch))


def inputs(batch: int, grid: tuple[int, int], epoch: int = 0, seed: int = 0) -> tuple[Tensor, Tensor, MaskState]:
    """Tokens, images of 4-pixel patches and a state with random object masks, half-way through a run."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, grid[0] * grid[1], D, dtype=torch.float64, generator=generator)
    pixels = (4 * grid[0], 4 * grid[1])
    images = torch.randn(batch, 3, *pixels, dtype=torch.float64, generator=generator)
    objects = torch.rand(batch, *grid, generator=generator) < 0.4
    objects = objects.repeat_interleave(4, 1).repeat_interleave(4, 2)
    return tokens, images, MaskState(sample_keys(batch, epoch, seed), object=objects, progress=0.5)


def take(state: MaskState, index: Tensor) -> MaskState:
    return replace(state, key=state.key[index], object=state.object[index])


def floor_kept(length: int, ratio: float) -> int:
    """⌊(1 - ratio) L⌋ in exact decimal arithmetic."""
    return int((1 - Fraction(str(ratio))) * length)


def assert_consistent(mask: Mask, kept: int) -> None:
    b, length = mask.mask.shape
    assert mask.ids_keep.shape == (b, kept)
    assert torch.equal(mask.mask.sum(dim=1).long(), torch.full((b,), length - kept))
    assert torch.equal(mask.mask, mask.mask.bool().to(mask.mask.dtype))  # zeros and ones only
    assert (torch.gather(mask.mask, 1, mask.ids_keep) == 0).all()
    assert all(len(set(row)) == kept for row in mask.ids_keep.tolist())
    order = torch.arange(length).expand(b, -1)
    assert torch.equal(mask.ids_restore.sort(dim=1).values, order)  # a permutation
    shuffled = torch.argsort(mask.ids_restore, dim=1)  # "kept first, then removed"
    assert torch.equal(shuffled[:, :kept], mask.ids_keep)
    assert torch.equal(torch.gather(shuffled, 1, mask.ids_restore), order)
    assert mask.weight.shape == mask.mask.shape
    assert (mask.weight > 0).all()


def assert_same(first: Mask, second: Mask) -> None:
    for name in ("ids_keep", "ids_restore", "mask"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    torch.testing.assert_close(first.weight, second.weight)


@every_variant
@given(gh=sides, gw=sides, ratio=ratios, batch=st.integers(1, 4), seed=st.integers(0, 2**31))
@reproducible
def test_exactly_the_floor_is_visible(
    name: str, options: dict[str, object], gh: int, gw: int, ratio: float, batch: int, seed: int
) -> None:
    grid, ratio = supported(name, (gh, gw), ratio)
    length = grid[0] * grid[1]
    kept, arguments = floor_kept(length, ratio), inputs(batch, grid, seed=seed)
    strategy = build(name, grid, **options)
    if kept == 0:
        with pytest.raises(ConfigError, match=f"keeps 0 of {length}"):
            strategy(*arguments[:2], ratio, 0, arguments[2])
    else:
        assert_consistent(strategy(*arguments[:2], ratio, 0, arguments[2]), kept)


@every_strategy
@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5, float("nan"), float("inf")])
def test_ratio_outside_the_open_interval_is_refused(name: str, ratio: float) -> None:
    tokens, images, state = inputs(2, (4, 4))
    with pytest.raises(ConfigError, match=r"^mask ratio .* is outside \(0, 1\).*$"):
        build(name, (4, 4))(tokens, images, ratio, 0, state)


@every_varied
def test_masks_differ_between_images(name: str) -> None:
    tokens, images, state = inputs(64, (8, 8))
    same = [x[:1].expand_as(x) for x in (tokens, images)]  # one image, other keys
    same = [tokens, images] if name in DETERMINED else same
    mask = build(name, (8, 8))(*same, 0.75, 0, replace(state, object=state.object[:1].expand(64, -1, -1))).mask
    assert mask.unique(dim=0).shape[0] == 64


@every_varied
def test_masks_differ_between_epochs(name: str) -> None:
    masks = []
    for epoch in range(8):
        tokens, images, state = inputs(16, (8, 8), epoch, seed=epoch if name in DETERMINED else 0)
        masks.append(build(name, (8, 8))(tokens, images, 0.75, epoch, state).mask)
    per_image = torch.stack(masks, dim=1)
    assert all(rows.unique(dim=0).shape[0] == 8 for rows in per_image)


@every_variant
def test_mask_depends_on_its_own_sample_only(name: str, options: dict[str, object]) -> None:
    """Hence not on the batch it is in, its place there, or the number of workers that made the batch."""
    strategy, (tokens, images, state) = build(name, (8, 8), **options), inputs(12, (8, 8))
    whole = strategy(tokens, images, 0.75, 0, state)
    for index in (torch.arange(11, -1, -1), torch.tensor([7]), torch.tensor([3, 9, 3])):
        torch.rand(5)  # the global generator has no part in it
        part = strategy(tokens[index], images[index], 0.75, 0, take(state, index))
        given = {f.name: getattr(whole, f.name) for f in fields(Mask)}
        assert_same(part, Mask(**{name: value if value is None else value[index] for name, value in given.items()}))


@every_strategy
def test_a_mask_is_a_function_of_its_arguments(name: str) -> None:
    """A second object gives the same one, and the global generator is neither read nor moved."""
    tokens, images, state = inputs(12, (8, 8))
    first = build(name, (8, 8))(tokens, images, 0.75, 0, state)
    second = build(name, (8, 8))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert_same(second(tokens, images, 0.75, 0, state), first)
    assert torch.equal(torch.get_rng_state(), before)


@every_strategy
def test_the_ratio_that_it_draws_for_a_batch_is_one_that_it_can_remove(name: str) -> None:
    strategy = build(name, (8, 8))
    strategy.check_ratio(64, 0.75)
    for number in range(50):
        keep_count(64, strategy.batch_ratio(0.75, random_keys.root_key(0, number)))


@every_varied
def test_every_patch_is_removed_for_some_key(name: str) -> None:
    tokens, images, state = inputs(400, (4, 4))
    frequency = build(name, (4, 4))(tokens, images, 0.75, 0, state).mask.mean(dim=0)
    assert ((frequency > 0.5) & (frequency < 0.95)).all()


@every_strategy
def test_fixed_keeps_the_set_under_other_keys_and_tokens(name: str) -> None:
    strategy, (tokens, images, state) = build(name, (8, 8)), inputs(4, (8, 8))
    first = strategy(tokens, images, 0.75, 0, state)
    other = MaskState(sample_keys(4, epoch=1), state.object, fixed=first)
    second = strategy(tokens + torch.randn_like(tokens), images, 0.75, 0, other)
    for part in ("ids_keep", "ids_restore", "mask"):
        assert torch.equal(getattr(second, part), getattr(first, part))


@every_strategy
def test_fixed_recomputes_the_weight(name: str) -> None:
    """The set of any strategy, the weight of this one."""
    strategy, (tokens, images, state) = build(name, (8, 8)), inputs(4, (8, 8))
    own = strategy(tokens, images, 0.75, 0, state)
    foreign = mask_from_scores(torch.rand(4, 64), 0.5, torch.full((4, 64), 123.0))
    given_set = strategy(tokens, images, 0.75, 0, replace(state, fixed=foreign))
    assert torch.equal(given_set.mask, foreign.mask)
    assert torch.equal(given_set.weight, own.weight)


@every_strategy
def test_the_set_carries_no_gradient(name: str) -> None:
    tokens, images, state = inputs(2, (4, 4))
    mask = build(name, (4, 4))(tokens.requires_grad_(), images, 0.75, 0, state)
    assert not mask.mask.requires_grad


@every_strategy
def test_float32_tokens_give_float32_masks(name: str) -> None:
    tokens, images, state = inputs(2, (4, 4))
    mask = build(name, (4, 4)).float()(tokens.float(), images.float(), 0.75, 0, state)
    assert mask.mask.dtype == mask.weight.dtype == torch.float32


@every_strategy
def test_scores_are_one_number_per_patch_or_none(name: str) -> None:
    tokens, _, state = inputs(2, (4, 4))
    scores = build(name, (4, 4)).scores(tokens, state)
    assert scores is None or scores.shape == (2, 16)


@every_strategy
def test_normalize_and_trainable_agree_with_the_module(name: str) -> None:
    strategy = build(name, (4, 4))
    assert strategy.normalize in ("mask", "weight")
    assert not strategy.trainable or any(p.requires_grad for p in strategy.parameters())


@every_strategy
def test_unknown_option_is_a_one_line_error_listing_the_options(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' has no option 'wrong'; it has .+") as error:
        masking.create(name, embed_dim=D, grid=(4, 4), wrong=1)
    assert "\n" not in str(error.value)


def test_unknown_strategy_is_a_one_line_error_listing_all() -> None:
    with pytest.raises(ConfigError, match="unknown masking strategy 'wrong'") as error:
        masking.create("wrong", embed_dim=D, grid=(4, 4))
    assert "\n" not in str(error.value)
    assert all(name in str(error.value) for name in masking.list_strategies())


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        register("random")(MaskingStrategy)


def test_random_masking_removes_patches_evenly_and_weighs_them_alike() -> None:
    tokens, images, state = inputs(4_000, (4, 4))
    mask = build("random", (4, 4))(tokens, images, 0.75, 0, state)
    torch.testing.assert_close(mask.mask.mean(0), torch.full((16,), 0.75), atol=0.03, rtol=0)
    assert torch.equal(mask.weight, torch.ones(4_000, 16))


def test_random_pairs_of_patches_are_removed_together_as_often_as_chance_says() -> None:
    tokens, images, state = inputs(8_000, (4, 4))
    mask = build("random", (4, 4))(tokens, images, 0.75, 0, state).mask
    together = (mask.T @ mask / 8_000)[~torch.eye(16, dtype=torch.bool)]
    torch.testing.assert_close(together, torch.full((240,), 12 * 11 / (16 * 15)), atol=0.03, rtol=0)


@pytest.mark.parametrize("salt", [0, 1])
def test_mask_noise_is_not_the_augmentation_noise(salt: int) -> None:
    key = sample_keys(50)
    noise = MaskState(key).uniform(20, salt)
    assert not any((noise == random_keys.uniform(key, 20, s)).any() for s in range(100))
