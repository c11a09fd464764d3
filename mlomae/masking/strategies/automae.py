"""AutoMAE: a generator draws masks from a teacher's attention, by Gumbel-softmax and against a discriminator.

Source: Chen et al., "Improving Masked Autoencoders by Learning Where to Mask", PRCV 2023. No official code is public;
details follow an unofficial copy of unknown author. For one image, with a the teacher's attention from the class token:

    π = softmax(convs(a));   s = softmax(log π + Gumbel noise), a soft map;   h = 1 at the K largest of s, else 0
    noise = u + strength · h,  u uniform;  the K patches with the least noise stay visible
    loss = L_I + 0.2 · generator's loss on s  (+ the discriminator's own)

So patches that the generator picks are removed more often, not always. For the gradient h is replaced by s
(straight-through) and the noise multiplies the tokens (`Mask.gate`, 1 in value), so that the reconstruction error
reaches the generator.

Shape legend: B batch, H heads, L patches, K kept patches.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mlomae.common.precision import wide
from mlomae.common.registry import check_range
from mlomae.masking.base import AdaptiveMasking, MaskState, Reconstruction, choose, register
from mlomae.masking.discriminator import Discriminator, rectangles
from mlomae.masking.sampling import gumbel
from mlomae.masking.teacher import TaughtMasking
from mlomae.models import MAE
from mlomae.models.mask import Mask, keep_count


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
    generator, discriminator and MAE take their steps together, with one optimizer. The sides of the rectangles are
    ours.

    Raises ConfigError for negative weights and what `Teacher` refuses.
    """

    generator: nn.Module

    def __init__(
        self, embed_dim: int, grid: tuple[int, int], adversarial: float = 0.2, strength: float = 0.5, **teaching: Any
    ) -> None:
        super().__init__(embed_dim, grid, **teaching)
        check_range("automae mask", "[0, inf)", adversarial=adversarial, strength=strength)
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
        return (wide(logits_BL) + gumbel(state.uniform(length, salt=1))).softmax(dim=1)

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
