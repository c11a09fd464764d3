"""Segmentation feedback against the loss pixel by pixel, its gradient in closed form, and what it counts as right."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.nn import functional as F

from mlomae import feedback
from mlomae.common.errors import DataError
from mlomae.data import IGNORE, build_augment, build_source
from mlomae.data.streams import Stream
from mlomae.feedback.linear import SegmentationFeedback

B, GRID, P, D, C = 3, 4, 3, 6, 4
L, S = GRID * GRID, GRID * P


def head() -> SegmentationFeedback:
    torch.manual_seed(0)
    module = feedback.create("segmentation", embed_dim=D, num_classes=C)
    assert isinstance(module, SegmentationFeedback)
    nn.init.normal_(module.fc.weight)
    return module.double()


def tokens() -> Tensor:
    return torch.randn(B, 1 + L, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def batch() -> dict[str, Tensor]:
    """A third of the pixels has no label; one patch and most of the last image have none at all."""
    generator = torch.Generator().manual_seed(2)
    label = torch.randint(C, (B, S, S), generator=generator, dtype=torch.uint8)
    label[torch.rand(B, S, S, generator=generator) < 0.33] = IGNORE
    label[0, :P, :P] = IGNORE
    label[2, P:] = IGNORE
    return {"pixel_label": label}


def scores_of_pixels(module: SegmentationFeedback, x: Tensor) -> Tensor:
    """(B, C, S, S), a patch's scores at all its pixels."""
    scores = module.predict(x, None, None)
    return scores.mT.reshape(B, C, GRID, GRID).repeat_interleave(P, 2).repeat_interleave(P, 3)


def test_the_loss_is_the_cross_entropy_of_every_pixel() -> None:
    module, x, given = head(), tokens(), batch()
    pixels = scores_of_pixels(module, x)
    pairs = zip(pixels, given["pixel_label"], strict=True)
    each = [F.cross_entropy(p[None], t[None].long(), ignore_index=IGNORE) for p, t in pairs]
    torch.testing.assert_close(module(x, given), torch.stack(each).mean())


def test_the_gradient_in_closed_form() -> None:
    """∂L/∂W = mean over images of (1/N) Σ_l (N_l softmax_l − n_l) norm(z_l)ᵀ, N_l the labelled pixels of patch l."""
    module, x, given = head(), tokens(), batch()
    found = torch.autograd.grad(module(x, given), [module.fc.weight, module.fc.bias])
    z = module.norm(x[:, 1:])
    q = (z @ module.fc.weight.T + module.fc.bias).softmax(2)
    n = torch.zeros(B, L, C, dtype=torch.float64)
    for b in range(B):
        for row in range(S):
            for column in range(S):
                label = int(given["pixel_label"][b, row, column])
                if label != IGNORE:
                    n[b, row // P * GRID + column // P, label] += 1
    delta = (n.sum(2, keepdim=True) * q - n) / n.sum((1, 2), keepdim=True) / B
    torch.testing.assert_close(found[0], torch.einsum("blc,bld->cd", delta, z))
    torch.testing.assert_close(found[1], delta.sum((0, 1)))


def test_it_is_twice_differentiable_in_head_and_tokens() -> None:
    module, given = head(), {"pixel_label": batch()["pixel_label"][:2]}

    def loss(z: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        return functional_call(module, {"fc.weight": weight, "norm.weight": scale}, (z, given))

    inputs = [p.detach().requires_grad_() for p in (tokens()[:2], module.fc.weight, module.norm.weight)]
    assert gradcheck(loss, inputs)
    assert gradgradcheck(loss, inputs)


def test_the_loss_of_a_batch_is_the_mean_of_its_images() -> None:
    module, x, given = head(), tokens(), batch()
    parts = [module(x[i : i + 1], {k: v[i : i + 1] for k, v in given.items()}) for i in range(B)]
    torch.testing.assert_close(module(x, given), torch.stack(parts).mean())


def test_unlabelled_pixels_count_nowhere() -> None:
    module, x, given = head(), tokens().requires_grad_(), batch()
    (gradient,) = torch.autograd.grad(module(x, given), x)
    assert (gradient[:, 0] == 0).all(), "the class token has no part in it"
    assert (gradient[0, 1] == 0).all()
    assert (gradient[2, 1 + GRID :] == 0).all()
    assert (gradient[0, 2:] != 0).any(dim=1).all()
    nothing = {"pixel_label": torch.full((B, S, S), IGNORE, dtype=torch.uint8)}
    assert float(module(x, nothing)) == 0
    assert len(module.correct(module.predict(x, None, None), nothing)) == 0


def test_right_is_the_share_of_labelled_pixels() -> None:
    module, x, given = head(), tokens(), batch()
    predicted, truth = scores_of_pixels(module, x).argmax(1), given["pixel_label"]
    known = truth != IGNORE
    expected = [float((predicted[b] == truth[b])[known[b]].double().mean()) for b in range(B)]
    assert module.correct(module.predict(x, None, None), given).tolist() == pytest.approx(expected)


def test_bf16_tokens_give_a_float32_loss() -> None:
    module = head().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(tokens().bfloat16(), batch()).dtype == torch.float32


def test_a_batch_without_labels_of_pixels_is_refused() -> None:
    with pytest.raises(DataError, match="no pixel labels; set data.feedback") as error:  # noqa: RUF043
        head()(tokens(), {"label": torch.zeros(B)})
    assert "\n" not in str(error.value)
    assert feedback.is_dense("segmentation")
    assert not any(feedback.is_dense(name) for name in ("linear", "ridge", "nca"))


def test_a_head_learns_the_textures_from_their_pixels() -> None:
    """Tokens are the patches' own pixels, sorted by brightness: texture against background is there to be found."""
    source = build_source({"type": "textures", "count": 64, "size": 32, "classes": 2})
    data = Stream(source, None, build_augment({"type": "PadCropFlip", "size": 32}), 0, "head", pixels=True).batch(0, 64)
    patches = data["image"].mean(1).unfold(1, 8, 8).unfold(2, 8, 8).reshape(64, 16, 64).sort(dim=2).values
    x = torch.cat([patches[:, :1] * 0, patches], dim=1)
    module = feedback.create("segmentation", embed_dim=64, num_classes=len(source.pixel_classes))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    losses = []
    for _ in range(150):
        loss = module(x, data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    label = data["pixel_label"]
    constant = float((label[label != IGNORE] == 0).float().mean())
    right = float(module.correct(module.predict(x, None, None), data).mean())
    assert losses[-1] < 0.8 * losses[0]
    assert right > constant + 0.05
