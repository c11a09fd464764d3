"""Ridge and soft k-NN: values against other implementations, derivatives, the odd batches, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from mlomae import feedback
from mlomae.errors import ConfigError, DataError
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
    assert feedback.list_feedbacks() == ["linear", "nca", "ridge"]
    for name in JOINT:
        assert not list(make(name).parameters())
        assert make(name).joint
    assert not feedback.create("linear", embed_dim=D, num_classes=C).joint


@pytest.mark.parametrize("pooling", ["cls", "avg"])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 2.0])
def test_nca_is_the_double_loop(pooling: str, temperature: float) -> None:
    head, upper = pooled(tokens(H, 1), pooling), pooled(tokens(U, 2), pooling)
    total, scores = 0.0, torch.zeros(U, C, dtype=torch.float64)
    for i in range(U):
        weights = [
            math.exp(float(upper[i] @ head[j] / (upper[i].norm() * head[j].norm())) / temperature) for j in range(H)
        ]
        for j in range(H):
            scores[i, HEAD["label"][j]] += weights[j] / sum(weights)
        total -= math.log(scores[i, UPPER["label"][i]])
    module = make("nca", pooling=pooling, temperature=temperature)
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


def test_a_system_that_rounding_makes_singular_is_nan_not_a_wrong_number() -> None:
    same = tokens(1, 1, torch.float32).expand(H, -1, -1) * torch.arange(1.0, H + 1)[:, None, None]  # rank 1
    assert call(make("ridge", penalty=1e-30), same, tokens(U, 2, torch.float32)).isnan()
    assert call(make("ridge", penalty=1e-2), same, tokens(U, 2, torch.float32)).isfinite()


@pytest.mark.parametrize("name", JOINT)
def test_constant_features_give_finite_gradients(name: str) -> None:
    head, upper = (torch.zeros(n, 1 + L, D, dtype=torch.float64).requires_grad_() for n in (H, U))
    loss = call(make(name), head, upper)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (head, upper)))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        *((n, {"pooling": "max"}, [f"{n} feedback", "pooling='max'", "cls", "avg"]) for n in JOINT),
        *((n, {"temperature": t}, [n, "temperature", "above 0", repr(t)]) for n in JOINT for t in (0, -0.1, "1", True)),
        ("nca", {"temperature": math.nan}, ["temperature", "nan"]),
        ("nca", {"temperature": math.inf}, ["temperature", "inf"]),
        ("nca", {"temprature": 1.0}, ["'temprature'", "did you mean 'temperature'"]),
        ("ridge", {"penalty": 0.0}, ["penalty", "above 0", "0.0"]),
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
