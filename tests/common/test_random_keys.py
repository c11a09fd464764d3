"""Counter-based random numbers: the statistics of the draws, and their bits."""

import numpy as np
import pytest
import torch
from scipy import stats

from mlomae.common import random_keys

MASK_64 = (1 << 64) - 1


def splitmix_reference(key: int, value: int) -> int:
    """`random_keys.fold` on Python integers, from the published finaliser."""

    def mix(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK_64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK_64
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    return mix((mix((key + golden) & MASK_64) + value * golden) & MASK_64)


def keys(n: int) -> torch.Tensor:
    return random_keys.fold(random_keys.root_key(0, "test"), torch.arange(n))


def assert_independent(x: torch.Tensor, y: torch.Tensor) -> None:
    """No linear correlation, and a flat joint histogram on 16 x 16 cells."""
    x, y = x.flatten().double().numpy(), y.flatten().double().numpy()
    assert abs(np.corrcoef(x, y)[0, 1]) < 4 / np.sqrt(len(x))
    cells = np.histogram2d(x, y, bins=16, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(cells.ravel()).pvalue > 1e-4


@pytest.mark.parametrize("shape", [(200_000, 1), (1, 200_000), (2_000, 100)])
def test_draws_are_uniform(shape: tuple[int, int]) -> None:
    draws = random_keys.uniform(keys(shape[0]), shape[1]).flatten().numpy()
    assert stats.kstest(draws, "uniform").pvalue > 1e-3


def test_raw_consecutive_keys_are_as_uniform_as_hashed_ones() -> None:
    draws = random_keys.uniform(torch.arange(200_000), 1).flatten().numpy()
    assert stats.kstest(draws, "uniform").pvalue > 1e-3


def test_neighbouring_keys_are_independent() -> None:
    draws = random_keys.uniform(torch.arange(2_001), 50)
    assert_independent(draws[:-1], draws[1:])


def test_neighbouring_draws_are_independent() -> None:
    draws = random_keys.uniform(torch.arange(2_000), 51)
    assert_independent(draws[:, :-1], draws[:, 1:])


@pytest.mark.parametrize("salts", [(0, 1), (1, 2), (100, 200)])
def test_salts_are_independent(salts: tuple[int, int]) -> None:
    first, second = (random_keys.uniform(keys(2_000), 50, salt) for salt in salts)
    assert_independent(first, second)


def test_shifted_salt_and_draw_do_not_coincide() -> None:
    first, second = random_keys.uniform(keys(2_000), 51, salt=0), random_keys.uniform(keys(2_000), 51, salt=1)
    assert_independent(first[:, 1:], second[:, :-1])


def test_one_bit_of_the_value_flips_half_of_the_key() -> None:
    values = torch.arange(20_000)
    difference = random_keys.fold(7, values) ^ random_keys.fold(7, values ^ 1)
    flipped = sum(((difference >> bit) & 1).double() for bit in range(64))
    assert abs(flipped.mean() - 32) < 0.2
    assert abs(flipped.std() - 4) < 0.1


def test_no_two_of_many_keys_collide() -> None:
    keys = random_keys.fold(random_keys.fold(3, torch.arange(300)).unsqueeze(1), torch.arange(1_000))
    assert keys.unique().numel() == 300_000


def test_fold_depends_on_the_order_of_its_values() -> None:
    assert random_keys.fold(random_keys.fold(0, 1), 2) != random_keys.fold(random_keys.fold(0, 2), 1)


def test_repeated_calls_agree_whatever_was_drawn_between() -> None:
    first = random_keys.uniform(keys(5), 7, salt=3)
    random_keys.uniform(keys(50), 70)
    torch.rand(3)
    assert torch.equal(first, random_keys.uniform(keys(5), 7, salt=3))


def test_draws_depend_on_their_own_key_only() -> None:
    batch = random_keys.uniform(keys(6), 9)
    order = torch.tensor([4, 0, 5])
    assert torch.equal(random_keys.uniform(keys(6)[order], 9), batch[order])
    assert torch.equal(random_keys.uniform(keys(6), 4), batch[:, :4])


@pytest.mark.parametrize("bits", [0, MASK_64], ids=["all zeros", "all ones"])
def test_extreme_bits_stay_inside_the_open_interval(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    word = torch.tensor(bits if bits < 1 << 63 else bits - (1 << 64))
    monkeypatch.setattr(random_keys, "fold", lambda keys, values: (torch.as_tensor(keys) * 0 + values * 0) * 0 + word)
    draw = random_keys.uniform(torch.zeros(1, dtype=torch.int64), 1)
    assert draw.dtype == torch.float32
    assert 0 < draw < 1


def test_key_shape_is_kept() -> None:
    assert random_keys.uniform(torch.arange(6).view(2, 3), 5).shape == (2, 3, 5)


@pytest.mark.parametrize("n", [1, 2, 10, 1_000])
def test_permutation_holds_every_index_once(n: int) -> None:
    order = random_keys.permutation(random_keys.root_key(1), n)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(n))


def test_permutations_are_uniform() -> None:
    orders = [tuple(random_keys.permutation(random_keys.root_key(i), 3).tolist()) for i in range(3_000)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("key", [0, 1, 2**40 + 17, 2**63 - 1])
@pytest.mark.parametrize("value", [0, 1, 12_345, 2**62])
def test_fold_is_splitmix64(key: int, value: int) -> None:
    assert int(random_keys.fold(key, value)) & MASK_64 == splitmix_reference(key, value)


@pytest.mark.parametrize("salt", [0, 100])
def test_uniform_is_the_top_23_bits_of_its_word(salt: int) -> None:
    words = [splitmix_reference(splitmix_reference(9, salt), draw) for draw in range(8)]
    expected = [((word >> 41) + 0.5) / 2**23 for word in words]
    assert random_keys.uniform(torch.tensor(9), 8, salt).tolist() == expected


def test_known_answers() -> None:
    """Frozen: if these change, every recorded run changes with them."""
    root = random_keys.root_key(0, "lower")
    assert root == 3708782689978754629
    assert random_keys.fold(root, torch.arange(3)).tolist() == [
        -2583903478428655002,
        -2310809693534548553,
        6318093404351700178,
    ]
    draws = random_keys.uniform(torch.arange(2), 3)
    assert (draws * 2**24).long().tolist() == [[15536151, 6141429, 4430125], [13268129, 6560677, 12745439]]
    assert random_keys.permutation(5, 10).tolist() == [9, 0, 8, 4, 7, 3, 1, 6, 2, 5]


def test_root_key_is_63_bits_and_tells_its_parts_apart() -> None:
    parts = [(0,), (1,), ("0",), (0, "a"), ("a", 0), (0, "b"), ("ab",), ("a", "b"), ()]
    roots = [random_keys.root_key(*p) for p in parts]
    assert len(set(roots)) == len(parts)
    assert all(0 <= root < 1 << 63 for root in roots)


def test_root_key_counts_integers_by_value() -> None:
    assert random_keys.root_key(np.int64(3), "a") == random_keys.root_key(3, "a")
    with pytest.raises(TypeError):
        random_keys.root_key(0.5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_narrow_integers_give_the_keys_of_wide_ones(dtype: torch.dtype) -> None:
    index = torch.arange(5)
    assert torch.equal(random_keys.fold(7, index.to(dtype)), random_keys.fold(7, index))
    assert torch.equal(random_keys.uniform(index.to(dtype), 4), random_keys.uniform(index, 4))


def test_float_keys_are_refused() -> None:
    with pytest.raises(TypeError, match="integers"):
        random_keys.fold(0.5, 1)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_same_bits() -> None:
    assert torch.equal(random_keys.uniform(keys(1_000).cuda(), 50).cpu(), random_keys.uniform(keys(1_000), 50))
