"""Two processes with half the batch each must find what one process finds on the whole; averaging late must not."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from checks import load, mutant, outer_step, two_ranks
from quadratic import relative_error
from tiny_mae import Tiny

import mlomae.multilevel

SOLVERS = {"one_step": {}, "finite_difference": {}, "neumann": {"steps": 3}, "cg": {"steps": 3, "damping": 1.0}}
LATE = {
    "gradient of the head": ("g_omega = average(gradient(loss_upper, omega))", "g_omega = gradient(loss_upper, omega)"),
    "response": ("v = average(found)", "v = (found)"),
}


def average(x):
    flat = torch.cat([t.flatten() for t in x.values()])
    dist.all_reduce(flat)
    parts = (flat / dist.get_world_size()).split([t.numel() for t in x.values()])
    return {k: part.view_as(t) for (k, t), part in zip(x.items(), parts, strict=True)}


def results(package: Path, rank: int, world: int) -> dict[str, dict[str, torch.Tensor]]:
    ml, found = load(package), {}
    reduce = average if world > 1 else None
    for solver, options in SOLVERS.items():
        tiny = share(rank, world)
        arguments = (tiny.problem, tiny.theta, tiny.omega, tiny.phi)
        found[solver] = ml.hypergradient(*arguments, **tiny.batches(), solver=solver, reduce=reduce, **options)
    tiny = share(rank, world)
    outer_step(ml, tiny, reduce=reduce)(tiny.lower_batches, tiny.head_batch, tiny.upper_batch)
    levels = {"theta": tiny.theta, "omega": tiny.omega, "phi": tiny.phi}
    start = {level: getattr(Tiny(), level) for level in levels}
    found |= {level: {k: (t - start[level][k]).detach() for k, t in x.items()} for level, x in levels.items()}
    return found


def share(rank: int, world: int) -> Tiny:
    tiny = Tiny()
    part = lambda b: {k: t.chunk(world)[rank] for k, t in b.items()}  # noqa: E731
    tiny.lower_batches = [part(b) for b in tiny.lower_batches]
    tiny.head_batch, tiny.upper_batch = part(tiny.head_batch), part(tiny.upper_batch)
    return tiny


def found_by(packages: dict[str, Path], world: int, rank: int) -> dict[str, dict]:
    return {name: results(package, rank, world) for name, package in packages.items()}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    packages = {"package": Path(mlomae.multilevel.__file__).parent}
    for name, replacement in LATE.items():
        packages[name] = Path(mutant(folder, "response.py", replacement).__file__).parent
    # The package itself goes in as a copy too: it would be imported without its parent otherwise.
    packages["package"] = Path(mutant(folder, "response.py").__file__).parent
    return [*two_ranks(folder, partial(found_by, packages, 2)), found_by(packages, 1, 0)]


@pytest.mark.parametrize("what", [*SOLVERS, "theta", "omega", "phi"])
def test_two_processes_equal_one(found: list[dict], what: str) -> None:
    first, second, alone = (x["package"][what] for x in found)
    bound = 1e-7 if what == "finite_difference" else 1e-9  # rounding divided by ε
    assert relative_error(first, second) < 1e-12
    assert relative_error(first, alone) < bound


@pytest.mark.parametrize("name", LATE)
def test_averaging_after_the_product_is_wrong(found: list[dict], name: str) -> None:
    first, _, alone = (x[name]["one_step"] for x in found)
    assert relative_error(alone, found[2]["package"]["one_step"]) < 1e-12, "one process must not tell the difference"
    assert relative_error(first, alone) > 1e-4
