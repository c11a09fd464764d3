"""Ridge and soft k-NN: values against other implementations, derivatives, the odd batches, bad input."""

import math

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from mlomae import feedback
from mlomae.common.errors import ConfigError, DataError
from mlomae.feedback import JointFeedback

H, U, L, D, C = 12, 7, 3, 5, 4
HEAD = {"label": torch.arange(H) % C}
UPPER = {"label": torch.tensor([0, 3, 1, 1, 2, 0, 2])}
JOINT = ["nca", "ridge"]
CASES = [("nca", {}), ("ridge", {}), ("ridge", {"loss": "squared_error"})]


def make(name: str, **options: object) -> JointFeedback:
    module = feedback.create(name, embed_dim=D, num_classes=C, **options)
    assert isinstance(module, JointFeedback)
    return module


def tokens(count: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, 1 + L, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def call(module: JointFeedback, head: Tensor | None = None, upper: Tensor | None = None) -> Tensor:
    head, upper = tokens(H, 1) if head is None else head, tokens(U, 2) if upper is None else upper
    return module.joint_loss(head, upper, HEAD, UPPER)


def pooled(x: Tensor, pooling: str) -> Tensor:
    return x[:, 0] if pooling == "cls" else x[:, 1:].mean(dim=1)


def test_registry_knows_them_and_they_have_no_parameters() -> None:
    assert {"linear", "nca", "ridge", "segmentation"} <= set(feedback.list_feedbacks())
    for name in JOINT:
        assert not list(make(name).parameters())
        assert make(name).joint
    assert not feedback.create("linear", embed_dim=D, num_classes=C).joint


@pytest.mark.parametrize("pooling", ["cls", "avg"])
@pytest.mark.parametrize(("temperature", "centre"), [(0.05, False), (0.1, True), (2.0, False), (2.0, True)])
def test_nca_is_the_double_loop(pooling: str, temperature: float, centre: bool) -> None:
    head, upper = pooled(tokens(H, 1), pooling), pooled(tokens(U, 2), pooling)
    if centre:
        mean = sum(head) / H
        head, upper = head - mean, upper - mean
    total, scores = 0.0, torch.zeros(U, C, dtype=torch.float64)
    for i in range(U):
        weights = [
            math.exp(float(upper[i] @ head[j] / (upper[i].norm() * head[j].norm())) / temperature) for j in range(H)
        ]
        for j in range(H):
            scores[i, HEAD["label"][j]] += weights[j] / sum(weights)
        total -= math.log(scores[i, UPPER["label"][i]])
    module = make("nca", pooling=pooling, temperature=temperature, centre=centre)
    assert float(call(module)) == pytest.approx(total / U, rel=1e-12)
    torch.testing.assert_close(module.predict(tokens(U, 2), tokens(H, 1), HEAD), scores)


@pytest.mark.parametrize("pooling", ["cls", "avg"])
@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_ridge_is_scikit_learns(pooling: str, penalty: float) -> None:
    head, upper = pooled(tokens(H, 1), pooling), pooled(tokens(U, 2), pooling)
    mean, scale = head.mean(0), (head.var(0, correction=0) + 1e-6).sqrt()
    model = Ridge(alpha=penalty, solver="svd")
    model.fit(((head - mean) / scale).numpy(), nn.functional.one_hot(HEAD["label"], C).double().numpy())
    expected = torch.from_numpy(model.predict(((upper - mean) / scale).numpy()))
    module = make("ridge", pooling=pooling, penalty=penalty)
    torch.testing.assert_close(module.predict(tokens(U, 2), tokens(H, 1), HEAD), expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(call(module), nn.functional.cross_entropy(expected / 0.1, UPPER["label"]))
    squared = call(make("ridge", pooling=pooling, penalty=penalty, loss="squared_error"))
    wanted = (expected - nn.functional.one_hot(UPPER["label"], C)).square().sum(1).mean()
    torch.testing.assert_close(squared, wanted)


def test_ridge_is_a_head_trained_to_convergence() -> None:
    head, upper = pooled(tokens(H, 1), "avg"), pooled(tokens(U, 2), "avg")
    mean, scale = head.mean(0), (head.var(0, correction=0) + 1e-6).sqrt()
    weight, bias = (torch.zeros(*s, dtype=torch.float64, requires_grad=True) for s in ((D, C), (C,)))
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        error = (head - mean) / scale @ weight + bias - nn.functional.one_hot(HEAD["label"], C)
        loss = error.square().sum() + 3.0 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    trained = ((upper - mean) / scale @ weight + bias).detach()
    found = make("ridge", penalty=3.0).predict(tokens(U, 2), tokens(H, 1), HEAD)
    torch.testing.assert_close(found, trained, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("pooling", ["cls", "avg"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_derivatives_through_both_feature_sets(name: str, options: dict, pooling: str) -> None:
    module = make(name, pooling=pooling, **options)
    arguments = (tokens(H, 1).requires_grad_(), tokens(U, 2).requires_grad_())
    loss = lambda head, upper: module.joint_loss(head, upper, HEAD, UPPER)  # noqa: E731
    assert gradcheck(loss, arguments)
    small = (tokens(5, 1).requires_grad_(), tokens(2, 2).requires_grad_())
    few = {"label": UPPER["label"][:2]}
    assert gradgradcheck(lambda h, u: module.joint_loss(h, u, {"label": HEAD["label"][:5]}, few), small)
    used = [0] if pooling == "cls" else list(range(1, 1 + L))
    for gradient in torch.autograd.grad(loss(*arguments), arguments):
        assert (gradient.abs().sum(dim=(0, 2)) > 0).nonzero().flatten().tolist() == used


@pytest.mark.parametrize(("name", "options"), CASES)
def test_clustered_features_beat_chance_and_a_descent_step_lowers_the_loss(name: str, options: dict) -> None:
    module, centres = make(name, **options), 2 * torch.eye(C, D, dtype=torch.float64)
    head = 0.3 * tokens(H, 1) + centres[HEAD["label"]][:, None]
    upper = 0.3 * tokens(U, 2) + centres[UPPER["label"]][:, None]
    scores = module.predict(upper, head, HEAD)
    assert scores.shape == (U, C)
    assert scores.argmax(1).equal(UPPER["label"])
    assert call(module, head, upper) < call(module)
    x, y = tokens(H, 1).requires_grad_(), tokens(U, 2).requires_grad_()
    before = call(module, x, y)
    g = torch.autograd.grad(before, (x, y))
    assert call(module, x - 1e-3 * g[0], y) < before
    assert call(module, x, y - 1e-3 * g[1]) < before


@pytest.mark.parametrize("name", JOINT)
def test_autocast_and_narrow_tokens_stay_in_float32(name: str) -> None:
    module, head, upper = make(name), tokens(H, 1, torch.bfloat16), tokens(U, 2, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module.joint_loss(head.float(), upper.float(), HEAD, UPPER)
        assert module.predict(upper, head, HEAD).dtype == torch.float32
    assert loss.dtype == torch.float32
    assert torch.equal(loss, module.joint_loss(head.float(), upper.float(), HEAD, UPPER))
    assert module.joint_loss(head, upper, HEAD, UPPER).dtype == torch.float32
    exact = module.joint_loss(head.double(), upper.double(), HEAD, UPPER)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-4, atol=1e-4)


def test_nca_leaves_out_samples_of_classes_that_the_head_batch_lacks() -> None:
    """The documented fallback where a feedback batch has fewer samples than there are classes."""
    module, head, upper = make("nca"), tokens(2, 1).requires_grad_(), tokens(U, 2).requires_grad_()
    two = {"label": torch.tensor([0, 1])}
    known = UPPER["label"] < 2
    expected = module.joint_loss(head, upper[known], two, {"label": UPPER["label"][known]})
    loss = module.joint_loss(head, upper, two, UPPER)
    torch.testing.assert_close(loss, expected)
    gradient = torch.autograd.grad(loss, upper)[0]
    assert gradient.isfinite().all()
    assert (gradient.abs().sum(dim=(1, 2)) > 0).equal(known)
    none = module.joint_loss(head, upper[~known], two, {"label": UPPER["label"][~known]})
    assert float(none.detach()) == 0.0
    assert not torch.autograd.grad(none, head)[0].any()


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_ridge_works_with_fewer_samples_than_classes_or_features(loss: str) -> None:
    module, head, upper = make("ridge", loss=loss), tokens(2, 1).requires_grad_(), tokens(U, 2).requires_grad_()
    two = {"label": torch.tensor([0, 1])}
    value = module.joint_loss(head, upper, two, UPPER)
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, (head, upper)))
    scores = module.predict(upper, head, two)
    assert not scores[:, 2:].any(), "a class that the head batch lacks scores 0"


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize(("width", "count", "scale"), [(5, 12, 1.0), (128, 32, 1.0), (768, 64, 1e3), (768, 256, 1e-3)])
def test_a_system_that_rounding_makes_singular_gets_a_larger_penalty(
    width: int, count: int, scale: float, loss: str
) -> None:
    """Features of rank 1 to 3 with a penalty below rounding: loss and gradients are finite, the penalty is 32 ε tr."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    module = feedback.create("ridge", embed_dim=width, num_classes=C, penalty=1e-30, loss=loss)
    for rank in (1, 2, 3):
        head = (scale * draw(count, rank) @ draw(rank, width))[:, None].expand(-1, 1 + L, -1).clone().requires_grad_()
        upper = (scale * draw(U, rank) @ draw(rank, width))[:, None].expand(-1, 1 + L, -1).clone().requires_grad_()
        y = {"label": torch.arange(count) % C}
        value = module.joint_loss(head, upper, y, UPPER)
        assert value.isfinite()
        assert all(g.isfinite().all() for g in torch.autograd.grad(value, (head, upper)))
        x = nn.functional.normalize(head.detach()[:, 0].double() - head.detach()[:, 0].double().mean(0), dim=0)
        x = (x * count**0.5).float()
        target = nn.functional.one_hot(y["label"], C).float()
        jitter = 32 * torch.finfo(torch.float32).eps * x.square().sum().double()
        exact = torch.linalg.solve(
            x.double().T @ x.double() + jitter * torch.eye(width, dtype=torch.float64), x.double().T @ target.double()
        )
        torch.testing.assert_close(x @ module.solve(x, target), (x.double() @ exact).float(), rtol=2e-2, atol=2e-2)


def test_the_larger_penalty_leaves_a_regular_system_alone() -> None:
    """Bit for bit the plain solve; its derivative to rounding."""
    x, y = tokens(H, 1)[:, 0].requires_grad_(), nn.functional.one_hot(HEAD["label"], C).double()
    found = make("ridge", penalty=0.5).solve(x, y)
    plain = torch.cholesky_solve(x.T @ y, torch.linalg.cholesky(x.T @ x + 0.5 * torch.eye(D, dtype=torch.float64)))
    assert torch.equal(found, plain)
    weight = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad((w * weight).sum(), x, retain_graph=True)[0] for w in (found, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_ridge_on_features_that_are_not_finite_is_nan() -> None:
    assert call(make("ridge"), tokens(H, 1) * torch.nan).isnan()


@pytest.mark.parametrize("name", JOINT)
def test_an_image_that_is_twice_in_a_batch_counts_twice(name: str) -> None:
    """A feedback batch larger than the labelled data repeats images; the loss stays that of the repeated set."""
    module, head, upper = make(name), tokens(H, 1), tokens(U, 2)
    twice = {"label": HEAD["label"].repeat(2)}
    again = {"label": UPPER["label"].repeat(2)}
    once = module.joint_loss(head, upper, HEAD, UPPER)
    repeated = module.joint_loss(head, upper.repeat(2, 1, 1), HEAD, again)
    torch.testing.assert_close(repeated, once)
    if name == "ridge":  # twice the evidence against the same penalty
        module, half = make(name, penalty=20.0), make(name, penalty=10.0)
        once = half.joint_loss(head, upper, HEAD, UPPER)
        torch.testing.assert_close(module.joint_loss(head.repeat(2, 1, 1), upper, twice, UPPER), once)
    else:
        torch.testing.assert_close(module.joint_loss(head.repeat(2, 1, 1), upper, twice, UPPER), once)


def test_is_joint_reads_the_registry() -> None:
    assert [feedback.is_joint(name) for name in ("linear", "nca", "ridge")] == [False, True, True]
    with pytest.raises(ConfigError, match="unknown feedback 'wrong'"):
        feedback.is_joint("wrong")


@pytest.mark.parametrize("name", JOINT)
def test_constant_features_give_finite_gradients(name: str) -> None:
    head, upper = (torch.zeros(n, 1 + L, D, dtype=torch.float64).requires_grad_() for n in (H, U))
    loss = call(make(name), head, upper)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (head, upper)))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        *((n, {"pooling": "max"}, [f"'pooling' of feedback '{n}'", "'max'", "cls", "avg"]) for n in JOINT),
        *(
            (n, {"temperature": t}, [n, "temperature", "float" if isinstance(t, str | bool) else "positive", repr(t)])
            for n in JOINT
            for t in (0, -0.1, "1", True)
        ),
        ("nca", {"temperature": math.nan}, ["temperature", "nan"]),
        ("nca", {"temperature": math.inf}, ["temperature", "inf"]),
        ("nca", {"temprature": 1.0}, ["'temprature'", "did you mean 'temperature'"]),
        ("ridge", {"penalty": 0.0}, ["penalty", "positive", "0.0"]),
        ("ridge", {"penalty": -1}, ["penalty", "-1"]),
        ("ridge", {"loss": "hinge"}, ["'hinge'", "cross_entropy", "squared_error"]),
        ("ridge", {"loss": "squared_error", "temperature": 1.0}, ["temperature has no effect", "remove it"]),
    ],
)
def test_bad_options_are_one_line_errors(name: str, options: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        make(name, **options)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("name", JOINT)
def test_missing_labels_are_one_line_errors(name: str) -> None:
    for head, upper in ((HEAD, {}), ({}, UPPER)):
        with pytest.raises(DataError, match=f"{name} feedback: the batch has no labels") as error:
            make(name).joint_loss(tokens(H, 1), tokens(U, 2), head, upper)
        assert "\n" not in str(error.value)


def test_missing_labels_of_the_linear_feedback() -> None:
    with pytest.raises(DataError, match="linear feedback: the batch has no labels"):
        feedback.create("linear", embed_dim=D, num_classes=C)(tokens(U, 2, torch.float32), {})


@pytest.mark.parametrize(("name", "count"), [("nca", 0), ("ridge", 0), ("ridge", 1)])
def test_too_small_a_head_batch_is_a_one_line_error(name: str, count: int) -> None:
    with pytest.raises(DataError, match=f"{name} feedback: .+ raise data.feedback_batch_size"):
        make(name).joint_loss(tokens(count, 1), tokens(U, 2), {"label": HEAD["label"][:count]}, UPPER)
