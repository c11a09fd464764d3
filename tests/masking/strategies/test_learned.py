"""The learned mask: its sampling, its gradients, and what it refuses."""

import itertools

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import MaskState
from mlomae.masking.strategies.learned import LearnedMasking, standardise

D, GRID, L = 8, (4, 4), 16
ARCHS, SAMPLINGS = ("token", "mlp", "transformer"), ("topk", "gumbel_topk")
every_arch = pytest.mark.parametrize("arch", ARCHS)


def learned(grid: tuple[int, int] = GRID, **options: object) -> LearnedMasking:
    torch.manual_seed(0)
    return masking.create("learned", embed_dim=D, grid=grid, **{"hidden": 16, **options}).double()


def state(batch: int) -> MaskState:
    return MaskState(random_keys.fold(random_keys.root_key(0, "learned"), torch.arange(batch)))


def tokens(batch: int = 3, length: int = L) -> Tensor:
    return torch.randn(batch, length, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Constant(nn.Module):
    """A scorer that gives every image the same logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        return self.logits.expand(len(tokens_BLD), -1)


def removed_sets(logits: Tensor, sampling: str, ratio: float, batch: int) -> Tensor:
    """Masks (batch, L) drawn for constant logits."""
    strategy = learned(grid=(1, len(logits)), sampling=sampling, standardize=False)
    strategy.net = Constant(logits)
    x = torch.zeros(batch, len(logits), D)
    return strategy(x, x, ratio, 0, state(batch)).mask


@every_arch
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("standardize", [True, False])
def test_every_combination_runs_and_reaches_phi(arch: str, sampling: str, standardize: bool) -> None:
    strategy = learned(arch=arch, sampling=sampling, standardize=standardize)
    mask = strategy(tokens(), tokens(), 0.75, 0, state(3))
    assert mask.ids_keep.shape == (3, 4)
    assert ((mask.weight > 0) & (mask.weight < 1)).all()
    (mask.mask * mask.weight * torch.rand(3, L)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in strategy.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    assert sum(g.abs().sum() for g in gradients.values()) > 1e-6


@every_arch
def test_only_the_weight_carries_gradient(arch: str) -> None:
    mask = learned(arch=arch)(tokens().requires_grad_(), tokens(), 0.75, 0, state(3))
    carries = {name: getattr(mask, name).requires_grad for name in ("ids_keep", "ids_restore", "mask", "weight")}
    assert carries == {"ids_keep": False, "ids_restore": False, "mask": False, "weight": True}


@every_arch
@pytest.mark.parametrize("detach", [True, False])
def test_tokens_get_gradient_only_if_not_detached(arch: str, detach: bool) -> None:
    x = tokens().requires_grad_()
    weight = learned(arch=arch, detach_mask_input=detach)(x, x, 0.75, 0, state(3)).weight
    (gradient,) = torch.autograd.grad(weight.square().sum(), x, allow_unused=True)
    assert (gradient is None) == detach
    assert detach or gradient.abs().sum() > 1e-6


@every_arch
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("fixed", [True, False])
def test_forward_mode_along_tokens_is_zero_exactly_if_detached(arch: str, detach: bool, fixed: bool) -> None:
    """The mixed product of the hypergradient is forward-over-reverse: both modes must see the same constants."""
    strategy, x = learned(arch=arch, detach_mask_input=detach), tokens()
    direction = torch.randn_like(x)
    phi = {name: p.detach() for name, p in strategy.named_parameters()}
    at = MaskState(state(3).key, fixed=strategy(x, x, 0.75, 0, state(3)) if fixed else None)

    def loss(phi: dict[str, Tensor], x: Tensor) -> Tensor:
        mask = functional_call(strategy, phi, (x, x, 0.75, 0, at))
        return (mask.mask * mask.weight * torch.linspace(0.5, 2, L)).sum()

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        plain = jvp(lambda x: loss(phi, x), (x,), (direction,))[1]
        mixed = jvp(lambda x: grad(loss)(phi, x), (x,), (direction,))[1]
    size = sum(t.abs().sum() for t in mixed.values())
    assert (plain == 0) == detach
    assert size == 0 if detach else size > 1e-6


@every_arch
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_standardised_logits_have_zero_mean_and_the_scale_as_deviation(arch: str, scale: float) -> None:
    logits = learned(arch=arch, scale=scale).logits(tokens())
    torch.testing.assert_close(logits.mean(1), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(logits.var(1, unbiased=False), torch.full((3,), scale**2).double(), atol=0, rtol=2e-3)


def test_standardise_ignores_shift_and_scale_and_survives_equal_logits() -> None:
    logits = 3 * torch.randn(2, L, dtype=torch.float64)
    torch.testing.assert_close(standardise(7 * logits + 5), standardise(logits), atol=1e-5, rtol=0)
    equal = torch.ones(2, L, requires_grad=True)
    standardise(equal).sum().backward()
    assert torch.equal(standardise(equal), torch.zeros(2, L))
    assert equal.grad.isfinite().all()


def test_weight_is_the_sigmoid_of_the_logits_and_so_are_the_scores() -> None:
    strategy = learned()
    sigma = torch.sigmoid(strategy.logits(tokens()))
    assert torch.equal(strategy(tokens(), tokens(), 0.75, 0, state(3)).weight, sigma)
    assert torch.equal(strategy.scores(tokens(), state(3)), sigma)


def test_fixed_set_gets_the_weight_of_new_tokens_with_gradient() -> None:
    strategy = learned()
    first = strategy(tokens(), tokens(), 0.75, 0, state(3))
    x = torch.randn_like(tokens())
    second = strategy(x, x, 0.75, 0, MaskState(state(3).key, fixed=first))
    assert second.mask is first.mask
    assert torch.equal(second.weight, strategy.scores(x, state(3)))
    assert second.weight.requires_grad


@every_arch
def test_topk_removes_the_highest_scores_whatever_the_key(arch: str) -> None:
    strategy = learned(arch=arch, sampling="topk")
    mask = strategy(tokens(), tokens(), 0.75, 0, state(3)).mask
    top = strategy.scores(tokens(), state(3)).topk(12, dim=1).indices
    assert torch.equal(mask, torch.zeros_like(mask).scatter(1, top, 1.0))
    assert torch.equal(mask, strategy(tokens(), tokens(), 0.75, 0, MaskState(state(3).key + 1)).mask)


def test_one_removed_patch_is_a_draw_from_the_softmax() -> None:
    logits = torch.tensor([-1.5, 0.0, 0.5, 1.0, 2.0])
    mask = removed_sets(logits, "gumbel_topk", ratio=0.2, batch=50_000)
    assert (mask.sum(1) == 1).all()
    expected = 50_000 * torch.softmax(logits.double(), 0)
    assert stats.chisquare(mask.sum(0).double(), expected).pvalue > 1e-3


def test_removed_pairs_follow_sampling_without_replacement() -> None:
    logits = torch.tensor([-1.0, 0.0, 0.5, 1.5])
    mask = removed_sets(logits, "gumbel_topk", ratio=0.5, batch=50_000)
    p = torch.softmax(logits.double(), 0)
    observed, expected = [], []
    for i, j in itertools.combinations(range(4), 2):
        observed.append(float((mask[:, i] * mask[:, j]).sum()))
        expected.append(50_000 * float(p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j])))
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_equal_logits_under_gumbel_are_random_masking() -> None:
    frequency = removed_sets(torch.zeros(L), "gumbel_topk", ratio=0.75, batch=8_000).mean(0)
    torch.testing.assert_close(frequency, torch.full((L,), 0.75), atol=0.02, rtol=0)


@pytest.mark.parametrize("arch", ["token", "transformer"])
def test_other_image_sizes_are_accepted(arch: str) -> None:
    x = tokens(length=36)
    assert learned(arch=arch)(x, x, 0.75, 0, state(3)).weight.shape == (3, 36)


def test_the_flat_mlp_refuses_another_length_in_one_line() -> None:
    x = tokens(length=36)
    with pytest.raises(ConfigError, match=r"16 patches but got 36.*'transformer'") as error:
        learned(arch="mlp")(x, x, 0.75, 0, state(3))
    assert "\n" not in str(error.value)


def test_the_token_scorer_sees_one_token_at_a_time() -> None:
    strategy, order = learned(standardize=False), torch.randperm(L)
    torch.testing.assert_close(strategy.logits(tokens()[:, order]), strategy.logits(tokens())[:, order])


def test_bf16_logits_are_widened() -> None:
    strategy = learned().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert strategy(tokens().float(), tokens(), 0.75, 0, state(3)).weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("option", "valid"),
    [("arch", ARCHS), ("sampling", SAMPLINGS), ("normalize", ("mask", "weight"))],
    ids=["arch", "sampling", "normalize"],
)
def test_unknown_value_is_a_one_line_error_listing_the_valid_ones(option: str, valid: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=f"'{option}' .*; got 'wrong'") as error:
        learned(**{option: "wrong"})
    assert "\n" not in str(error.value)
    assert all(value in str(error.value) for value in valid)


def test_transformer_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden=200"):
        learned(arch="transformer", hidden=200)


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"scale": 0.0}, {"scale": float("nan")}])
def test_sizes_and_scales_that_kill_the_network_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"must be (positive|at least|a number)"):
        masking.create("learned", embed_dim=8, grid=(2, 2), **wrong)
