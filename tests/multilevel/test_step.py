"""The outer iteration: order of updates, accumulation, clipping, autocast, warm-up, plain MAE."""

import copy
from functools import partial

import pytest
import torch
from checks import RATES, THROUGH_THETA, Operations, check_step, outer_step
from quadratic import relative_error
from tiny_mae import Tiny

from mlomae import multilevel
from mlomae.common.errors import ConfigError
from mlomae.multilevel import hypergradient

BF16 = partial(torch.autocast, "cpu", torch.bfloat16)


def test_outer_step_equals_the_equations_done_by_hand() -> None:
    check_step(multilevel)


@pytest.mark.parametrize("solver", THROUGH_THETA)
def test_accumulation_changes_nothing(solver: str) -> None:
    results = []
    for accumulate in (1, 4):
        tiny = Tiny()
        losses = outer_step(multilevel, tiny, solver=solver, accumulate=accumulate)(
            tiny.lower_batches, tiny.head_batch, tiny.upper_batch
        )
        results.append(tiny.theta | tiny.omega | {f"phi.{k}": t for k, t in tiny.phi.items()} | losses)
    assert relative_error(results[1], results[0]) < 1e-10


def test_head_steps_share_features_of_one_batch() -> None:
    tiny, other = Tiny(), Tiny()
    outer_step(multilevel, tiny, head_steps=3)(tiny.lower_batches, tiny.head_batch, None, update_phi=False)
    assert tiny.feature_calls == 1
    heads = [copy.deepcopy(other.head_batch) for _ in range(3)]
    outer_step(multilevel, other, head_steps=3)(other.lower_batches, heads, None, update_phi=False)
    assert other.feature_calls == 3
    assert relative_error(tiny.omega, other.omega) < 1e-12
    with pytest.raises(ConfigError, match="2 head batches for head_steps=3"):
        outer_step(multilevel, other, head_steps=3)(other.lower_batches, heads[:2], None)


def test_warm_up_leaves_the_masking_network_alone() -> None:
    tiny, untouched = Tiny(), Tiny()
    losses = outer_step(multilevel, tiny)(tiny.lower_batches, tiny.head_batch, None, update_phi=False)
    assert set(losses) == {"loss_lower", "loss_head"}
    assert all(torch.equal(t, untouched.phi[k]) for k, t in tiny.phi.items())
    assert relative_error(tiny.omega, untouched.omega) > 1e-3


def test_without_a_masking_network_it_is_plain_mae() -> None:
    tiny = Tiny()
    fixed = [tiny.fix(tiny.theta, tiny.phi, b) for b in tiny.lower_batches]
    masker = {k: t.detach() for k, t in tiny.phi.items()}
    before = {k: t.detach().clone() for k, t in tiny.omega.items()}
    tiny.problem = multilevel.ThreeLevelProblem(
        lambda theta, phi, b: tiny.lower(theta, masker, b), tiny.features, tiny.head_loss
    )
    tiny.phi = {}
    losses = outer_step(multilevel, tiny)(fixed, None, None)
    assert set(losses) == {"loss_lower"}
    assert tiny.lower_calls == 2
    assert tiny.feature_calls == 0
    assert all(torch.equal(t, before[k]) for k, t in tiny.omega.items())


def test_clipping_bounds_the_step_on_theta() -> None:
    tiny, before = Tiny(), Tiny().theta
    outer_step(multilevel, tiny, clip_grad=1e-3)(tiny.lower_batches[:1], tiny.head_batch, None, update_phi=False)
    moved = torch.cat([(tiny.theta[k] - t).flatten() for k, t in before.items()]).norm()
    assert float(moved) == pytest.approx(1e-3 * RATES["theta"], rel=0.02)


def test_lower_loss_stands_in_for_the_theta_steps_only() -> None:
    tiny, calls = Tiny(), []

    def compiled(theta, phi, batch):
        calls.append(any(t.requires_grad for t in phi.values()))
        return Tiny.lower(tiny, theta, phi, batch)

    outer_step(multilevel, tiny, lower_loss=compiled)(tiny.lower_batches, tiny.head_batch, tiny.upper_batch)
    assert calls == [False, False]
    assert tiny.lower_calls == 3


def test_no_host_synchronisation_and_no_gradients_left() -> None:
    tiny = Tiny()
    step = outer_step(multilevel, tiny, clip_grad=1.0, accumulate=2)
    with Operations() as ran:
        losses = step(tiny.lower_batches, tiny.head_batch, tiny.upper_batch)
    assert ran.count("_local_scalar_dense", "is_nonzero", "nonzero", "equal") == 0
    assert all(t.dim() == 0 and not t.requires_grad for t in losses.values())
    assert all(t.grad is None for t in (tiny.theta | tiny.omega | tiny.phi).values())


@pytest.mark.parametrize("solver", THROUGH_THETA)
def test_autocast_gives_float32_close_to_full_precision(solver: str) -> None:
    tiny = Tiny(torch.float32)
    batches = tiny.batches() | {"lower_batch": tiny.fix(tiny.theta, tiny.phi, tiny.lower_batches[-1])}
    arguments = (tiny.problem, tiny.theta, tiny.omega, tiny.phi)
    options = {"solver": solver, "epsilon": 1.0} if solver == "finite_difference" else {"solver": solver}
    full = hypergradient(*arguments, **batches, **options)
    with BF16():
        with torch.no_grad():
            tiny.features(tiny.theta, tiny.head_batch)  # fills autocast's cache with weights that have no graph
        half = hypergradient(*arguments, **batches, **options)
        assert torch.is_autocast_cache_enabled()
    assert all(t.dtype == torch.float32 for t in half.values())
    assert 1e-6 < relative_error(half, full) < 0.1


def test_step_under_autocast_stays_close() -> None:
    full, half = Tiny(torch.float32), Tiny(torch.float32)
    for tiny, options in ((full, {}), (half, {"autocast": BF16})):
        step = outer_step(multilevel, tiny, **options)
        # One short iteration: after more, bf16 flips a patch of some mask and the two runs diverge.
        step(tiny.lower_batches[:1], tiny.head_batch, tiny.upper_batch)
    for level in ("theta", "omega", "phi"):
        start = getattr(Tiny(torch.float32), level)
        moved = [{k: t - start[k] for k, t in getattr(tiny, level).items()} for tiny in (half, full)]
        assert 1e-6 < relative_error(*moved) < 0.1, level


@pytest.mark.parametrize("view", ["turned", "spread"])
def test_a_gradient_with_other_strides_than_its_parameter_moves_each_element_by_its_own(view: str) -> None:
    """Fused AdamW reads both in the order of memory. ``turned``: the gradient of a transpose; ``spread``: of a sum."""
    c = torch.arange(1.0, 13.0, dtype=torch.float64).view(4, 3).cos()
    losses = {"turned": lambda w: (w.T * c).sum(), "spread": lambda w: w.sum(dim=1) @ c[:3, 0]}
    moved = []
    for fused in (True, False):
        w = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
        problem = multilevel.ThreeLevelProblem(
            lambda t, p, b: losses[view](t["w"]), lambda t, b: b, lambda o, z, b: z.sum()
        )
        optimizer = torch.optim.AdamW([w], lr=0.1, eps=1.0, fused=fused, foreach=False)
        multilevel.OuterStep(problem, {"w": w}, {}, {}, optimizers={"theta": optimizer})([torch.zeros(1)], None, None)
        moved.append(w.detach())
    assert moved[0].abs().min() > 1e-4
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-12, atol=0)
