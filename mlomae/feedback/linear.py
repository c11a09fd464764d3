"""Linear feedback, the paper's stage II: LayerNorm -> dropout -> Linear on pooled encoder tokens.

Shape legend: B batch, L patches, D width, C classes.
Source: MLO-MAE (Guo et al., TMLR 2025, arXiv 2402.18128), stages II and III.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlomae.common import random_keys as counter
from mlomae.common.errors import ConfigError
from mlomae.feedback.base import Batch, Feedback, check_pooling, labels, pool, register


@register("linear")
class LinearFeedback(Feedback):
    """Cross-entropy of a linear classifier; ``pooling`` "cls" (the paper's) or "avg" over patch tokens.

    ``dropout`` draws its mask from the sample keys, so that L_II is one fixed function of ω within an outer iteration.
    """

    name = "linear"

    def __init__(self, embed_dim: int, num_classes: int, pooling: str = "cls", dropout: float = 0.0) -> None:
        super().__init__()
        check_pooling("linear", pooling)
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"linear feedback: dropout {dropout} is outside [0, 1)")
        self.pooling, self.dropout = pooling, dropout
        self.norm = nn.LayerNorm(embed_dim)
        self.fc = nn.Linear(embed_dim, num_classes)
        nn.init.trunc_normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def logits(self, tokens_BLD: Tensor, key_B: Tensor | None = None) -> Tensor:
        """Class scores (B, C) from encoder tokens (B, 1 + L, D); dropout is active where keys are given."""
        x_BD = self.norm(pool(tokens_BLD, self.pooling).to(self.norm.weight.dtype))
        if self.dropout and key_B is not None:
            keep = counter.uniform(key_B, x_BD.shape[1], salt=200) >= self.dropout
            x_BD = x_BD * keep / (1.0 - self.dropout)
        return self.fc(x_BD)

    def predict(self, tokens_ULD: Tensor, head_tokens_HLD: Tensor | None, head_batch: Batch | None) -> Tensor:
        """The head's logits (U, C), without dropout; what it learned is in ω, so the head batch is not looked at."""
        return self.logits(tokens_ULD)

    def forward(self, tokens_BLD: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy; ``batch["label"]`` (B,), and ``batch["dropout_key"]`` (B,) while the head trains."""
        with torch.autocast(tokens_BLD.device.type, enabled=False):  # a tiny head: full precision costs nothing
            return F.cross_entropy(self.logits(tokens_BLD, batch.get("dropout_key")), labels("linear", batch))
