"""A discriminator of mask maps: noisy rectangles are real, the maps of a generator are fake.

Least-squares losses (Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017), D a map's scores:

    discriminator:  ½ · mean (D(real) - 1)² + ½ · mean D(fake)²,  fake a constant
    generator:      mean (D(fake) - 1)²,                          D's weights constants

Convolutions are divided by their largest singular value (Miyato et al., "Spectral Normalization for Generative
Adversarial Networks", ICLR 2018). It is computed exactly instead of by power iteration, whose vectors would be a state
that depends on the number of calls: the kernels are small, and so ranks, chunks and resumed runs agree without effort.

Shape legend: B batch, L patches of a map, gh gw patch grid, C scores of a map.
"""

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from mlomae.common.precision import wide
from mlomae.masking.sampling import inside, rectangle

AREA = (40 / 196, 160 / 196)  # of a rectangle, as shares of all patches


class SpectralConv(nn.Module):
    """A 3 x 3 convolution without bias whose kernel, as a matrix (outputs, inputs · 9), has the spectral norm 1."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(nn.Conv2d(inputs, outputs, 3, bias=False).weight.detach())

    def kernel(self) -> Tensor:
        return self.weight / torch.linalg.matrix_norm(self.weight.flatten(1), ord=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.conv2d(x_BCHW, self.kernel(), stride=self.stride, padding=1)


class Discriminator(nn.Module):
    """Scores (B, C), at least float32, of maps (B, L) that sum to 1; they are multiplied by L, so that the size of the
    grid does not matter."""

    def __init__(self, grid: tuple[int, int], width: int = 16) -> None:
        super().__init__()
        self.grid = grid
        self.layers = nn.Sequential(
            SpectralConv(1, width),
            nn.LeakyReLU(0.2),
            SpectralConv(width, 2 * width, stride=2),
            nn.LeakyReLU(0.2),
            SpectralConv(2 * width, 1),
        )

    def forward(self, map_BL: Tensor) -> Tensor:
        return wide(self.layers(map_BL.shape[1] * map_BL.unflatten(1, (1, *self.grid))).flatten(1))

    def own_loss(self, real_BL: Tensor, fake_BL: Tensor) -> Tensor:
        """The discriminator's loss; its gradient does not reach the generator."""
        return 0.5 * ((self(real_BL) - 1).square().mean() + self(fake_BL.detach()).square().mean())

    def generator_loss(self, fake_BL: Tensor) -> Tensor:
        """The generator's loss; its gradient does not reach the discriminator's weights."""
        constants = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return (functional_call(self, constants, (fake_BL,)) - 1).square().mean()


def rectangles(uniform_B4: Tensor, grid: tuple[int, int]) -> Tensor:
    """One rectangle per map, (B, L) float 0 or 1: uniform area, sides that differ by a factor of 2 at most if the grid
    allows it, uniform place."""
    gh, gw = grid
    area_B, aspect_B, top_B, left_B = uniform_B4.unbind(1)
    area_B = (AREA[0] + (AREA[1] - AREA[0]) * area_B) * gh * gw
    height_B = (area_B.sqrt() * torch.exp((0.5 - aspect_B) * math.log(2.0))).round().clamp(1, gh)
    width_B = (area_B / height_B).round().clamp(1, gw)
    rows = inside((top_B * (gh - height_B + 1)).floor(), height_B, gh)
    columns = inside((left_B * (gw - width_B + 1)).floor(), width_B, gw)
    return rectangle(rows, columns).float().flatten(1)
