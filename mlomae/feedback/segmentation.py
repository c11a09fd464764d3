"""Segmentation feedback: a linear head on every patch token predicts the classes of the pixels of the patch.

    L = mean over images of  −(1/N) Σ_l Σ_c n_lc log softmax_c(head(z_l)),   N = Σ_lc n_lc

n_lc is the number of labelled pixels of class c in patch l; unlabelled pixels do not count. This *is* the mean
cross-entropy over pixels if a patch's prediction holds for all its pixels, at the cost of L rows instead of S²:
interpolating the scores to pixels would only refine borders within a patch, which one token can hardly resolve.

Not in the paper, whose feedback classifies whole images. Shape legend: B batch, U of the upper batch, L patches, D
width, C classes, S image side, P pixels of a patch.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlomae.common.errors import DataError
from mlomae.common.precision import full_precision
from mlomae.data import IGNORE
from mlomae.feedback.base import Batch, Feedback, register


@register("segmentation")
class SegmentationFeedback(Feedback):
    """LayerNorm and a linear layer, ω, shared by the patches. An image without a labelled pixel has loss 0.

    It reads ``batch["pixel_label"]`` (B, S, S) uint8, IGNORE where not labelled, which the feedback's streams provide.
    Not for `levels.mask_pooling`: the LayerNorm of a token cancels its weight.
    """

    name, dense = "segmentation", True

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.norm, self.fc = nn.LayerNorm(embed_dim), nn.Linear(embed_dim, num_classes)
        nn.init.trunc_normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def predict(self, tokens_ULD: Tensor, head_tokens_HLD: Tensor | None, head_batch: Batch | None) -> Tensor:
        """Class scores of every patch, (U, L, C)."""
        return self.fc(self.norm(tokens_ULD[:, 1:].to(self.norm.weight.dtype)))

    def counts(self, batch: Batch, scores_BLC: Tensor) -> Tensor:
        """n of the equation, (B, L, C), in the dtype of the scores. Raises DataError if there are no labels."""
        if "pixel_label" not in batch:
            raise DataError(
                "segmentation feedback: the batch has no pixel labels; set data.feedback to a source of scenes"
            )
        label_BSS = batch["pixel_label"]
        b, length = scores_BLC.shape[:2]
        grid = math.isqrt(length)  # images are square
        p = label_BSS.shape[1] // grid
        label_BLP = label_BSS.reshape(b, grid, p, grid, p).transpose(2, 3).reshape(b, length, p * p).long()
        known_BLP = label_BLP != IGNORE
        counts_BLC = torch.zeros_like(scores_BLC.detach())
        at_BLP = torch.where(known_BLP, label_BLP, 0)
        return counts_BLC.scatter_add_(2, at_BLP, known_BLP.to(counts_BLC.dtype))

    def forward(self, tokens_BLD: Tensor, batch: Batch) -> Tensor:
        with full_precision(tokens_BLD.device):
            scores_BLC = self.predict(tokens_BLD, None, None)
            counts_BLC = self.counts(batch, scores_BLC)
            sum_B = -(counts_BLC * F.log_softmax(scores_BLC, dim=2)).sum(dim=(1, 2))
            return (sum_B / counts_BLC.sum(dim=(1, 2)).clamp(min=1)).mean()

    def correct(self, scores: Tensor, batch: Batch) -> Tensor:
        """Share of correct pixels of every image that has labelled ones, at most (U,), in float64."""
        counts_ULC = self.counts(batch, scores).double()
        right_U = counts_ULC.gather(2, scores.argmax(dim=2, keepdim=True)).sum(dim=(1, 2))
        labelled_U = counts_ULC.sum(dim=(1, 2))
        return right_U[labelled_U > 0] / labelled_U[labelled_U > 0]
