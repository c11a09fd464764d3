"""Linear feedback, the paper's stage II: LayerNorm -> dropout -> Linear on pooled encoder tokens.

Shape legend: B batch, L patches, D width, C classes.
Source: MLO-MAE (Guo et al., TMLR 2025, arXiv 2402.18128), stages II and III.
"""

from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional as F

from mlomae.common import random_keys
from mlomae.common.precision import full_precision
from mlomae.feedback.base import Batch, Feedback, Pooling, labels, pool, register

DROPOUT_SALT = 200
DropoutRate = Annotated[float, "[0, 1)"]


@register("linear")
class LinearFeedback(Feedback):
    """Cross-entropy of a linear classifier; ``pooling`` "cls" (the paper's) or "avg" over patch tokens.

    ``dropout`` draws its mask from the sample keys, so that L_II is one fixed function of ω within an outer iteration.
    """

    name = "linear"

    def __init__(self, embed_dim: int, num_classes: int, pooling: Pooling = "cls", dropout: DropoutRate = 0.0) -> None:
        super().__init__()
        self.pooling, self.dropout = pooling, dropout
        self.norm = nn.LayerNorm(embed_dim)
        self.fc = nn.Linear(embed_dim, num_classes)
        nn.init.trunc_normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

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
