"""timm's self-attention, with the kernel that is fastest where it runs.

In bfloat16 a processor takes up to nine times as long for torch's fused attention as for two products and a softmax:
with 64 sequences of 17, 65 and 16 of 197 tokens (heads of 64, 32, 64) on two cores with AMX, forward and backward,
10.2, 32.4 and 79.7 ms against 1.8, 5.0 and 38.8. In float32 the fused one is as fast (1.8, 7.1, 71.1 and 2.8, 6.8,
69.8 ms), and needs less memory.

Shape legend: B batch, h heads, N tokens, M queries, d width of a head.
"""

from timm import layers
from torch import Tensor
from torch.nn import functional as F

from mlomae.common.precision import fused_attention_pays


class Attention(layers.Attention):
    """timm's, whose ``fused_attn`` is `fused_attention_pays` at every call, unless it was switched off."""

    _may_fuse = True

    @property  # type: ignore[misc]
    def fused_attn(self) -> bool:
        return self._may_fuse and fused_attention_pays()

    @fused_attn.setter
    def fused_attn(self, value: bool) -> None:
        self._may_fuse = value

    def attend(self, q_BhMd: Tensor, k_BhNd: Tensor, v_BhNd: Tensor) -> Tensor:
        """What the queries read, (B, h, M, d), by the kernel that ``forward`` would use."""
        if self.fused_attn:
            return F.scaled_dot_product_attention(q_BhMd, k_BhNd, v_BhNd)
        return (q_BhMd * self.scale @ k_BhNd.transpose(-2, -1)).softmax(dim=-1) @ v_BhNd
