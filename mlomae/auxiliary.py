"""Auxiliary losses, added to the reconstruction loss: controls that change the loss and not the mask.

    classification   λ · cross-entropy(linear(LayerNorm(mean of the kept patches' latents)), label)
    uniformity       λ · mean over pairs (i, j), i = j included, of cos²(z_i, z_j)

`create` builds one by name. Shape legend: B batch, K kept patches, D width.
"""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from mlomae.common.errors import DataError
from mlomae.common.precision import wide
from mlomae.common.ranks import gather
from mlomae.common.registry import NotNegative, Registry
from mlomae.masking import Reconstruction


class AuxiliaryLoss(nn.Module):
    """A term added to L_I; its parameters, if any, move together with θ.

    Attributes:
        couples: whether the term is not a mean over images; it is then to be taken on those of all ranks
            (`mlomae.common.ranks.gather`).
    """

    couples = False

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, seen: Reconstruction) -> Tensor:
        """The weighted term, a scalar, mean over the images unless it ``couples`` them."""
        raise NotImplementedError


_AUXILIARIES = Registry[AuxiliaryLoss]("auxiliary loss")
register = _AUXILIARIES.register
is_coupling = partial(_AUXILIARIES.has, "couples")


def create(name: str, *, embed_dim: int, num_classes: int, **kwargs: object) -> AuxiliaryLoss:
    """Build an auxiliary loss; raises ConfigError for an unknown name or option, or a negative weight."""
    return _AUXILIARIES.build(name, kwargs, embed_dim=embed_dim, num_classes=num_classes)


@register("classification")
class JointClassification(AuxiliaryLoss):
    """The control that also sees labels, without a learned mask: a classifier trained together with the reconstruction.

    It answers the question: would MAE gain as much by simply being told the classes of the same images? Not a published
    method. The images are those of stage I, the training part of the split: no more labels than the feedback head sees.
    Raises DataError for images without labels.
    """

    def __init__(self, embed_dim: int, num_classes: int, weight: NotNegative = 1.0) -> None:
        super().__init__(weight)
        self.norm, self.fc = nn.LayerNorm(embed_dim), nn.Linear(embed_dim, num_classes)
        nn.init.trunc_normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, seen: Reconstruction) -> Tensor:
        if seen.label is None:
            raise DataError("classification loss: the batch has no labels; give data.train a labelled source")
        z_BD = seen.latents_BKD[:, 1:].mean(dim=1)
        return self.weight * F.cross_entropy(wide(self.fc(self.norm(z_BD))), seen.label)


@register("uniformity")
class Uniformity(AuxiliaryLoss):
    """U-MAE's term: class tokens of different images should not point in the same direction.

    z_i is the class token's latent of the masked image i. The pairs are those of the global batch, gathered over ranks
    as in the published code. Chunks (``train.accumulate``) take the pairs within their own part, so that pairs (i, i),
    a constant 1, count more.
    Source: Zhang, Wang, Wang, "How Mask Matters: Towards Theoretical Understandings of Masked Autoencoders", NeurIPS
    2022, λ = 0.01.
    """

    couples = True

    def __init__(self, embed_dim: int, num_classes: int, weight: NotNegative = 0.01) -> None:
        super().__init__(weight)

    def forward(self, seen: Reconstruction) -> Tensor:
        z_BD = gather(F.normalize(wide(seen.latents_BKD[:, 0]), dim=1))
        return self.weight * (z_BD @ z_BD.T).square().mean()
