"""Networks that score patches from their tokens, for learned strategies.

Shape legend: B batch, L patches, D token width.
"""

from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mlomae.common.errors import ConfigError


class TokenScorer(nn.Module):
    """A score for each LayerNormed token, (B, L, D) -> (B, L), from a shared two-layer MLP or, with ``depth`` above 0,
    from a small transformer over the tokens (which carry their positions) and a linear layer.

    The score depends on the image, not on the position alone; any image size.
    """

    def __init__(self, embed_dim: int, hidden: int, depth: int = 0) -> None:
        super().__init__()
        heads = max(1, hidden // 64)
        if depth and hidden % heads:
            raise ConfigError(f"mask network: hidden={hidden} must be below 128 or a multiple of 64")
        blocks = [Block(hidden, heads, qkv_bias=True) for _ in range(depth)]
        inner = [*blocks, nn.LayerNorm(hidden)] if depth else [nn.GELU()]
        self.net = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, hidden), *inner, nn.Linear(hidden, 1))

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        return self.net(tokens_BLD).squeeze(-1)


class FlatScorer(nn.Module):
    """MLO-MAE's MLP on all tokens flattened, (B, L, D) -> (B, L); tied to one image size, prone to saturate."""

    def __init__(self, embed_dim: int, length: int, hidden: int) -> None:
        super().__init__()
        self.length = length
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(embed_dim * length, hidden), nn.ReLU(), nn.Linear(hidden, length)
        )

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        if tokens_BLD.shape[1] != self.length:
            raise ConfigError(
                f"mask arch 'mlp' is built for {self.length} patches but got {tokens_BLD.shape[1]}; "
                "use arch='token' or 'transformer' for other image sizes"
            )
        return self.net(tokens_BLD)


def standardise(logits_BL: Tensor) -> Tensor:
    """Zero mean and unit variance per image: keeps σ away from 0 and 1, where its gradient dies."""
    centred = logits_BL - logits_BL.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
