"""Linear feedback: a linear head on pooled encoder tokens, the paper's stage II, or on every patch token.

    linear          LayerNorm -> dropout -> Linear, cross-entropy of the image's class
    segmentation    L = mean over images of  −(1/N) Σ_l Σ_c n_lc log softmax_c(head(z_l)),   N = Σ_lc n_lc

n_lc is the number of labelled pixels of class c in patch l; unlabelled pixels do not count. This *is* the mean
cross-entropy over pixels if a patch's prediction holds for all its pixels, at the cost of L rows instead of S²:
interpolating the scores to pixels would only refine borders within a patch, which one token can hardly resolve.

Shape legend: B batch, U of the upper batch, L patches, D width, C classes, S image side, P pixels of a patch.
Source: MLO-MAE (Guo et al., TMLR 2025, arXiv 2402.18128), stages II and III; its feedback classifies whole images.
"""

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlomae.common import random_keys
from mlomae.common.errors import DataError
from mlomae.common.precision import full_precision
from mlomae.data import IGNORE
from mlomae.feedback.base import Batch, Feedback, Pooling, labels, pool, register

DROPOUT_SALT = 200
DropoutRate = Annotated[float, "[0, 1)"]


class LinearHead(Feedback):
    """Base class: LayerNorm and a linear layer, ω."""

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(embed_dim), nn.Linear(embed_dim, num_classes)
        nn.init.trunc_normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)


@register("linear")
class LinearFeedback(LinearHead):
    """Cross-entropy of a linear classifier; ``pooling`` "cls" (the paper's) or "avg" over patch tokens.

    ``dropout`` draws its mask from the sample keys, so that L_II is one fixed function of ω within an outer iteration.
    """

    name = "linear"

    def __init__(self, embed_dim: int, num_classes: int, pooling: Pooling = "cls", dropout: DropoutRate = 0.0) -> None:
        super().__init__(embed_dim, num_classes)
        self.pooling, self.dropout = pooling, dropout

    def logits(self, tokens_BLD: Tensor, key_B: Tensor | None = None) -> Tensor:
        """Class scores (B, C) from encoder tokens (B, 1 + L, D); dropout is active if keys are given."""
        x_BD = self.norm(pool(tokens_BLD, self.pooling).to(self.norm.weight.dtype))
        if self.dropout and key_B is not None:
            kept_BD = random_keys.uniform(key_B, x_BD.shape[1], DROPOUT_SALT) >= self.dropout
            x_BD = x_BD * kept_BD / (1.0 - self.dropout)
        return self.fc(x_BD)

    def predict(self, tokens_ULD: Tensor, head_tokens_HLD: Tensor | None, head_batch: Batch | None) -> Tensor:
        """The head's logits (U, C), without dropout; what it learned is in ω, so the head batch is not used."""
        return self.logits(tokens_ULD)

    def forward(self, tokens_BLD: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy; ``batch["label"]`` (B,), and ``batch["dropout_key"]`` (B,) while the head trains."""
        with full_precision(tokens_BLD.device):  # the head is tiny: it costs nothing
            return F.cross_entropy(self.logits(tokens_BLD, batch.get("dropout_key")), labels("linear", batch))


@register("segmentation")
class SegmentationFeedback(LinearHead):
    """A head shared by the patches, not in the paper. An image without a labelled pixel has loss 0.

    It reads ``batch["pixel_label"]`` (B, S, S) uint8, IGNORE where not labelled, which the feedback's streams provide.
    Not for `levels.mask_pooling`: the LayerNorm of a token cancels its weight.
    """

    name, dense = "segmentation", True

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
            return pixel_loss(scores_BLC, self.counts(batch, scores_BLC))

    def correct(self, scores: Tensor, batch: Batch) -> Tensor:
        """Share of correct pixels of every image that has labelled ones, at most (U,), in float64."""
        counts_ULC = self.counts(batch, scores).double()
        right_U = counts_ULC.gather(2, scores.argmax(dim=2, keepdim=True)).sum(dim=(1, 2))
        labelled_U = counts_ULC.sum(dim=(1, 2))
        return right_U[labelled_U > 0] / labelled_U[labelled_U > 0]


def pixel_loss(scores_BLC: Tensor, counts_BLC: Tensor) -> Tensor:
    """The second equation above, of n (B, L, C)."""
    sum_B = -(counts_BLC * F.log_softmax(scores_BLC, dim=2)).sum(dim=(1, 2))
    return (sum_B / counts_BLC.sum(dim=(1, 2)).clamp(min=1)).mean()
