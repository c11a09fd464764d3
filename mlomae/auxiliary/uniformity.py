"""U-MAE's uniformity term: class tokens of different images should not point the same way.

    λ · mean over pairs (i, j), i = j included, of cos²(z_i, z_j)

z_i the class token's latent of the masked image i. Source: Zhang, Wang, Wang, "How Mask Matters: Towards Theoretical
Understandings of Masked Autoencoders", NeurIPS 2022, λ = 0.01.

Shape legend: B batch, K kept patches, D width.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mlomae.auxiliary.base import AuxiliaryLoss, register
from mlomae.masking.adaptive import Reconstruction


@register("uniformity")
class Uniformity(AuxiliaryLoss):
    """The term above. It couples the images of a batch: ranks and chunks take the pairs within their own part, which
    weighs the pairs (i, i), a constant 1, more; the published code gathers all ranks."""

    def __init__(self, embed_dim: int, num_classes: int, weight: float = 0.01) -> None:
        super().__init__(weight)

    def forward(self, seen: Reconstruction) -> Tensor:
        z_BD = F.normalize(seen.latents_BKD[:, 0].float(), dim=1)
        return self.weight * (z_BD @ z_BD.T).square().mean()
