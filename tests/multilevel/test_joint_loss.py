"""Feedback without parameters: the hypergradient through both feature sets, for every solver, and defects in it."""

import types
from pathlib import Path

import pytest
import torch
from checks import THROUGH_THETA, Operations, mutant, outer_step, response_vector, two_ranks
from joint_tiny import CASES, CLASSES, WIDTH, JointTiny, brute_force_joint, build, check_joint
from quadratic import quadratic, relative_error
from test_two_processes import average

from mlomae import multilevel
from mlomae.common.errors import ConfigError
from mlomae.feedback import joint
from mlomae.multilevel import ThreeLevelProblem, hypergradient, mixed_product
from mlomae.multilevel.solvers.iterative import conjugate_gradients

OPTIONS: dict[str, dict] = {"neumann": {"steps": 3, "lr": 0.05}, "cg": {"steps": 3, "damping": 1.0}}


def tiny_case(name: str = "nca", **options: object) -> JointTiny:
    return JointTiny(build(name)[0], **options)


@pytest.mark.parametrize("pooling", ["cls", "avg"])
@pytest.mark.parametrize("name", CASES)
def test_one_step_equals_double_backward(name: str, pooling: str) -> None:
    check_joint(multilevel, *build(name, pooling))


@pytest.mark.parametrize("name", CASES)
def test_paths_add_up_and_neither_is_nothing(name: str) -> None:
    tiny = tiny_case(name)
    arguments = (tiny.problem, tiny.theta, {}, tiny.head_batch, tiny.upper_batch)
    both, direct, head = (response_vector(*arguments, paths=p) for p in ("both", "direct", "head"))  # type: ignore[arg-type]
    assert relative_error({k: direct[k] + head[k] for k in both}, both) < 1e-12
    assert relative_error(direct, both) > 1e-2
    assert relative_error(head, both) > 1e-2


@pytest.mark.parametrize("solver", ["neumann", "cg"])
@pytest.mark.parametrize("name", CASES)
def test_inverse_hessians_act_on_the_same_v(name: str, solver: str) -> None:
    """The solver's answer is the mixed product of its own inverse, taken here of a Hessian written out in full."""
    tiny = tiny_case(name, size=2)
    found = hypergradient(tiny.problem, tiny.theta, {}, tiny.phi, **tiny.batches(), solver=solver, **OPTIONS[solver])
    _, v = brute_force_joint(tiny, build(name)[1], tiny.theta, tiny.phi, *tiny.batches().values())
    vector = _inverse(tiny, solver, {k: t.detach() for k, t in v.items()})
    expected = mixed_product(tiny.problem, tiny.theta, tiny.phi, vector, tiny.lower_batches[-1])
    assert relative_error(found, expected) < 1e-9


