"""Every solver against the closed form of a three-level quadratic: each path alone, and the sum."""

import pytest
import torch
from checks import THROUGH_THETA, response_vector
from quadratic import quadratic, relative_error

from mlomae.common.errors import ConfigError
from mlomae.multilevel import (
    Hypergradient,
    Point,
    hypergradient,
    identity,
    implicit,
    list_options,
    mixed_product,
)
from mlomae.multilevel.problem import SOLVERS

PATHS = ["both", "direct", "head"]
EXACT = {
    "unrolled": {"steps": 120, "lr": 0.9, "head_steps": 120, "head_lr": 0.9},
    "neumann": {"steps": 150, "lr": 0.8},
    "cg": {"steps": 12, "tol": 1e-14},
}
ONE_STEP = {"one_step": 1e-12, "finite_difference": 1e-9}  # central differences of a quadratic err by rounding only


@pytest.mark.parametrize("paths", PATHS)
@pytest.mark.parametrize("solver", EXACT)
def test_converged_solvers_give_the_total_derivative(solver: str, paths: str) -> None:
    q = quadratic()
    expected = q.closed_form(paths)
    if solver == "unrolled":
        q.move_to_optimum()
        expected = q.closed_form(paths)
    found = hypergradient(
        q.problem, q.theta, q.omega, q.phi, **q.batches(), solver=solver, paths=paths, **EXACT[solver]
    )
    assert relative_error(found, expected) < 1e-9


@pytest.mark.parametrize("paths", PATHS)
@pytest.mark.parametrize("solver", ONE_STEP)
def test_identity_solvers_give_their_own_closed_form(solver: str, paths: str) -> None:
    q = quadratic()
    found = hypergradient(q.problem, q.theta, q.omega, q.phi, **q.batches(), solver=solver, paths=paths)
    assert relative_error(found, q.closed_form(paths, identity=True)) < ONE_STEP[solver]
    assert relative_error(found, q.closed_form(paths)) > 1e-2


def test_unrolling_one_step_is_the_one_step_solver_scaled() -> None:
    """From (θ₀, ω₀): ω₁ depends on θ₁ only through the step, so the two agree up to lr where L_III is taken there."""
    q = quadratic()
    lr, head_lr = 0.1, 1.0
    found = hypergradient(
        q.problem, q.theta, q.omega, q.phi, **q.batches(), solver="unrolled", lr=lr, head_lr=head_lr, paths="both"
    )
    a, b = q.lower["A"].mean(0), q.lower["B"].mean(0)
    q.theta["a"] = q.theta["a"] - lr * (a @ q.theta["a"] - b @ q.phi["p"])
    m = (q.head["G"] @ q.head["P"]).mean(0)
    step = q.head["C"].mean(0) @ q.omega["w"] - m @ q.theta["a"] + q.head["u"].mean(0)
    q.omega["w"] = q.omega["w"] - head_lr * step
    assert relative_error(found, {"p": lr * q.closed_form(identity=True)["p"]}) < 1e-12


def test_unrolling_a_list_takes_one_batch_per_step() -> None:
    q, other = quadratic(), quadratic(1)
    options = {"solver": "unrolled", "head_batch": q.head, "upper_batch": q.upper}
    several = hypergradient(q.problem, q.theta, q.omega, q.phi, lower_batch=[q.lower, other.lower], **options)
    again = hypergradient(q.problem, q.theta, q.omega, q.phi, lower_batch=q.lower, steps=2, **options)
    repeated = hypergradient(q.problem, q.theta, q.omega, q.phi, lower_batch=[q.lower, q.lower], **options)
    assert relative_error(repeated, again) == 0
    assert relative_error(several, again) > 1e-3


@pytest.mark.parametrize("solver", THROUGH_THETA)
def test_chunks_and_separate_encoder_passes_change_nothing(solver: str) -> None:
    q = quadratic()
    whole = hypergradient(q.problem, q.theta, q.omega, q.phi, **q.batches(), solver=solver)
    parts = hypergradient(q.problem, q.theta, q.omega, q.phi, **q.batches(), solver=solver, chunks=3)
    assert relative_error(parts, whole) < 1e-10
    apart = type(q.problem)(q.problem.lower, q.problem.features, q.problem.head_loss, concat=None)
    separate = hypergradient(apart, q.theta, q.omega, q.phi, **q.batches(), solver=solver)
    assert relative_error(separate, whole) < 1e-10


def test_zero_vectors_give_zero_and_not_nan() -> None:
    q = quadratic()
    flat = type(q.problem)(q.problem.lower, q.problem.features, lambda omega, z, b: 0 * (z.sum() + omega["w"].sum()))
    for solver in THROUGH_THETA:
        found = hypergradient(flat, q.theta, q.omega, q.phi, **q.batches(), solver=solver)
        assert torch.equal(found["p"], torch.zeros_like(q.phi["p"])), solver


def test_head_without_parameters_has_the_direct_path_only() -> None:
    q = quadratic()
    free = type(q.problem)(q.problem.lower, q.problem.features, lambda omega, z, b: q.problem.head_loss(q.omega, z, b))
    v = response_vector(free, q.theta, {}, None, q.upper)
    assert set(v) == set(q.theta)
    assert v["decoder"].abs().max() == 0
    found = mixed_product(free, q.theta, q.phi, v, q.lower)
    assert relative_error(found, q.closed_form("direct", identity=True)) < 1e-12
    again = hypergradient(free, q.theta, {}, q.phi, lower_batch=q.lower, head_batch=None, upper_batch=q.upper)
    assert relative_error(again, found) == 0


def test_cg_falls_back_to_one_step_on_negative_curvature() -> None:
    q = quadratic()
    q.lower["A"] = -q.lower["A"]
    options = {"solver": "cg", "paths": "direct"}
    found = hypergradient(q.problem, q.theta, q.omega, q.phi, **q.batches(), **options)
    assert relative_error(found, q.closed_form("direct", identity=True)) < 1e-12


def test_a_solver_from_elsewhere_is_found_by_its_name_and_takes_its_own_options() -> None:
    def damped(at: Point, *, damping: float = 1.0) -> Hypergradient:
        return implicit(at, lambda product, b: {k: t / (1 + damping) for k, t in b.items()}, identity)

    q = quadratic()
    with SOLVERS.registered("damped", damped):
        assert {"damping", "reduce", "chunks", "paths"} == set(list_options("damped"))
        found = hypergradient(q.problem, q.theta, q.omega, q.phi, **q.batches(), solver="damped", damping=3.0)
        with pytest.raises(ConfigError, match="'damped' has no option 'steps': choose from chunks, damping"):
            hypergradient(q.problem, q.theta, q.omega, q.phi, **q.batches(), solver="damped", steps=3)
    plain = hypergradient(q.problem, q.theta, q.omega, q.phi, **q.batches())
    assert relative_error(found, {"p": plain["p"] / 4}) < 1e-12
