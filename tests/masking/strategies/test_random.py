"""The random ratio is uniform on its interval; tests/pretraining/test_batch_ratio.py tests that a batch shares it."""

import pytest
import torch
from scipy import stats

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import MaskingStrategy, MaskState


def create(length: int = 64, **options: float) -> MaskingStrategy:
    return masking.create("random_ratio", embed_dim=8, grid=(1, length), **options)


def ratios(n: int, **options: float) -> list[float]:
    strategy = create(**options)
    return [strategy.batch_ratio(0.75, random_keys.root_key(0, number)) for number in range(n)]


@pytest.mark.parametrize(("low", "high"), [(0.6, 0.9), (0.05, 0.95), (0.5, 0.51)])
def test_the_ratio_is_uniform_on_the_interval(low: float, high: float) -> None:
    found = ratios(3_000, low=low, high=high)
    assert stats.kstest(found, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    assert low < min(found) < max(found) < high


def test_the_default_removes_as_much_as_mae_on_average() -> None:
    assert sum(ratios(5_000)) / 5_000 == pytest.approx(0.75, abs=0.005)


def test_an_interval_of_one_point_is_random_masking_at_that_ratio() -> None:
    assert set(ratios(20, low=0.6, high=0.6)) == {0.6}
    state = MaskState(random_keys.fold(1, torch.arange(50)))
    given = torch.zeros(0), torch.zeros(0), 0.6, 0, state
    random = masking.create("random", embed_dim=8, grid=(1, 64))
    assert torch.equal(create()(*given).mask, random(*given).mask)


def test_the_ratio_is_a_function_of_the_key_and_of_nothing_else() -> None:
    first = ratios(20)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert ratios(20) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_an_end_that_keeps_nothing_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match=r"0\.98 keeps 0 of 16 patches"):
        create(16, high=0.98).check_ratio(16, 0.75)


@pytest.mark.parametrize(
    "options", [{"low": 0.91}, {"high": 0.5}, {"low": 0.0}, {"high": 1.0}, {"low": float("nan")}], ids=str
)
def test_an_interval_out_of_order_or_range_is_a_one_line_error(options: dict[str, float]) -> None:
    with pytest.raises(
        ConfigError, match=r"of masking strategy 'random_ratio' must be (inside .*, 1\)|a number)"
    ) as error:
        create(**options)
    assert "\n" not in str(error.value)
