"""What a user can get wrong is said in one line that names it and lists what is valid."""

import pytest
import torch
from checks import response_vector
from quadratic import quadratic
from torch.optim import SGD

from mlomae.common.errors import ConfigError
from mlomae.multilevel import OuterStep, ThreeLevelProblem, hypergradient, list_options, list_solvers
from mlomae.multilevel.params import batch_size, concat_batches, split_batch


def call(**options: object) -> None:
    q = quadratic()
    hypergradient(q.problem, q.theta, q.omega, q.phi, **q.batches(), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"solver": "one_stpe"}, ["'one_stpe'", *list_solvers()]),
        ({"solver": "cg", "step": 3}, ["'cg'", "'step'", *list_options("cg")]),
        ({"steps": 3}, ["'one_step'", "'steps'", "paths"]),
        ({"paths": "indirect"}, ["'indirect'", "both", "direct", "head"]),
        ({"chunks": 4}, ["6 samples", "4 equal chunks"]),
        ({"chunks": 0}, ["chunks=0"]),
        ({"solver": "neumann", "lr": 0.0}, ["'lr'", "must be positive; got 0.0"]),
        ({"solver": "cg", "steps": 0}, ["'steps'", "must be at least 1; got 0"]),
        ({"solver": "unrolled", "steps": 0}, ["steps=0"]),
        ({"solver": "unrolled", "reduce": dict}, ["unrolled", "one process"]),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        call(**options)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_list_solvers() -> None:
    ours = ["cg", "explicit", "finite_difference", "neumann", "one_step", "sama", "unrolled"]
    assert [name for name in list_solvers() if name in ours] == ours


def test_head_path_needs_parameters() -> None:
    q = quadratic()
    with pytest.raises(ConfigError, match="paths='head'"):
        response_vector(q.problem, q.theta, {}, q.head, q.upper, paths="head")


def test_outer_step_refuses_at_construction() -> None:
    q = quadratic()
    theta, phi = ({k: t.requires_grad_() for k, t in d.items()} for d in (q.theta, q.phi))
    optimizers = {"theta": SGD(theta.values(), lr=0.1), "phi": SGD(phi.values(), lr=0.1)}
    with pytest.raises(ConfigError, match="'nope'"):
        OuterStep(q.problem, theta, {}, phi, optimizers=optimizers, solver="nope")
    with pytest.raises(ConfigError, match="'nope'"):
        OuterStep(q.problem, theta, {}, phi, optimizers=optimizers, solver_options={"nope": 1})
    with pytest.raises(ConfigError, match="'omega'"):
        OuterStep(q.problem, theta, q.omega, phi, optimizers=optimizers)
    with pytest.raises(ConfigError, match="not a leaf"):
        OuterStep(q.problem, {"a": theta["a"] * 2}, {}, phi, optimizers=optimizers)
    with pytest.raises(ConfigError, match="accumulate"):
        OuterStep(q.problem, theta, {}, phi, optimizers=optimizers, accumulate=0)
    with pytest.raises(ConfigError, match="lower_batches is empty"):
        OuterStep(q.problem, theta, {}, phi, optimizers=optimizers)([], None, None)


def test_batches_of_any_nesting() -> None:
    x, y = torch.arange(4.0), torch.arange(8.0).reshape(4, 2)
    joined = concat_batches({"in": (x, [y]), "extra": x}, {"in": (x, [y]), "other": y})
    assert set(joined) == {"in"}
    assert isinstance(joined["in"], tuple)
    assert joined["in"][1][0].shape == (8, 2)
    assert batch_size(joined) == 8
    parts = split_batch({"in": (x, [y]), "scale": torch.tensor(2.0), "name": "train"}, 2)
    assert [p["in"][0].tolist() for p in parts] == [[0.0, 1.0], [2.0, 3.0]]
    assert parts[1]["name"] == "train"
    with pytest.raises(ConfigError, match="cannot concatenate batches of dict and Tensor"):
        concat_batches({"in": x}, x)
    with pytest.raises(ConfigError, match="no tensor"):
        batch_size({"name": "train"})


def test_features_must_have_samples_first() -> None:
    q = quadratic()
    wrong = ThreeLevelProblem(q.problem.lower, lambda theta, b: (b["P"] @ theta["a"]).T, q.problem.head_loss)
    with pytest.raises(ConfigError, match="samples must come first"):
        hypergradient(wrong, q.theta, q.omega, q.phi, **q.batches())
