"""Detection feedback: boxes around classes by hand, its gradient, and what does not count."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.func import functional_call

from mlomae import feedback
from mlomae.data import IGNORE
from mlomae.feedback.detection import BETA, DetectionFeedback
from mlomae.feedback.linear import SegmentationFeedback

B, GRID, P, D, C = 3, 4, 3, 6, 4
L, S = GRID * GRID, GRID * P


def head(**options: float) -> DetectionFeedback:
    torch.manual_seed(0)
    module = feedback.create("detection", embed_dim=D, num_classes=C, **options)
    assert isinstance(module, DetectionFeedback)
    for layer in (module.fc, module.box):
        nn.init.normal_(layer.weight)
    return module.double()


def tokens() -> Tensor:
    return torch.randn(B, 1 + L, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def batch() -> dict[str, Tensor]:
    """An object of class 2 over whole patches, one of class 3 that ends within patches, an image without any."""
    label = torch.zeros(B, S, S, dtype=torch.uint8)
    label[0, 3:9, 6:12] = 2
    label[1, 0:5, 2:9] = 3
    label[1, 9:] = IGNORE
    return {"pixel_label": label}


def targets_of(module: DetectionFeedback, given: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    return module.targets(given["pixel_label"], module.counts(given, module.predict(x, None, None)))


def test_targets_are_distances_to_the_box() -> None:
    module, given = head(), batch()
    targets, is_object = targets_of(module, given, tokens())
    assert is_object[0].view(GRID, GRID).nonzero().tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]
    # rows 0 to 4 and columns 2 to 8: patches with more than half of their pixels inside
    assert is_object[1].view(GRID, GRID).nonzero().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert not is_object[2].any()
    for image, (left, top, right, bottom) in {0: (6, 3, 12, 9), 1: (2, 0, 9, 5)}.items():
        for patch in is_object[image].nonzero().flatten().tolist():
            x, y = (patch % GRID + 0.5) * P, (patch // GRID + 0.5) * P
            expected = torch.tensor([x - left, y - top, right - x, bottom - y], dtype=torch.float64) / S
            torch.testing.assert_close(targets[image, patch], expected)


def test_the_loss_is_the_segmentations_and_that_of_the_boxes() -> None:
    module, x, given = head(weight=0.7), tokens(), batch()
    targets, is_object = targets_of(module, given, x)
    boxes, sums = module.boxes(x), []
    for image in range(B):
        total = 0.0
        for patch in is_object[image].nonzero().flatten().tolist():
            for off in (boxes[image, patch] - targets[image, patch]).abs().tolist():
                total += 0.5 * off**2 / BETA if off < BETA else off - 0.5 * BETA
        sums.append(total / max(1, int(is_object[image].sum())))
    expected = float(SegmentationFeedback.forward(module, x, given)) + 0.7 * sum(sums) / B
    assert float(module(x, given)) == pytest.approx(expected, rel=1e-12)
    assert sums[2] == 0.0
    assert float(head(weight=0.0)(x, given)) == pytest.approx(float(SegmentationFeedback.forward(module, x, given)))


def test_gradients_in_tokens_and_head() -> None:
    module, given = head(), batch()
    x = tokens().requires_grad_()
    parameters = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
    assert gradcheck(
        lambda x, *values: functional_call(module, dict(zip(parameters, values, strict=True)), (x, given)),
        (x, *parameters.values()),
    )
    found = torch.autograd.grad(module(x, given), x)[0]
    assert float(found[:, 0].abs().max()) == 0.0, "the class token is not read"
    assert float(found[2, 1:].abs().max()) > 0.0, "the background counts in the classes"


def test_another_class_may_be_the_background() -> None:
    module, given = head(background=2), batch()
    _, is_object = targets_of(module, given, tokens())
    assert not is_object[0].view(GRID, GRID)[1:3, 2:].any()
    assert is_object[2].all(), "and class 0 an object"
