"""The learned mask: a network T scores every patch; its parameters φ are moved by the hypergradient of stage III.

Source: MLO-MAE (Guo et al., TMLR 2025, arXiv 2402.18128), section 3; options that depart from it are named below.

Shape legend: B batch, L patches, D token width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mlomae.common.errors import ConfigError
from mlomae.common.precision import wide
from mlomae.common.registry import Count, Positive
from mlomae.masking.base import Mask, MaskingStrategy, MaskState, choose, register
from mlomae.models.attention import Attention


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
        first = nn.LayerNorm(embed_dim), nn.Linear(embed_dim, hidden)  # made in the order of use: weights are random
        blocks = [Block(hidden, heads, qkv_bias=True, attn_layer=Attention) for _ in range(depth)]
        inner = nn.LayerNorm(hidden) if depth else nn.GELU()
        self.net = nn.Sequential(*first, *blocks, inner, nn.Linear(hidden, 1))

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


class PositionScorer(nn.Module):
    """A score for each position, the same for all images, (B, L, D) -> (B, L): what can be learned without looking."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.score_L = nn.Parameter(0.02 * torch.randn(length))  # equal ones could not be standardised

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        return self.score_L.expand(tokens_BLD.shape[:2])


def standardise(logits_BL: Tensor) -> Tensor:
    """Zero mean and unit variance per image: keeps σ away from 0 and 1, where its gradient vanishes."""
    centred = logits_BL - logits_BL.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()


@register("learned")
@dataclass(eq=False, repr=False)
class LearnedMasking(MaskingStrategy):
    """σ = sigmoid(T(tokens)); the ⌊ratio·L⌋ patches with the highest (perturbed) score are removed, weighted by σ.

    - ``arch``: "token" (default), "mlp" (the paper's), "transformer", or "position", a control that does not see the
      image; ``hidden``: its width.
    - ``sampling``: "topk" (the paper's, no exploration), "gumbel_topk" (Gumbel noise on logit σ: a sample without
      replacement with odds exp(logit)) or "random" (uniform masks: σ is a weight of the loss and nothing else).
    - ``weighting``: the weight of a patch, "value" (σ, the paper's) or "gradient" (1 with the derivatives of σ: stage I
      is plain MAE under σ's masks, the hypergradient is that of σ; a control, masks without weights).
    - ``normalize``: the divisor of stage I, "mask" (Σm, the paper's) or "weight" (Σmσ per image, so that lowering every
      σ does not lower the loss).
    - ``detach_mask_input``: T sees tokens as constants. The paper's code lets the gradient pass, and the patch
      embedding can then lower its loss by lowering σ.
    - ``standardize``: logits are standardised per image and multiplied by ``scale``.

    Raises ConfigError for options that leave T without an effect on stage I (random masks, weights of 1) or let θ
    follow the derivative of a weight that is 1 in value (tokens that are not detached).
    """

    trainable = True
    arch: Literal["token", "mlp", "transformer", "position"] = "token"
    hidden: Count = 128
    sampling: Literal["topk", "gumbel_topk", "random"] = "gumbel_topk"
    weighting: Literal["value", "gradient"] = "value"
    normalize: Literal["mask", "weight"] = "mask"
    detach_mask_input: bool = True
    standardize: bool = True
    scale: Positive = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sees = "values" if self.detach_mask_input else "tokens"
        if self.weighting == "gradient" and self.sampling == "random":
            raise ConfigError(
                "learned mask: with sampling='random' and weighting='gradient' the network changes nothing; "
                "set sampling='gumbel_topk' or weighting='value'"
            )
        if self.weighting == "gradient" and not self.detach_mask_input:
            raise ConfigError(
                "learned mask: weighting='gradient' needs detach_mask_input=True, or theta moves by a weight that "
                "stage I does not have"
            )
        self.net: nn.Module
        if self.arch == "mlp":
            self.net = FlatScorer(self.embed_dim, self.length, self.hidden)
        elif self.arch == "position":
            self.net = PositionScorer(self.length)
        else:
            self.net = TokenScorer(self.embed_dim, self.hidden, depth=2 if self.arch == "transformer" else 0)

    def logits(self, tokens_BLD: Tensor) -> Tensor:
        """Log-odds of σ, (B, L), at least float32."""
        logits_BL = wide(self.net(tokens_BLD.detach() if self.detach_mask_input else tokens_BLD))
        return self.scale * standardise(logits_BL) if self.standardize else logits_BL

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        logits_BL = self.logits(tokens_BLD)
        scores_BL = logits_BL.detach()
        if self.sampling == "gumbel_topk":
            scores_BL = scores_BL + state.gumbel(logits_BL.shape[1])
        elif self.sampling == "random":
            scores_BL = state.uniform(logits_BL.shape[1])
        return choose(scores_BL, ratio, state, self.weight(logits_BL))

    def weight(self, logits_BL: Tensor) -> Tensor:
        """The factor of a patch's error, (B, L): σ, or 1 + σ - const(σ), 1 in value with the derivatives of σ."""
        sigma_BL = torch.sigmoid(logits_BL)
        return sigma_BL if self.weighting == "value" else 1.0 + (sigma_BL - sigma_BL.detach())

    def scores(self, tokens_BLD: Tensor, state: MaskState) -> Tensor:
        return torch.sigmoid(self.logits(tokens_BLD))
