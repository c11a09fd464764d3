"""ADIOS: an adversary paints N soft masks over the image and learns to remove what is hardest to reconstruct.

Source: Shi et al., "Adversarial Masking for Self-Supervised Learning", ICML 2022. A network gives every pixel N
probabilities m that sum to 1; it maximises the loss that the encoder minimises, with a penalty on extreme areas:

    α · mean over images and masks of  1 / (sin(π · area) + 1e-10),    area = mean of m over the image

Shape legend: B batch, N masks, L patches, S image side, gh gw patch grid.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlomae.common.precision import wide
from mlomae.common.registry import Count, NotNegative
from mlomae.masking.base import AdaptiveMasking, Mask, MaskState, Reconstruction, choose, register


class MaskNet(nn.Module):
    """Convolutions on the image, on its patches, and on cells of 2 x 2 patches: (B, 3, S, S) -> (B, N, L) logits."""

    def __init__(self, grid: tuple[int, int], masks: int, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.pixels = nn.Conv2d(3, width, 3, padding=1)
        self.cells = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.patches = nn.Conv2d(3 * width, width, 3, padding=1)
        self.head = nn.Conv2d(width, masks, 1)

    def forward(self, images: Tensor) -> Tensor:
        gh, gw = self.grid
        fine = F.avg_pool2d(F.gelu(self.pixels(images)), (images.shape[2] // gh, images.shape[3] // gw))
        coarse = F.gelu(self.cells(F.avg_pool2d(fine, 2, ceil_mode=True)))
        coarse = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :gh, :gw]
        return self.head(F.gelu(self.patches(torch.cat([fine, coarse], dim=1)))).flatten(2)


def area_penalty(m_BNL: Tensor) -> Tensor:
    """The penalty of the module docstring without α; at its minimum, 1 / sin(π / N), all masks have the area 1 / N."""
    return (1.0 / ((math.pi * m_BNL.mean(dim=-1)).sin() + 1e-10)).mean()


@register("adios")
@dataclass(eq=False, repr=False)
class ADIOSMasking(AdaptiveMasking):
    """One of an image's N masks, drawn at random in every step (the paper's ADIOS-s), gives the odds of removal.

    - ``masks``: N, the paper's 6; ``alpha``: α, about 0.9 to 1 in the published runs; ``width``: of the network.

    Budget: exactly L - ⌊(1 - ratio) L⌋ patches are removed, a sample without replacement with odds q, the drawn mask
    (Gumbel noise on log q).

    The gradient of the adversary: a removed patch is gone, so no derivative of the error by q passes through it.
    Instead, the score function is used, with the mean error of the image's removed patches as its baseline,

        mean over removed patches of  (recᵢ - mean rec) · ∂ log qᵢ

    which is the gradient of the straight-through weight qᵢ / const(qᵢ) on the error, minus the baseline. If the patches
    were drawn with replacement and errors did not depend on what else is removed, it would be the gradient of the
    expected error; what a removed patch does to its neighbours is left out. Thanks to the baseline the sum of all odds
    does not matter, and the mask's area is left to the penalty. Errors are constants here, so the MAE gets no gradient.

    Changed: the loss is the reconstruction error and masks are hard, of a fixed number of patches, where the paper
    multiplies the image by soft masks; both players take their steps together, with one optimizer; instead of the
    paper's U-Net on pixels, a small one whose masks have the resolution of the patches.

    Raises ConfigError for fewer than 2 masks, a negative α and a width below 1.
    """

    sees = "nothing"
    masks: Annotated[int, "[2, inf)"] = 6
    alpha: NotNegative = 1.0
    width: Count = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self.net = MaskNet(self.grid, self.masks, self.width)

    def log_masks(self, images: Tensor) -> Tensor:
        """log m, (B, N, L), at least float32."""
        return wide(self.net(images)).log_softmax(dim=1)

    def drawn(self, log_m_BNL: Tensor, state: MaskState) -> Tensor:
        """log q of the mask drawn for each image, (B, L)."""
        number_B = (state.uniform(1, salt=1)[:, 0] * self.masks).long()
        return log_m_BNL[torch.arange(len(number_B), device=number_B.device), number_B]

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        log_m_BNL = self.log_masks(images)
        log_q_BL = self.drawn(log_m_BNL.detach(), state)
        scores_BL = log_q_BL + state.gumbel(log_q_BL.shape[1])
        return replace(choose(scores_BL, ratio, state), choice=log_m_BNL)

    def own_loss(self, seen: Reconstruction) -> Tensor:
        rec_BR = seen.rec_BR.detach()
        excess_BR = rec_BR - rec_BR.mean(dim=1, keepdim=True)
        gain = (excess_BR * seen.mask.of_removed(self.drawn(seen.choice, seen.state))).mean()
        return self.alpha * area_penalty(seen.choice.exp()) - gain
