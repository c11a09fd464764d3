"""The exact one-step hypergradient on a tiny masked autoencoder, against double backward and finite differences."""

import pytest
import torch
from checks import THROUGH_THETA, Operations, check_one_step, response_vector
from quadratic import relative_error
from tiny_mae import Tiny, brute_force
from torch.nn.attention import SDPBackend, sdpa_kernel

from mlomae import multilevel
from mlomae.multilevel import hypergradient, mixed_product

SYNCHRONISE = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "item")


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_one_step_equals_double_backward(dtype: torch.dtype, bound: float) -> None:
    check_one_step(multilevel, bound, dtype)


def test_response_is_zero_on_the_decoder_and_only_there() -> None:
    tiny = Tiny()
    v = response_vector(tiny.problem, tiny.theta, tiny.omega, tiny.head_batch, tiny.upper_batch)
    unused = {k for k, t in v.items() if not t.any()}
    assert list(v) == list(tiny.theta)
    assert unused == {k for k in v if k.startswith(("decoder.", "predict.", "mask_token"))}


def test_finite_difference_approaches_one_step() -> None:
    tiny = Tiny(detach=False)  # a difference of values does not see a detached tensor
    batches = tiny.batches() | {"lower_batch": tiny.fix(tiny.theta, tiny.phi, tiny.lower_batches[-1])}
    exact = hypergradient(tiny.problem, tiny.theta, tiny.omega, tiny.phi, **batches)
    arguments = (tiny.problem, tiny.theta, tiny.omega, tiny.phi)
    errors = [
        relative_error(hypergradient(*arguments, **batches, solver="finite_difference", epsilon=e), exact)
        for e in (0.1, 0.01)
    ]
    assert errors[1] < 1e-3
    assert errors[1] < errors[0] / 50, "a central difference is of second order"


class UpperAfterUnrolling(torch.autograd.Function):
    """φ ↦ L_III after two SGD steps on θ and one on ω; the backward pass is the ``unrolled`` solver."""

    @staticmethod
    def forward(ctx, tiny, batches, *phi):
        ctx.tiny, ctx.batches = tiny, batches
        ctx.phi = {k: t.detach() for k, t in zip(tiny.phi, phi, strict=True)}
        theta, omega = ({k: t.detach() for k, t in d.items()} for d in (tiny.theta, tiny.omega))
        for _ in range(2):
            g = torch.func.grad(tiny.lower)(theta, ctx.phi, batches["lower_batch"])
            theta = {k: t - 0.3 * g[k] for k, t in theta.items()}
        z = tiny.features(theta, batches["head_batch"])
        g = torch.func.grad(tiny.head_loss)(omega, z, batches["head_batch"])
        omega = {k: t - 0.3 * g[k] for k, t in omega.items()}
        return tiny.head_loss(omega, tiny.features(theta, batches["upper_batch"]), batches["upper_batch"])

    @staticmethod
    def backward(ctx, upstream):
        options = {"solver": "unrolled", "steps": 2, "lr": 0.3, "head_lr": 0.3}
        g = hypergradient(ctx.tiny.problem, ctx.tiny.theta, ctx.tiny.omega, ctx.phi, **ctx.batches, **options)
        return (None, None, *(upstream * t for t in g.values()))


def test_unrolled_passes_gradcheck() -> None:
    tiny = Tiny(size=2, detach=False)
    batches = tiny.batches() | {"lower_batch": tiny.fix(tiny.theta, tiny.phi, tiny.lower_batches[-1])}
    phi = [t.detach().requires_grad_() for t in tiny.phi.values()]
    assert torch.autograd.gradcheck(lambda *p: UpperAfterUnrolling.apply(tiny, batches, *p), phi, atol=1e-8, rtol=1e-5)


def test_lower_loss_passes_gradgradcheck_with_its_mask_fixed() -> None:
    tiny = Tiny(size=2, detach=False)
    batch = tiny.fix(tiny.theta, tiny.phi, tiny.lower_batches[-1])
    names = ["embed.bias", "norm.weight", "predict.bias"]

    def lower(*values):
        theta = {**tiny.theta, **dict(zip(names, values[:3], strict=True))}
        return tiny.lower(theta, {**tiny.phi, "hidden.bias": values[3]}, batch)

    inputs = [tiny.theta[k].detach().requires_grad_() for k in names]
    inputs.append(tiny.phi["hidden.bias"].detach().requires_grad_())
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradcheck(lower, inputs)
        assert torch.autograd.gradgradcheck(lower, inputs)


def test_one_encoder_pass_one_lower_pass_and_no_graph_of_the_autoencoder() -> None:
    tiny = Tiny()
    response_vector(tiny.problem, tiny.theta, tiny.omega, tiny.head_batch, tiny.upper_batch)
    assert tiny.feature_calls == 1
    v = {k: torch.ones_like(t) for k, t in tiny.theta.items()}
    with Operations() as ran:
        found = mixed_product(tiny.problem, tiny.theta, tiny.phi, v, tiny.lower_batches[-1])
    assert tiny.lower_calls == 1
    backward = ("native_layer_norm_backward", "_softmax_backward_data")  # only the autoencoder has these layers
    assert ran.count("_softmax", "_safe_softmax") == 2
    assert ran.count(*backward) == 0
    assert not any(t.requires_grad for t in found.values())
    with Operations() as reverse:
        brute_force(tiny, tiny.theta, tiny.omega, tiny.phi, *tiny.batches().values())
    assert reverse.count(*backward) > 0, "the control must see the backward pass"


@pytest.mark.parametrize("solver", THROUGH_THETA)
def test_no_host_synchronisation(solver: str) -> None:
    tiny = Tiny()
    with Operations() as ran:
        hypergradient(tiny.problem, tiny.theta, tiny.omega, tiny.phi, **tiny.batches(), solver=solver)
    assert ran.names
    assert ran.count(*SYNCHRONISE) == 0
    with Operations() as control:
        assert bool(torch.ones(()))
    assert control.count(*SYNCHRONISE) == 1


@pytest.mark.parametrize("chunks", [2, 4])
def test_chunks_recompute_and_change_nothing(chunks: int) -> None:
    tiny = Tiny()
    whole = hypergradient(tiny.problem, tiny.theta, tiny.omega, tiny.phi, **tiny.batches())
    before = tiny.feature_calls
    parts = hypergradient(tiny.problem, tiny.theta, tiny.omega, tiny.phi, **tiny.batches(), chunks=chunks)
    assert relative_error(parts, whole) < 1e-10
    assert tiny.feature_calls - before == 2 * chunks