def _inverse(tiny: JointTiny, solver: str, v: dict) -> dict:
    def product(u: dict) -> dict:
        theta = {k: t.detach().requires_grad_() for k, t in tiny.theta.items()}
        phi = {k: t.detach() for k, t in tiny.phi.items()}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            loss = tiny.lower(theta, phi, tiny.lower_batches[-1])
            g = torch.autograd.grad(loss, list(theta.values()), create_graph=True, materialize_grads=True)
            h = torch.autograd.grad(g, list(theta.values()), [u[k] for k in theta], materialize_grads=True)
        return dict(zip(theta, h, strict=True))

    if solver == "neumann":
        term = total = v
        for _ in range(OPTIONS["neumann"]["steps"]):
            h = product(term)
            term = {k: t - OPTIONS["neumann"]["lr"] * h[k] for k, t in term.items()}
            total = {k: t + term[k] for k, t in total.items()}
        return {k: OPTIONS["neumann"]["lr"] * t for k, t in total.items()}
    return conjugate_gradients(product, v, steps=3, damping=1.0, tol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_finite_difference_approaches_one_step(name: str) -> None:
    tiny = tiny_case(name, detach=False)
    batches = tiny.batches() | {"lower_batch": tiny.fix(tiny.theta, tiny.phi, tiny.lower_batches[-1])}
    exact = hypergradient(tiny.problem, tiny.theta, {}, tiny.phi, **batches)
    for paths in ("both", "direct", "head"):
        exact = hypergradient(tiny.problem, tiny.theta, {}, tiny.phi, **batches, paths=paths)
        near = hypergradient(tiny.problem, tiny.theta, {}, tiny.phi, **batches, solver="finite_difference", paths=paths)
        assert relative_error(near, exact) < 1e-3


@pytest.mark.parametrize("name", CASES)
def test_unrolled_equals_double_backward_of_one_step(name: str) -> None:
    tiny = tiny_case(name, detach=False)
    tiny.lower_batches[-1] = tiny.fix(tiny.theta, tiny.phi, tiny.lower_batches[-1])
    found = hypergradient(tiny.problem, tiny.theta, {}, tiny.phi, **tiny.batches(), solver="unrolled", lr=0.3)
    g = torch.autograd.grad(
        tiny.lower(tiny.theta, tiny.phi, tiny.lower_batches[-1]), list(tiny.theta.values()), materialize_grads=True
    )
    after = {k: (t - 0.3 * d).detach() for (k, t), d in zip(tiny.theta.items(), g, strict=True)}
    _, v = brute_force_joint(tiny, build(name)[1], after, tiny.phi, *tiny.batches().values())
    expected = mixed_product(tiny.problem, tiny.theta, tiny.phi, v, tiny.lower_batches[-1])
    assert relative_error({k: t / 0.3 for k, t in found.items()}, expected) < 1e-9


@pytest.mark.parametrize("solver", THROUGH_THETA)
@pytest.mark.parametrize("name", CASES)
def test_chunks_and_no_host_synchronisation(name: str, solver: str) -> None:
    tiny = tiny_case(name)
    arguments = (tiny.problem, tiny.theta, {}, tiny.phi)
    with Operations() as ran:
        whole = hypergradient(*arguments, **tiny.batches(), solver=solver)
    assert ran.count("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "item") == 0
    parts = hypergradient(*arguments, **tiny.batches(), solver=solver, chunks=4)
    assert relative_error(parts, whole) < (1e-8 if solver == "finite_difference" else 1e-10)


def test_one_encoder_pass_serves_both_batches() -> None:
    tiny = tiny_case()
    response_vector(tiny.problem, tiny.theta, {}, tiny.head_batch, tiny.upper_batch)
    assert tiny.feature_calls == 1


@pytest.mark.parametrize("name", CASES)
def test_outer_step_moves_the_mask_and_has_no_head(name: str) -> None:
    tiny, twin = tiny_case(name), tiny_case(name)
    losses = outer_step(multilevel, tiny, head_steps=3)(tiny.lower_batches[-1:], tiny.head_batch, tiny.upper_batch)
    assert losses.keys() == {"loss_lower", "loss_upper"}
    last = twin.fix(twin.theta, twin.phi, twin.lower_batches[-1])
    reference = build(name)[1]
    expected, _ = brute_force_joint(twin, reference, tiny.theta, twin.phi, last, twin.head_batch, twin.upper_batch)
    assert relative_error({k: (twin.phi[k] - t) / 0.3 for k, t in tiny.phi.items()}, expected) < 1e-9


def feedback_mutant(kind: str, *replacements: tuple[str, str]) -> types.ModuleType:
    """The source of the feedbacks with text of ``kind`` replaced, run as a module of its own that registers nothing."""
    file = Path(joint.__file__)
    before, mark, text = file.read_text().partition(f'@register("{kind}")')
    text, other, after = text.partition("@register(")
    for old, new in replacements:
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {kind}: the mutation is out of date"
        text = text.replace(old, new)
    whole = before + mark + text + other + after
    module = types.ModuleType("mutant")
    exec(compile(whole.replace("@register(", "@(lambda name: lambda cls: cls)("), file.name, "exec"), module.__dict__)
    return module


LOSS = "z_HD, label_H = self.gathered(head_tokens_HLD, head_batch)\n            z_UD"
MUTATIONS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "nca: z_head detached": ("nca", [(LOSS, LOSS.replace("head_tokens_HLD", "head_tokens_HLD.detach()"))]),
    "nca: labels dropped": ("nca", [("label_H, s_UH).T) > 0", "label_H, s_UH).T) > -1")]),
    "nca: labels of the upper batch shifted": (
        "nca",
        [("same_UH = (self.one_hot(label_U, s_UH)", "same_UH = (self.one_hot(label_U, s_UH).roll(1, 0)")],
    ),
    "nca: wrong sign": ("nca", [("(s_UH.logsumexp(dim=1) - own_U)", "(own_U - s_UH.logsumexp(dim=1))")]),
    "nca: no temperature": ("nca", [(" / self.temperature", "")]),
    "ridge: z_head detached": (
        "ridge",
        [("head_tokens_HLD, head_batch), z_UD)", "head_tokens_HLD.detach(), head_batch), z_UD)")],
    ),
    "ridge: statistics detached": (
        "ridge",
        [("scale_D = z_HD.mean(dim=0)", "scale_D = z_HD.detach().mean(dim=0)")],
    ),
    "ridge: solve detached": ("ridge", [("y_HC - y_HC.mean(dim=0))", "y_HC - y_HC.mean(dim=0)).detach()")]),
    "ridge: labels dropped": (
        "ridge",
        [("self.one_hot(label_H, z_HD)", "torch.ones(len(z_HD), self.num_classes).double()")],
    ),
    "ridge: wrong sign": ("ridge", [("F.cross_entropy(scores_UC", "F.cross_entropy(-scores_UC")]),
    "ridge: no intercept": ("ridge", [("@ w_DC + y_HC.mean(dim=0)", "@ w_DC")]),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutant_feedback_fails(name: str) -> None:
    kind, replacements = MUTATIONS[name]
    for changes, broken in ((), False), (replacements, True):
        module = feedback_mutant(kind, *changes)
        _, options, reference = CASES[kind]
        feedback = getattr(module, {"nca": "NCAFeedback", "ridge": "RidgeFeedback"}[kind])(WIDTH, CLASSES, **options)
        if broken:
            with pytest.raises(AssertionError):
                check_joint(multilevel, feedback, reference)
        else:
            check_joint(multilevel, feedback, reference)


SOLVER_MUTATIONS = {
    "z_head detached": ("response.py", ('z_head.detach() if at.paths == "direct" else z_head', "z_head.detach()")),
    "z_upper detached": ("response.py", ('z_upper.detach() if at.paths == "head" else z_upper', "z_upper.detach()")),
    "batches exchanged": (
        "response.py",
        ("joint_value(at, z_head, z_upper", "joint_value(at, z_upper, z_head"),
    ),
    "sign of the result": ("products.py", ("scale(-1.0 / chunks", "scale(1.0 / chunks")),
}


@pytest.mark.parametrize("name", SOLVER_MUTATIONS)
def test_mutant_solver_fails(name: str, tmp_path: Path) -> None:
    file, replacement = SOLVER_MUTATIONS[name]
    broken = mutant(tmp_path, file, replacement)
    with pytest.raises(AssertionError):
        check_joint(broken, *build("nca"))


OVER_RANKS = [solver for solver in THROUGH_THETA if solver != "unrolled"]


def part(name: str, rank: int) -> JointTiny:
    tiny, whole = tiny_case(name), tiny_case(name)
    halves = lambda b: {k: t.chunk(2)[rank] for k, t in b.items()}  # noqa: E731
    tiny.lower_batches = [halves(b) for b in whole.lower_batches]
    tiny.head_batch, tiny.upper_batch = halves(whole.head_batch), halves(whole.upper_batch)
    return tiny


def found_by(rank: int) -> dict[str, dict]:
    tinies = {name: part(name, rank) for name in CASES}
    return {
        f"{name}, {solver}": hypergradient(t.problem, t.theta, {}, t.phi, **t.batches(), reduce=average, solver=solver)
        for name, t in tinies.items()
        for solver in OVER_RANKS
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return two_ranks(tmp_path_factory.mktemp("joint_ranks"), found_by)


@pytest.mark.parametrize("solver", OVER_RANKS)
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_have_the_hypergradient_of_the_global_batch(ranks: list[dict], name: str, solver: str) -> None:
    first, second = (found[f"{name}, {solver}"] for found in ranks)
    assert relative_error(first, second) < 1e-12
    parts, whole = [part(name, rank) for rank in range(2)], tiny_case(name)
    alone = hypergradient(whole.problem, whole.theta, {}, whole.phi, **whole.batches(), solver=solver)
    assert relative_error(first, alone) < (1e-7 if solver == "finite_difference" else 1e-10)  # rounding divided by ε
    vs = [response_vector(t.problem, t.theta, {}, t.head_batch, t.upper_batch) for t in parts]
    v = {k: (vs[0][k] + vs[1][k]) / 2 for k in vs[0]}
    of_own_pairs = mixed_product(whole.problem, whole.theta, whole.phi, v, whole.lower_batches[-1])
    assert relative_error(of_own_pairs, alone) > 1e-3, "the mean over ranks of their own losses is another loss"


def test_contradictions_are_one_line_errors() -> None:
    tiny, q = tiny_case(), quadratic()
    with pytest.raises(ConfigError, match="omega must be"):
        hypergradient(tiny.problem, tiny.theta, q.omega, tiny.phi, **tiny.batches())
    for solver in THROUGH_THETA:
        with pytest.raises(ConfigError, match="needs a head batch"):
            hypergradient(
                tiny.problem, tiny.theta, {}, tiny.phi, **(tiny.batches() | {"head_batch": None}), solver=solver
            )
    with pytest.raises(ConfigError, match="head_loss or a joint_loss"):
        ThreeLevelProblem(tiny.lower, tiny.features)
    only_joint = ThreeLevelProblem(tiny.lower, tiny.features, joint_loss=tiny.joint_loss)
    with pytest.raises(ConfigError, match="omega must be"):
        only_joint.head_loss({}, torch.zeros(1), None)
    tiny.omega = {k: t.requires_grad_() for k, t in q.omega.items()}
    with pytest.raises(ConfigError, match="omega must be"):
        outer_step(multilevel, tiny)
