"""The discriminator's convolutions have the norm 1, its losses their closed form, and real maps are rectangles."""

import pytest
import torch
from torch import Tensor

from mlomae.common import random_keys
from mlomae.masking.strategies.automae import AREA, Discriminator, SpectralConv, rectangles


def build(grid: tuple[int, int] = (6, 5), width: int = 4) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(grid, width).double()


def maps(batch: int, seed: int, length: int = 30) -> Tensor:
    return torch.randn(batch, length, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).softmax(1)


def test_a_kernel_has_the_norm_one_whatever_its_weight() -> None:
    convolution = SpectralConv(3, 5).double()
    for factor in (1e-3, 1.0, 50.0):
        with torch.no_grad():
            convolution.weight.mul_(factor)
        assert float(torch.linalg.svdvals(convolution.kernel().detach().flatten(1))[0]) == pytest.approx(1.0)
    assert dict(convolution.named_buffers()) == {}


def test_gradient_of_the_normalised_convolution() -> None:
    convolution, x = SpectralConv(2, 3, stride=2).double(), torch.randn(2, 2, 5, 5, dtype=torch.float64)

    def run(weight: Tensor) -> Tensor:
        return torch.func.functional_call(convolution, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(run, convolution.weight.detach().requires_grad_())


def test_the_losses_against_their_closed_form() -> None:
    discriminator, real, fake = build(), maps(3, 0), maps(3, 1).requires_grad_()
    scores = [discriminator(each.detach()) for each in (real, fake)]
    expected = 0.5 * (scores[0] - 1).square().mean() + 0.5 * scores[1].square().mean()
    assert float(discriminator.own_loss(real, fake).detach()) == pytest.approx(float(expected.detach()))
    assert float(discriminator.generator_loss(fake).detach()) == pytest.approx(
        float((scores[1].detach() - 1).square().mean())
    )


def test_each_loss_reaches_one_side_only() -> None:
    discriminator, fake = build(), maps(3, 1).requires_grad_()
    discriminator.own_loss(maps(3, 0), fake).backward()
    assert fake.grad is None
    assert all(p.grad.abs().sum() > 0 for p in discriminator.parameters())
    discriminator.zero_grad()
    discriminator.generator_loss(fake).backward()
    assert fake.grad.abs().sum() > 0
    assert all(p.grad is None for p in discriminator.parameters())


def test_it_learns_to_tell_rectangles_from_noise() -> None:
    discriminator = build((8, 8)).float()
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    key = random_keys.fold(0, torch.arange(64))
    real = (3 * rectangles(random_keys.uniform(key, 4), (8, 8)) + random_keys.uniform(key, 64, salt=1)).softmax(dim=1)
    fake = (3 * random_keys.uniform(key, 64, salt=2)).softmax(dim=1)
    for _ in range(60):
        loss = discriminator.own_loss(real, fake)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert discriminator(real).mean() > discriminator(fake).mean() + 0.2


@pytest.mark.parametrize("grid", [(14, 14), (8, 8), (2, 2), (3, 9)])
def test_rectangles_are_compact_and_of_the_area_that_is_asked(grid: tuple[int, int]) -> None:
    cells = rectangles(random_keys.uniform(random_keys.fold(0, torch.arange(2_000)), 4), grid).view(-1, *grid)
    rows, columns = cells.amax(dim=2), cells.amax(dim=1)
    area = rows.sum(dim=1) * columns.sum(dim=1)
    assert torch.equal(cells.sum(dim=(1, 2)), area), "all cells of some rows and columns, and no other"
    assert torch.equal(cells, rows[:, :, None] * columns[:, None])
    for side in (rows, columns):
        assert (side.diff(dim=1).abs().sum(dim=1) + side[:, 0] + side[:, -1] == 2).all(), "successive ones"
    length = grid[0] * grid[1]
    if grid == (14, 14):
        share = area / length
        assert AREA[0] - 0.05 < float(share.min()) < AREA[0] + 0.03
        assert AREA[1] - 0.05 < float(share.max()) < AREA[1] + 0.05
        assert float(share.mean()) == pytest.approx(sum(AREA) / 2, abs=0.02)
        assert (cells.mean(dim=0) > 0.05).all(), "anywhere"
