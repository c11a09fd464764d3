"""Oracle checks that take the package as an argument, so that mutated copies of it can be put through them."""

import importlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from quadratic import relative_error
from tiny_mae import Tiny, brute_force
from torch import Tensor
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode

import mlomae.multilevel
from mlomae.multilevel import Params

# solvers that go through θ, for problems whose φ does not touch the feedback (``explicit`` has nothing to do there)
THROUGH_THETA = [solver for solver in mlomae.multilevel.list_solvers() if solver != "explicit"]
RATES = {"theta": 1.0, "omega": 0.7, "phi": 0.3}


def mutant(folder: Path, file: str, *replacements: tuple[str, str]) -> ModuleType:
    """A copy of the package under ``folder`` with text replaced in one file, imported under a name of its own."""
    name = f"mutant_{abs(hash((str(folder), file, replacements)))}"
    target = folder / name
    shutil.copytree(Path(mlomae.multilevel.__file__).parent, target, ignore=shutil.ignore_patterns("__pycache__"))
    text = (target / file).read_text()
    for old, new in replacements:
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {file}: the mutation is out of date"
        text = text.replace(old, new)
    (target / file).write_text(text)
    return load(target)


def load(package: Path) -> ModuleType:
    if str(package.parent) not in sys.path:
        sys.path.insert(0, str(package.parent))
    importlib.invalidate_caches()
    return importlib.import_module(package.name)


def response_vector(
    *point: Any, ml: ModuleType = mlomae.multilevel, inverse_head: Any = None, **options: Any
) -> Params:
    """``v`` as a dict like θ, zeros where the features do not use an entry (the decoder's).

    ``point`` and ``options`` are those of ``Point``, problem and θ first.
    """
    v = ml.respond(ml.Point(*point, **options), inverse_head or ml.identity).v
    return {k: v.get(k, torch.zeros_like(t)) for k, t in point[1].items()}


def check_one_step(ml: ModuleType, bound: float = 1e-9, dtype: torch.dtype = torch.float64) -> None:
    tiny = Tiny(dtype)
    found = ml.hypergradient(tiny.problem, tiny.theta, tiny.omega, tiny.phi, **tiny.batches())
    expected, v = brute_force(tiny, tiny.theta, tiny.omega, tiny.phi, *tiny.batches().values())
    assert relative_error(found, expected) < bound
    response = response_vector(tiny.problem, tiny.theta, tiny.omega, tiny.head_batch, tiny.upper_batch, ml=ml)
    assert relative_error(response, v) < bound


def outer_step(ml: ModuleType, tiny: Tiny, **options: object) -> object:
    levels = {"theta": tiny.theta, "omega": tiny.omega, "phi": tiny.phi}
    optimizers = {level: SGD(params.values(), lr=RATES[level]) for level, params in levels.items() if params}
    return ml.OuterStep(tiny.problem, tiny.theta, tiny.omega, tiny.phi, optimizers=optimizers, **options)


def check_step(ml: ModuleType) -> None:
    """Two outer iterations with plain SGD against the same recomputed by hand with double backward."""
    tiny, twin, moved = Tiny(size=32), Tiny(size=32), 0
    step = outer_step(ml, tiny)
    theta, omega, phi = twin.theta, twin.omega, twin.phi
    for _ in range(2):
        losses = step(tiny.lower_batches, tiny.head_batch, tiny.upper_batch)
        first, last = twin.lower_batches
        loss_1 = twin.lower(theta, phi, first)
        theta = _sgd(loss_1, theta, RATES["theta"])
        last = twin.fix(theta, phi, last)
        loss_2 = twin.lower(theta, phi, last)
        theta = _sgd(loss_2, theta, RATES["theta"])
        moved += int((twin.fix(theta, phi, last)["mask"] != last["mask"]).sum())
        loss_head = twin.head_loss(omega, twin.features(theta, twin.head_batch), twin.head_batch)
        omega = _sgd(loss_head, omega, RATES["omega"])
        loss_upper = twin.head_loss(omega, twin.features(theta, twin.upper_batch), twin.upper_batch)
        g_phi, _ = brute_force(twin, theta, omega, phi, last, twin.head_batch, twin.upper_batch)
        before = phi
        phi = {k: (t - RATES["phi"] * g_phi[k]).detach().requires_grad_() for k, t in phi.items()}
        for found, expected, name in zip((tiny.theta, tiny.omega), (theta, omega), ("theta", "omega"), strict=True):
            assert relative_error(found, expected) < 1e-9, name
        update = {k: tiny.phi[k] - before[k] for k in before}
        assert relative_error(update, {k: phi[k] - before[k] for k in before}) < 1e-9
        expected_losses = {"loss_lower": (loss_1 + loss_2) / 2, "loss_head": loss_head, "loss_upper": loss_upper}
        assert losses.keys() == expected_losses.keys()
        for name, value in expected_losses.items():
            torch.testing.assert_close(losses[name], value.detach(), rtol=1e-9, atol=0)
    if moved == 0:  # no AssertionError: a mutant must not seem caught by this
        raise RuntimeError("the steps on theta must move the mask, or the check proves nothing")


def _sgd(loss: Tensor, params: dict[str, Tensor], lr: float) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss, list(params.values()), allow_unused=True, materialize_grads=True)
    return {k: (t - lr * g).detach().requires_grad_() for (k, t), g in zip(params.items(), found, strict=True)}


class Operations(TorchDispatchMode):
    """Names of the ATen operations that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))

    def count(self, *names: str) -> int:
        return sum(self.names.count(name) for name in names)


def two_ranks(folder: Path, find: Callable[[int], dict]) -> list[dict]:
    """What ``find(rank)`` returns in each of two gloo processes; ``find`` must be picklable."""
    mp.spawn(_rank, args=(folder, find), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def _rank(rank: int, folder: Path, find: Callable[[int], dict]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save(find(rank), folder / f"rank{rank}.pt")
    dist.barrier()
    os._exit(0)  # the result is on disk; gloo's threads now and then abort an ordinary exit of the interpreter
