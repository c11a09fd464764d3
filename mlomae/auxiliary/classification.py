"""The control that also sees labels, without a learned mask: a classifier trained together with the reconstruction.

    λ · cross-entropy(linear(LayerNorm(mean of the kept patches' latents)), label)

It answers: would MAE gain as much by simply being told the classes of the same images? No paper's method.

Shape legend: B batch, K kept patches, D width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mlomae.auxiliary.base import AuxiliaryLoss, register
from mlomae.common.errors import DataError
from mlomae.masking.adaptive import Reconstruction


@register("classification")
class JointClassification(AuxiliaryLoss):
    """The term above, on the images of stage I, which are the training part of the split: no more labels than the
    feedback head sees. Raises DataError for images without labels."""

    def __init__(self, embed_dim: int, num_classes: int, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.norm, self.fc = nn.LayerNorm(embed_dim), nn.Linear(embed_dim, num_classes)
        nn.init.trunc_normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, seen: Reconstruction) -> Tensor:
        if seen.label is None:
            raise DataError("classification loss: the batch has no labels; give data.train a labelled source")
        z_BD = seen.latents_BKD[:, 1:].mean(dim=1)
        return self.weight * F.cross_entropy(self.fc(self.norm(z_BD)).float(), seen.label)
