"""Tensors without values: the memory they would take, to the byte, and what they cannot do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from mlomae.common.flops import FlopCounter
from mlomae.common.hollow import Hollow, HollowTensor

KIB = 1024


def kib(count: int = 1) -> Tensor:
    """``count`` KiB of float32."""
    return torch.empty(count, KIB // 4)


def test_bytes_live_while_a_tensor_does() -> None:
    with Hollow() as memory:
        a = kib(3)
        assert isinstance(a, HollowTensor)
        assert (a.device.type, memory.live) == ("cpu", 3 * KIB)
        b = a + 1
        c = (a * b).sum(dim=0)  # the product is gone at once
        assert (memory.live, memory.peak) == (7 * KIB, 10 * KIB)
        a.mul_(2)
        view = b[1:].t()
        assert memory.live == 7 * KIB
        del b
        assert memory.live == 7 * KIB  # the view holds it
        del view
        assert memory.live == 4 * KIB
        memory.reset_peak()
        assert memory.peak == 4 * KIB
        assert c.shape == (KIB // 4,)


def test_real_tensors_of_the_host_count_as_well() -> None:
    with Hollow() as memory:
        keys = torch.tensor([1, 2, 3])
        assert not isinstance(keys + 1, HollowTensor)
        assert (int(keys.sum()), memory.live) == (6, 3 * 8)
        assert isinstance(keys + torch.zeros(3), HollowTensor)


def test_a_graph_holds_what_its_backward_pass_needs() -> None:
    with Hollow() as memory:
        x, layer = kib(8), nn.Linear(KIB // 4, KIB // 4, bias=False)
        held = memory.live
        assert held == (8 + 256) * KIB
        loss = layer(x).exp().sum()
        assert memory.live == held + 8 * KIB + 4  # the exponential, for its derivative, and the loss
        (g,) = torch.autograd.grad(loss, [layer.weight])
        del loss
        assert memory.live == held + 256 * KIB
        assert g.shape == layer.weight.shape


def test_forward_mode_over_a_backward_pass() -> None:
    with Hollow() as memory:
        w, x = kib(4).requires_grad_(), kib(4)
        held = memory.live
        with forward_ad.dual_level():
            loss = (2.0 * (w * forward_ad.make_dual(x, kib(4))).sigmoid()).mean()
            (g,) = torch.autograd.grad(loss, [w])
            tangent = forward_ad.unpack_dual(g).tangent
        assert tangent.shape == w.shape
        del loss, g, tangent
        assert memory.live == held


def test_a_model_becomes_hollow_and_autocast_is_the_processors() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    with Hollow() as memory:
        model.to_empty(device="cpu")
        assert memory.live == sum(t.nbytes for t in model.state_dict().values())
        with torch.autocast("cpu", torch.bfloat16):
            assert model[0](torch.empty(2, 8)).dtype == torch.bfloat16
    assert torch.__future__.get_overwrite_module_params_on_conversion() is False


READS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda t: t.sum().item(),
    "bool": lambda t: bool(t.sum() > 0),
    "tolist": lambda t: t.tolist(),
    "numpy": lambda t: t.numpy(),
    "nonzero": lambda t: t.nonzero(),
    "mask": lambda t: t[t > 0],
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_value_cannot_be_read(read: Callable[[Tensor], Any]) -> None:
    with Hollow(), pytest.raises((RuntimeError, NotImplementedError, TypeError)):
        read(kib())


def test_outside_of_the_context_it_is_of_no_use() -> None:
    with Hollow():
        t = kib()
    with pytest.raises(RuntimeError, match="outside"):
        t + 1


@pytest.mark.parametrize("hollow", [False, True])
def test_attention_of_the_processor_counts_what_its_plain_formula_does(hollow: bool) -> None:
    def count() -> int:
        with FlopCounter() as counter:
            q, k, v = (torch.zeros(2, 3, n, 8, requires_grad=True) for n in (5, 7, 7))
            F.scaled_dot_product_attention(q, k, v).sum().backward()
        return counter.total

    if hollow:
        with Hollow():
            fused = count()
    else:
        fused = count()
    with sdpa_kernel(SDPBackend.MATH):
        assert fused == count() == 3 * 4 * 2 * 3 * 5 * 7 * 8
