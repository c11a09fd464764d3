"""SemMAE: patches are grouped into semantic parts; first a share of every part is removed, in the end whole parts.

Source: Li et al., "SemMAE: Semantic-Guided Masking for Learning Masked Autoencoders", NeurIPS 2022. At the start
round(ratio · n) patches of a part with n are removed, so that some of every part is visible; at the end whole parts are
removed, in random order, until the budget is used. In between the number is λ times the first plus 1 - λ times the
second, rounded, with λ = 1 - progress².

Shape legend: B batch, S image side, L patches, P parts, D width of the features.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mlomae.common.precision import full_precision
from mlomae.common.registry import Count
from mlomae.masking.base import MaskState, register
from mlomae.masking.sampling import gumbel, ranks
from mlomae.masking.teacher import TaughtMasking
from mlomae.models import keep_count

ROUNDS = 5  # of k-means
_SEEDS, _SHUFFLE, _ORDER, _CUT = range(4)  # salts


def cluster(features_BLD: Tensor, noise_BPL: Tensor) -> Tensor:
    """Part of every patch, (B, L) int64 below P: k-means on features of unit length, each image separately.

    The first centres are patches drawn one after another, with odds given by the squared distance to the nearest centre
    (k-means++; Arthur and Vassilvitskii, 2007). A part may be empty; equal features are all in the first.
    """
    x_BLD = F.normalize(features_BLD, dim=2)
    distance_BL = torch.full_like(x_BLD[..., 0], 2.0)  # 1 - cosine, half the squared distance; 2 is its largest value
    chosen = []
    for noise_BL in noise_BPL.unbind(1):
        pick = (distance_BL.clamp(min=1e-12).log() + gumbel(noise_BL)).argmax(dim=1)
        chosen.append(x_BLD[torch.arange(len(pick), device=pick.device), pick])
        distance_BL = torch.minimum(distance_BL, 1 - torch.einsum("bld,bd->bl", x_BLD, chosen[-1]))
    centre_BPD = torch.stack(chosen, dim=1)
    for _ in range(ROUNDS):
        member_BLP = F.one_hot((x_BLD @ centre_BPD.mT).argmax(dim=2), len(chosen)).to(x_BLD.dtype)
        moved_BPD = F.normalize(member_BLP.mT @ x_BLD, dim=2)
        centre_BPD = torch.where(member_BLP.any(dim=1).unsqueeze(2), moved_BPD, centre_BPD)
    return (x_BLD @ centre_BPD.mT).argmax(dim=2)


def budgets(sizes_BP: Tensor, lots_BP: Tensor, removed: int, ratio: float, progress: float) -> Tensor:
    """Patches to remove from each part, (B, P) int64; because of rounding, only about ``removed`` in total.

    ``sizes_BP``: patches of the parts; whole parts are taken in the order of ``lots_BP``, the rest from the next one.
    """
    order_BP = torch.argsort(lots_BP, dim=1, stable=True)
    ordered_BP = sizes_BP.gather(1, order_BP)
    left_BP = (removed - (ordered_BP.cumsum(dim=1) - ordered_BP)).clamp(min=0)
    whole_BP = torch.empty_like(sizes_BP).scatter(1, order_BP, torch.minimum(ordered_BP, left_BP))
    share = 1.0 - progress**2
    return (share * (ratio * sizes_BP.double()).round() + (1.0 - share) * whole_BP).round().long()


@register("semmae")
class SemMAEMasking(TaughtMasking):
    """Patches are grouped into parts by a teacher's features; each part has a budget that moves from shares of all
    parts to whole parts as training goes on.

    - ``parts``: P of the clustering; 6, as in the paper.
    - ``teacher``, ``decay``, ``teacher_size``: see `mlomae.masking.teacher.Teacher`.

    The patches to remove from a part are drawn at random. Budget: the numbers per part are rounded, and a few patches
    more or fewer, drawn from the whole image, leave exactly ⌊(1 - ratio) L⌋ visible.

    Changed: the paper learns the parts beforehand, by an attention module on features of a frozen iBOT ViT-S from which
    a StyleGAN decoder reconstructs images, and stores them; here they are clusters (k-means) of the teacher's features
    of the augmented view, by default those of a moving average of the encoder being trained. Removing only some patches
    of the last of the whole parts, and the value of ``decay``, are ours.

    Raises ConfigError for values out of range, and what `Teacher` raises.
    """

    scheduled = True

    def __init__(self, embed_dim: int, grid: tuple[int, int], parts: Count = 6, **teaching: Any) -> None:
        super().__init__(embed_dim, grid, **teaching)
        self.parts = parts

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        features_BLD = self.teacher.features(images)
        noise_BPL = state.uniform(self.parts * features_BLD.shape[1], _SEEDS).unflatten(1, (self.parts, -1))
        with full_precision(images.device):
            return self.ranking_of(cluster(features_BLD, noise_BPL), ratio, state)

    def ranking_of(self, parts_BL: Tensor, ratio: float, state: MaskState) -> Tensor:
        """Scores (B, L) from the part of every patch, (B, L) int64 below P."""
        length = parts_BL.shape[1]
        sizes_BP = F.one_hot(parts_BL, self.parts).sum(dim=1)
        removed, lots_BP = length - keep_count(length, ratio), state.uniform(self.parts, _ORDER)
        budget_BP = budgets(sizes_BP, lots_BP, removed, ratio, state.progress)
        before_BP = sizes_BP.cumsum(dim=1) - sizes_BP
        within_BL = ranks(parts_BL, state.uniform(length, _SHUFFLE)) - before_BP.gather(1, parts_BL)
        return (within_BL < budget_BP.gather(1, parts_BL)) + state.uniform(length, _CUT)
