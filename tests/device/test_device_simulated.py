"""The simulated device computes what the CPU computes, and finds what a GPU would suffer from, also in a step."""

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from devices import NEEDS_BACK_END
from simulated import Simulated
from test_device_pretraining import batches
from torch import Tensor
from torch.autograd import forward_ad

from mlomae.masking.strategies.random import RandomMasking
from mlomae.pretraining.devices import to_device
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.step import PretrainStep

pytestmark = NEEDS_BACK_END
ONES = torch.ones(4)
WAITS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda t: t.sum().item(),
    "bool": lambda t: bool(t.sum() > 0),
    "float": lambda t: float(t[0]),
    "tolist": lambda t: t.tolist(),
    "cpu": lambda t: t.cpu(),
    "nonzero": lambda t: t.nonzero(),
    "where": lambda t: torch.where(t > 0),
    "mask": lambda t: t[t > 0],
    "assign": lambda t: t.masked_scatter(t > 0, t) + t.clone().index_put_((t > 0,), t[0]),
    "unique": lambda t: t.unique(),
    "constant": lambda t: t + torch.tensor([1.0, 2.0, 3.0, 4.0], device=t.device),
    "to": lambda t: t + ONES.to(t.device),
    "copy": lambda t: t.clone().copy_(ONES),
    "eigenvectors": lambda t: torch.linalg.eigh(t[:, None] * t),
    "factor": lambda t: torch.linalg.cholesky(torch.diag(t)),
}
WORKS: dict[str, Callable[[Tensor], Any]] = {
    "arithmetic": lambda t: (t.double().float() * 2).softmax(0),
    "scalar": lambda t: t + torch.tensor(1.0),
    "new": lambda t: torch.zeros(4, device=t.device) + t.new_ones(4),
    "view": lambda t: t.clone().view(2, 2)[1].fill_(3),
    "sort": lambda t: t.argsort(stable=True),
    "where": lambda t: torch.where(t > 0, t, 0.0),
    "ahead": lambda t: t + ONES.to(t.device, non_blocking=True),
    "factor": lambda t: torch.linalg.cholesky_ex(torch.diag(t)).L,
}


@pytest.fixture
def sim() -> Any:
    with Simulated() as mode:
        yield mode


@pytest.mark.parametrize("work", WAITS.values(), ids=WAITS)
def test_what_the_host_waits_for_is_found(sim: Simulated, work: Callable[[Tensor], Any]) -> None:
    t = torch.ones(4, device="sim")
    sim.found.clear()
    work(t)
    assert sim.found
    assert all(entry.startswith("waits: ") for entry in sim.found)


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_what_goes_on_alone_is_not(sim: Simulated, work: Callable[[Tensor], Any]) -> None:
    t = torch.tensor([4.0, 3.0, 2.0, 1.0])
    there = work(t.to("sim"))
    assert there.device.type == "sim"
    assert not [entry for entry in sim.found[1:] if entry.startswith("waits: ")]  # the first is of `to`
    assert torch.equal(there.cpu(), work(t))


@pytest.mark.parametrize("mix", [lambda t: t + ONES, lambda t: t[ONES.long()], lambda t: torch.cat([t, ONES])])
def test_two_devices_do_not_mix(sim: Simulated, mix: Callable[[Tensor], Any]) -> None:
    with pytest.raises(RuntimeError, match="on the CPU and on the simulated device"):
        mix(torch.ones(4, device="sim"))


def test_derivatives_of_both_modes_in_mixed_precision(sim: Simulated) -> None:
    def both(device: str) -> list[Tensor]:
        torch.manual_seed(0)
        layer, x = torch.nn.Linear(4, 3).to(device), torch.randn(2, 4).to(device)
        with torch.autocast(device, torch.bfloat16), forward_ad.dual_level():
            out = layer(forward_ad.make_dual(x, torch.ones_like(x)))
            assert out.dtype == torch.bfloat16
            tangent = forward_ad.unpack_dual(out.float().square().mean()).tangent
        return [tangent.cpu(), *(g.cpu() for g in torch.autograd.grad(tangent, list(layer.parameters())))]

    for there, here in zip(both("sim"), both("cpu"), strict=True):
        assert torch.allclose(there, here, rtol=2e-2, atol=1e-3)


def test_autocast_is_that_of_cuda(sim: Simulated) -> None:
    t = torch.ones(4, 4, device="sim")
    with torch.autocast("sim", torch.bfloat16):
        assert (t @ t).dtype == torch.bfloat16
        assert (t @ t).exp().dtype == torch.float32  # the CPU's leaves it in bf16


# --- mutations of a step ----------------------------------------------------------------------------------------------


def ranked(change: Callable[[Tensor], Tensor]) -> Any:
    """`RandomMasking` with other scores."""
    return RandomMasking, "ranking", lambda self, images, ratio, state: change(state.uniform(self.length))


def scaled(step: PretrainStep, *given: Any, usual: Any = PretrainStep._lower_loss) -> Tensor:
    loss = usual(step, *given)
    return loss / loss.item()


CHANGES: dict[str, tuple[Any, str]] = {
    "a tensor on the CPU in a strategy": (
        ranked(lambda u: u + torch.zeros(16)),
        "tensors on the CPU and on the simulated device: mlomae/masking/base.py forward",
    ),
    "a float64 constant": (
        ranked(lambda u: u * torch.full((16,), 0.5, dtype=torch.float64, device=u.device)),
        "float64: mlomae/masking/base.py forward",
    ),
    "an item in the step": ((PretrainStep, "_lower_loss", scaled), "waits: mlomae/multilevel/step.py _theta_step"),
}


@pytest.mark.parametrize("change", [None, *CHANGES])
def test_a_step_with_one_of_them_is_caught(sim: Simulated, change: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if change is not None:
        monkeypatch.setattr(*CHANGES[change][0])
    model = Pretrainer(tiny.config(**tiny.RANDOM, levels__lower_steps=1), tiny.CLASSES).to("sim")
    step, data = tiny.step_of(model), to_device(batches(False), torch.device("sim"))
    sim.found.clear()
    try:
        step(data, 0)
    except RuntimeError as error:
        sim.found.append(str(error))
    assert [entry.partition(": aten")[0] for entry in dict.fromkeys(sim.found)][:1] == (
        [] if change is None else [CHANGES[change][1]]
    )
