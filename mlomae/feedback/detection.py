"""Detection feedback: every patch says what it shows and, on an object, where the object's box ends.

    L = L_segmentation + w · mean over images of  (1/M) Σ_l ρ(b_l − t_l),   ρ the smooth L1 loss, summed over four sides

over the M patches l most of whose labelled pixels are of an object; t_l are the distances from the patch's centre to
the sides of the box around all pixels of that class in the image, in sides of the image, and b_l what the head says. So
objects of one class in one image are one object. As a detector without anchors (FCOS, Tian et al., ICCV 2019), with one
cell for each patch.

Shape legend: B batch, L patches, D width, C classes, S image side.
"""

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlomae.common.precision import full_precision
from mlomae.common.registry import NotNegative
from mlomae.data import IGNORE
from mlomae.feedback.base import Batch, register
from mlomae.feedback.linear import SegmentationFeedback, pixel_loss

BETA = 0.05  # of the smooth L1 loss, in sides of the image


@register("detection")
class DetectionFeedback(SegmentationFeedback):
    """As `SegmentationFeedback`, with boxes. ``weight``: w. ``background``: the class that is no object."""

    name, dense = "detection", True

    def __init__(
        self, embed_dim: int, num_classes: int, weight: NotNegative = 1.0, background: Annotated[int, "[0, inf)"] = 0
    ) -> None:
        super().__init__(embed_dim, num_classes)
        self.weight, self.background = weight, background
        self.box = nn.Linear(embed_dim, 4)
        nn.init.trunc_normal_(self.box.weight, std=0.01)
        nn.init.zeros_(self.box.bias)

    def boxes(self, tokens_BLD: Tensor) -> Tensor:
        """b (B, L, 4): distances to the left, upper, right and lower side of the box."""
        return self.box(self.norm(tokens_BLD[:, 1:].to(self.norm.weight.dtype)))

    def targets(self, label_BSS: Tensor, counts_BLC: Tensor) -> tuple[Tensor, Tensor]:
        """t (B, L, 4) in the dtype of the `counts`, and whether a patch is of an object, (B, L) bool."""
        class_BL = counts_BLC.argmax(dim=2)
        object_BL = (counts_BLC.sum(dim=2) > 0) & (class_BL != self.background)
        return _distances(label_BSS, class_BL, counts_BLC), object_BL

    def forward(self, tokens_BLD: Tensor, batch: Batch) -> Tensor:
        with full_precision(tokens_BLD.device):
            scores_BLC, boxes_BL4 = self.predict(tokens_BLD, None, None), self.boxes(tokens_BLD)
            counts_BLC = self.counts(batch, scores_BLC)
            targets_BL4, object_BL = self.targets(batch["pixel_label"], counts_BLC)
            each_BL = F.smooth_l1_loss(boxes_BL4, targets_BL4, reduction="none", beta=BETA).sum(dim=2) * object_BL
            loss = pixel_loss(scores_BLC, counts_BLC)
            return loss + self.weight * (each_BL.sum(dim=1) / object_BL.sum(dim=1).clamp(min=1)).mean()


def _distances(label_BSS: Tensor, class_BL: Tensor, like_BLC: Tensor) -> Tensor:
    """From the centre of each patch to the sides of the box around all pixels of its class, (B, L, 4)."""
    side, grid = label_BSS.shape[1], math.isqrt(class_BL.shape[1])
    is_class_BCSS = label_BSS[:, None] == torch.arange(like_BLC.shape[2], device=like_BLC.device)[:, None, None]
    is_class_BCSS = is_class_BCSS & (label_BSS != IGNORE)[:, None]
    place_S = torch.arange(side, device=like_BLC.device)
    ends = []
    for across in (2, 3):  # columns, then rows, that have a pixel of the class
        there_BCS = is_class_BCSS.any(dim=across)
        first_BC = torch.where(there_BCS, place_S, side).amin(dim=2)
        last_BC = torch.where(there_BCS, place_S + 1, 0).amax(dim=2)
        ends += [(first_BC, last_BC)]
    centre_L = ((torch.arange(grid, device=like_BLC.device) + 0.5) / grid).to(like_BLC.dtype)
    x_L, y_L = centre_L.repeat(grid), centre_L.repeat_interleave(grid)
    (left, right), (top, bottom) = (
        tuple(end_BC.gather(1, class_BL).to(like_BLC.dtype) / side for end_BC in pair) for pair in ends
    )
    return torch.stack([x_L - left, y_L - top, right - x_L, bottom - y_L], dim=2)
