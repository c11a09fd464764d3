"""One step of every masking strategy, and of the learned mask with every feedback and solver, as on a GPU.

Nothing is on the CPU, the host waits for nothing, nothing is in float64 but what `KNOWN` says; and losses are those of
the CPU. bf16 runs under CUDA's autocast, which differs from the CPU's.
"""

from typing import Any

import pytest
import tiny
import torch
from devices import DEVICES, Device, opened, unexpected
from torch.nn.attention import SDPBackend, sdpa_kernel

from mlomae import feedback, masking
from mlomae.common.errors import ConfigError
from mlomae.multilevel import list_solvers
from mlomae.pretraining.devices import to_device
from mlomae.pretraining.pretrainer import Pretrainer

SIDE, BATCH = 16, 8
SMALL = {**tiny.values()["model"], "depth": 1}
PARTS = {"waits: mlomae/masking/teacher.py second_eigenvector": "torch looks whether an eigendecomposition converged"}
KNOWN: dict[str, dict[str, str]] = {
    "attg": PARTS,
    "self_guided": PARTS,
    "automae": {"waits: mlomae/masking/strategies/automae.py kernel": "torch looks whether singular values converged"},
    "semmae": {"float64: mlomae/masking/strategies/semmae.py budgets": "one number for each part of an image"},
}
"""Of a strategy, what is known to wait or to be in float64: how entries begin, and why."""
FEW = {"neumann": {"steps": 1}, "cg": {"steps": 2, "head_steps": 1}}
"""Options by which a solver repeats itself less often."""


def batches(learned: bool) -> dict[str, Any]:
    """Those of one outer iteration, with all that a stream may give."""

    def batch(number: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(number)
        classes = torch.randint(tiny.CLASSES, (BATCH, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        index = torch.arange(BATCH)
        return {
            "image": torch.randn(BATCH, 3, SIDE, SIDE, generator=generator),
            "label": index % tiny.CLASSES,
            "key": index + BATCH * number,
            "index": index,
            "epoch": torch.zeros_like(index),
            "object": classes == 0,
            "pixel_label": classes,
        }

    return {"lower": [batch(0)], **({"head": batch(1), "upper": batch(2)} if learned else {})}


def step_on(device: Device, **changes: Any) -> dict[str, torch.Tensor]:
    """The losses of iteration 5 of 10 of the tiny run, watched."""
    torch.manual_seed(0)
    model = Pretrainer(tiny.config(model=SMALL, **changes), tiny.CLASSES).train()
    step = tiny.step_of(model.to(device.name))
    if step.gate is not None:
        step.gate.begin = 0
    data = to_device(batches(model.mask.trainable), torch.device(device.name))
    with device.watch():
        return step(data, 5)


def check(name: str, known: dict[str, str], amp: str = "none", **changes: Any) -> None:
    """A step on the device ``name`` does what one on the CPU does, and does not wait."""
    changes |= {"train__amp": amp}
    with sdpa_kernel(SDPBackend.MATH):  # the simulated device has no other
        expected = step_on(Device("cpu"), **changes)
        with opened(name) as device:
            losses = step_on(device, **changes)
            assert unexpected(device.found, known) == []
            assert all(any(entry.startswith(key) for entry in device.found) for key in known)
            device.close(losses, expected, 1e-5 if amp == "none" else 2e-2)


every_device = pytest.mark.parametrize("name", DEVICES)
every_precision = pytest.mark.parametrize("amp", ["none", "bf16"])


@every_device
@every_precision
@pytest.mark.parametrize("strategy", masking.list_strategies())
def test_a_step_of_every_strategy(name: str, amp: str, strategy: str) -> None:
    levels = {"lower_steps": 1}
    check(name, KNOWN.get(strategy, {}), amp, mask={"type": strategy, "ratio": 0.75}, levels=levels)


@every_device
@pytest.mark.parametrize("patches", ["shuffled", "region", "scattered", "everywhere"])
def test_a_step_of_every_control_of_the_oracle(name: str, patches: str) -> None:
    mask = {"type": "oracle", "ratio": 0.75, "patches": patches, "grow": 1}
    check(name, {}, "none", mask=mask, levels={"lower_steps": 1})


CASES = [(solver, kind, "none") for solver in list_solvers() for kind in feedback.list_feedbacks()]
CASES += [(solver, "linear", "bf16") for solver in list_solvers()]  # feedbacks are always in float32
DENSE = [kind for kind in feedback.list_feedbacks() if feedback.is_dense(kind)]
REFUSED = {("explicit", kind): "mask pooling weighs an image's tokens, a dense head takes each alone" for kind in DENSE}


@every_device
@pytest.mark.parametrize(("solver", "kind", "amp"), [case for case in CASES if case[:2] not in REFUSED])
def test_a_step_of_every_solver_with_every_feedback(name: str, solver: str, kind: str, amp: str) -> None:
    options = {"solver": solver, "solver_options": FEW.get(solver, {}), "mask_pooling": solver == "explicit"}
    pooling = {} if kind in DENSE else {"pooling": "avg" if solver == "explicit" else "cls"}
    check(name, {}, amp, feedback={"type": kind, **pooling}, levels={"lower_steps": 1, **options})


@pytest.mark.parametrize(("solver", "kind"), REFUSED)
def test_what_is_not_checked_cannot_be_configured(solver: str, kind: str) -> None:
    with pytest.raises(ConfigError):
        step_on(Device("cpu"), feedback={"type": kind}, levels={"solver": solver, "mask_pooling": True})
