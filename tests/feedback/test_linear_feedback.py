"""Linear feedback: pooling, keyed dropout, and derivatives; errors of every registered feedback."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from mlomae import feedback
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.feedback.linear import LinearFeedback

B, L, D, C = 5, 6, 8, 4


def head(**options: object) -> LinearFeedback:
    torch.manual_seed(0)
    module = feedback.create("linear", embed_dim=D, num_classes=C, **options).double()
    nn.init.normal_(module.fc.weight)
    return module


def tokens(batch: int = B) -> Tensor:
    return torch.randn(batch, 1 + L, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def keys(batch: int = B) -> Tensor:
    return random_keys.fold(random_keys.root_key(0, "dropout"), torch.arange(batch))


LABEL = torch.tensor([0, 3, 1, 1, 2])


@pytest.mark.parametrize(("pooling", "used"), [("cls", [0]), ("avg", list(range(1, 1 + L)))])
def test_pooling_reads_the_right_tokens(pooling: str, used: list[int]) -> None:
    x = tokens().requires_grad_()
    (gradient,) = torch.autograd.grad(head(pooling=pooling)(x, {"label": LABEL}), x)
    assert (gradient.abs().sum(dim=(0, 2)) > 0).nonzero().flatten().tolist() == used


@pytest.mark.parametrize("pooling", ["cls", "avg"])
def test_loss_is_the_mean_cross_entropy_of_norm_then_linear(pooling: str) -> None:
    module, x = head(pooling=pooling), tokens()
    pooled = x[:, 0] if pooling == "cls" else x[:, 1:].mean(dim=1)
    centred = pooled - pooled.mean(1, keepdim=True)
    normed = centred / (centred.square().mean(1, keepdim=True) + module.norm.eps).sqrt()
    logits = normed @ module.fc.weight.T + module.fc.bias
    torch.testing.assert_close(module.logits(x), logits)
    expected = -logits.log_softmax(1)[torch.arange(B), LABEL].mean()
    torch.testing.assert_close(module(x, {"label": LABEL}), expected)


def test_loss_of_a_batch_is_the_mean_of_its_parts() -> None:
    module, x = head(dropout=0.5), tokens()
    batch = {"label": LABEL, "dropout_key": keys()}
    parts = [module(x[i : i + 1], {k: v[i : i + 1] for k, v in batch.items()}) for i in range(B)]
    torch.testing.assert_close(module(x, batch), torch.stack(parts).mean())


def test_a_fresh_head_is_at_chance() -> None:
    fresh = feedback.create("linear", embed_dim=D, num_classes=C).double()
    loss = fresh(tokens(), {"label": LABEL})
    torch.testing.assert_close(loss, torch.tensor(C).double().log(), atol=0.1, rtol=0)


def test_dropout_depends_on_keys_only() -> None:
    module = head(dropout=0.5)
    whole, order = module.logits(tokens(), keys()), torch.tensor([3, 0, 3])
    torch.rand(9)  # the global generator has no part in it
    torch.testing.assert_close(module.logits(tokens()[order], keys()[order]), whole[order])
    torch.testing.assert_close(module.eval().logits(tokens(), keys()), whole)
    assert (module.logits(tokens(), keys() + 1) != whole).any()


def test_dropout_differs_between_images() -> None:
    same = tokens()[:1].expand(B, -1, -1)
    assert head(dropout=0.5).logits(same, keys()).unique(dim=0).shape[0] == B


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_dropout_preserves_the_mean_and_drops_its_share(dropout: float) -> None:
    module = feedback.create("linear", embed_dim=D, num_classes=D, dropout=dropout).double()
    nn.init.eye_(module.fc.weight)  # logits are the dropped features themselves
    same = tokens()[:1].expand(20_000, -1, -1)
    dropped, plain = module.logits(same, keys(20_000)), module.logits(same[:1])
    five_sigma = 5 * plain.abs().max() * (dropout / (1 - dropout) / 20_000) ** 0.5
    assert (dropped.mean(0, keepdim=True) - plain).abs().max() < five_sigma
    torch.testing.assert_close((dropped == 0).double().mean(), torch.tensor(dropout).double(), atol=0.01, rtol=0)
    kept = dropped[dropped != 0] / plain.expand_as(dropped)[dropped != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - dropout)))


@pytest.mark.parametrize("training", [True, False])
def test_without_keys_there_is_no_dropout(training: bool) -> None:
    module = head(dropout=0.9).train(training)
    plain = head(dropout=0.0)
    assert torch.equal(module.logits(tokens()), plain.logits(tokens()))
    assert torch.equal(module(tokens(), {"label": LABEL}), plain(tokens(), {"label": LABEL}))


def test_without_dropout_keys_change_nothing() -> None:
    assert torch.equal(head().logits(tokens(), keys()), head().logits(tokens()))


@pytest.mark.parametrize("pooling", ["cls", "avg"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_first_and_second_derivatives_are_right(pooling: str, dropout: float) -> None:
    module = head(pooling=pooling, dropout=dropout)
    names = [name for name, _ in module.named_parameters()]
    batch = {"label": LABEL, "dropout_key": keys()}

    def loss(x: Tensor, *omega: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, omega, strict=True)), (x, batch))

    arguments = (tokens().requires_grad_(), *(p.detach().clone().requires_grad_() for p in module.parameters()))
    assert gradcheck(loss, arguments)
    assert gradgradcheck(loss, arguments)


def test_autocast_and_narrow_tokens_keep_the_head_in_float32() -> None:
    module, x = head().float(), tokens().to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module(x, {"label": LABEL})
    assert loss.dtype == torch.float32
    assert torch.equal(loss, module(x.float(), {"label": LABEL}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pooling": "max"}, ["'pooling'", "'max'", "cls", "avg"]),
        ({"dropout": 1.0}, ["'dropout'", "1.0", "[0, 1)"]),
        ({"dropout": -0.1}, ["'dropout'", "-0.1"]),
        ({"dropout": float("nan")}, ["'dropout'", "nan"]),
    ],
    ids=lambda x: str(x) if isinstance(x, dict) else "",
)
def test_bad_values_are_one_line_errors(options: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        head(**options)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("name", feedback.list_feedbacks())
def test_unknown_option_is_a_one_line_error(name: str) -> None:
    with pytest.raises(ConfigError, match=f"feedback '{name}' has no option 'wrong'; it has .+") as error:
        feedback.create(name, embed_dim=D, num_classes=C, wrong=1)
    assert "\n" not in str(error.value)


def test_unknown_feedback_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown feedback 'wrong'") as error:
        feedback.create("wrong", embed_dim=D, num_classes=C)
    assert "\n" not in str(error.value)
    assert all(name in str(error.value) for name in feedback.list_feedbacks())
