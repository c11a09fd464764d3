"""Self-guided MAE: patches of the cluster that looks like the object are removed first, by the model's own features.

Source: Shin et al., "Self-Guided Masked Autoencoder", NeurIPS 2024. The patches of an image are split in two by a
normalised cut of the graph of their features' cosine similarities (`mlomae.masking.teacher`); patches are removed in
the order of their similarity to the mean of the object's cluster, except a few random hints that stay visible.

Shape legend: B batch, S image side, L patches, D width of the features.
"""

from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mlomae.common.precision import full_precision
from mlomae.common.registry import Share
from mlomae.masking.base import MaskState, register
from mlomae.masking.sampling import ranks, share_of, uncover
from mlomae.masking.teacher import TaughtMasking, normalised_cut, unit
from mlomae.models import keep_count

HintShare = Annotated[float, "[0, 1)"]
_TIES, _HINTS = range(2)  # salts


def object_side(side_BL: Tensor, grid: tuple[int, int]) -> Tensor:
    """The side with the smaller share of its patches on the image's border, if equal the smaller side; (B, L) bool."""
    border = torch.ones(grid, dtype=torch.bool, device=side_BL.device)
    border[1:-1, 1:-1] = False
    size, other_size = side_BL.sum(dim=1), (~side_BL).sum(dim=1)
    on_border, other_on_border = ((part & border.flatten()).sum(dim=1) for part in (side_BL, ~side_BL))
    share, other_share = on_border * other_size, other_on_border * size  # times both sizes: compared without dividing
    is_object = (share < other_share) | ((share == other_share) & (size <= other_size))
    return side_BL == is_object.unsqueeze(1)


@register("self_guided")
class SelfGuidedMasking(TaughtMasking):
    """Random masks at first; then the object's cluster is removed before the rest, except a few hints.

    - ``start``: share of the run with random masks. The paper begins when the decoder uses mask tokens more than
      visible ones, at about epoch 50 of 800; a tenth is ours, for shorter runs.
    - ``hint``: share of the patches to remove, ⌊hint · (L - K)⌋, that stay visible, drawn uniformly; the next ones in
      the order are removed instead. The value is ours.
    - ``teacher``, ``decay``, ``teacher_size``: see `mlomae.masking.teacher.Teacher`; ``decay`` 0 is the encoder itself.

    Budget: exactly K = ⌊(1 - ratio) L⌋ patches are visible. A cluster smaller than the budget is removed as a whole
    (except hints), and so are the background's patches most like it; of a larger one those least like its mean stay.

    Ours, because we could not find the paper's details: features minus their mean, of the last layer of a moving
    average of the encoder; the weights of the graph; which cluster is the object (`object_side`).

    Raises ConfigError for values out of range, and what `Teacher` raises.
    """

    scheduled = True

    def __init__(
        self, embed_dim: int, grid: tuple[int, int], start: Share = 0.1, hint: HintShare = 0.1, **teaching: Any
    ) -> None:
        super().__init__(embed_dim, grid, **teaching)
        self.start, self.hint = start, hint

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        if state.progress < self.start:
            return state.uniform(self.length, _TIES)
        features_BLD = self.teacher.features(images)
        with full_precision(images.device):
            return self.ranking_of(unit(features_BLD), ratio, state)

    def ranking_of(self, unit_BLD: Tensor, ratio: float, state: MaskState) -> Tensor:
        """Scores (B, L) from centred features of length 1."""
        object_BL = object_side(normalised_cut(unit_BLD), self.grid)
        mean_BD = (unit_BLD * object_BL.unsqueeze(2)).sum(dim=1)  # its length does not matter
        similarity_BL = torch.einsum("bld,bd->bl", unit_BLD, F.normalize(mean_BD, dim=1))
        length = unit_BLD.shape[1]
        order_BL = ranks(similarity_BL + 3 * object_BL, state.uniform(length, _TIES))  # cosines span 2
        kept = keep_count(length, ratio)
        hints = min(share_of(length - kept, self.hint), kept)
        return uncover(order_BL, length - kept, hints, state.uniform(length, _HINTS))
