"""AutoMAE: a generator draws masks from a teacher's attention, by Gumbel-softmax and against a discriminator.

Source: Chen et al., "Improving Masked Autoencoders by Learning Where to Mask", PRCV 2023. No official code is public;
details follow an unofficial copy of unknown author. For one image, with a the teacher's attention from the class token:

    π = softmax(convs(a));   s = softmax(log π + Gumbel noise), a soft map;   h = 1 at the K largest of s, else 0
    noise = u + strength · h,  u uniform;  the K patches with the least noise stay visible
    loss = L_I + 0.2 · generator's loss on s  (+ the discriminator's own)

So patches that the generator picks are removed more often, not always. The reconstruction error reaches the generator
because for the gradient s replaces h (straight-through) and the noise multiplies the tokens (`Mask.gate`, 1 in value).

Maps are judged by a discriminator: noisy rectangles are real, the generator's maps are fake. Least-squares losses (Mao
et al., "Least Squares Generative Adversarial Networks", ICCV 2017), D a map's scores:

    discriminator:  ½ · mean (D(real) - 1)² + ½ · mean D(fake)²,  fake a constant
    generator:      mean (D(fake) - 1)²,                          D's weights constants

Its convolutions are divided by their largest singular value (Miyato et al., "Spectral Normalization for Generative
Adversarial Networks", ICLR 2018). It is computed exactly instead of by power iteration, whose vectors would be a state
that depends on the number of calls: the kernels are small, and so ranks, chunks and resumed runs agree without effort.

Shape legend: B batch, H heads, L patches, gh gw patch grid, K kept patches, C scores of a map.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from mlomae.common.precision import wide
from mlomae.common.registry import NotNegative
from mlomae.masking.base import AdaptiveMasking, MaskState, Reconstruction, choose, register
from mlomae.masking.sampling import inside, rectangle
from mlomae.masking.teacher import TaughtMasking
from mlomae.models import MAE, Mask, keep_count

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
    """Scores (B, C), at least float32, of maps (B, L) that sum to 1; times L, so that the grid size does not matter."""

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
    """One rectangle per map, (B, L) float 0 or 1: uniform area and place, aspect up to 2 where the grid allows it."""
    gh, gw = grid
    area_B, aspect_B, top_B, left_B = uniform_B4.unbind(1)
    area_B = (AREA[0] + (AREA[1] - AREA[0]) * area_B) * gh * gw
    height_B = (area_B.sqrt() * torch.exp((0.5 - aspect_B) * math.log(2.0))).round().clamp(1, gh)
    width_B = (area_B / height_B).round().clamp(1, gw)
    rows = inside((top_B * (gh - height_B + 1)).floor(), height_B, gh)
    columns = inside((left_B * (gw - width_B + 1)).floor(), width_B, gw)
    return rectangle(rows, columns).float().flatten(1)


@register("automae")
class AutoMAEMasking(TaughtMasking, AdaptiveMasking):
    """The masks of the module docstring.

    - ``adversarial``: weight of the generator's loss; ``strength``: weight of the chosen patches in the noise.
    - ``teacher``, ``decay``, ``teacher_size``: see `mlomae.masking.teacher.Teacher`. The paper's is an MAE trained for
      800 epochs and frozen; the default here is a copy that follows the encoder, which needs no other model.

    Real maps for the discriminator are softmax(0.5 · rectangle + u), the rectangle drawn at random: masks should be
    compact, but differ. Budget: exactly ⌊(1 - ratio) L⌋ patches are visible.

    The gate scales a visible token up where the generator raises s, and the generator minimises L_I: it picks patches
    that help the reconstruction most, and these are removed more often.

    Changed: attention, and maps for the discriminator, are multiplied by L, so that the size of the grid does not
    matter; the last convolution of the discriminator is padded, for small grids; the singular values are exact;
    generator, discriminator and MAE step together, with one optimizer. The sides of the rectangles are ours.

    Raises ConfigError for negative weights and what `Teacher` refuses.
    """

    generator: nn.Module

    def __init__(
        self,
        embed_dim: int,
        grid: tuple[int, int],
        adversarial: NotNegative = 0.2,
        strength: NotNegative = 0.5,
        **teaching: Any,
    ) -> None:
        super().__init__(embed_dim, grid, **teaching)
        self.adversarial, self.strength = adversarial, strength
        self.discriminator = Discriminator(grid)

    def attach(self, mae: MAE) -> None:
        super().attach(mae)
        heads = self.teacher.model.blocks[-1].attn.num_heads
        hidden = max(1, heads // 2)
        self.generator = nn.Sequential(
            nn.Conv2d(heads, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, 1, 3, padding=1, bias=False)
        )

    def soft_map(self, attention_BHL: Tensor, state: MaskState) -> Tensor:
        """s, (B, L), at least float32."""
        length = attention_BHL.shape[2]
        logits_BL = self.generator(length * attention_BHL.unflatten(2, self.grid)).flatten(1)
        return (wide(logits_BL) + state.gumbel(length, salt=1)).softmax(dim=1)

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        soft_BL = self.soft_map(self.teacher.attention(images), state)
        kept = keep_count(soft_BL.shape[1], ratio)
        chosen_BK = torch.argsort(soft_BL.detach(), dim=1, descending=True, stable=True)[:, :kept]
        hard_BL = torch.zeros_like(soft_BL).scatter(1, chosen_BK, 1.0)
        mask = choose(state.uniform(soft_BL.shape[1]) + self.strength * hard_BL, ratio, state)
        # 1 in value, with the derivative of the noise by s; in this order of operations the value is exactly 1
        return replace(mask, gate=1.0 + self.strength * (soft_BL - soft_BL.detach()), choice=soft_BL)

    def own_loss(self, seen: Reconstruction) -> Tensor:
        fake_BL, state = seen.choice, seen.state
        noise_BL = state.uniform(fake_BL.shape[1], salt=2)
        real_BL = (0.5 * rectangles(state.uniform(4, salt=3), self.grid) + noise_BL).softmax(dim=1).to(fake_BL.dtype)
        fooling = self.adversarial * self.discriminator.generator_loss(fake_BL)
        return fooling + self.discriminator.own_loss(real_BL, fake_BL)
