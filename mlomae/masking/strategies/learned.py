"""The learned mask: a network T scores every patch; its parameters φ are moved by the hypergradient of stage III.

Source: MLO-MAE (Guo et al., TMLR 2025, arXiv 2402.18128), section 3; options that depart from it are named below.
"""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mlomae.common.errors import ConfigError
from mlomae.common.precision import wide
from mlomae.masking.base import Mask, MaskingStrategy, MaskState, mask_from_scores, register
from mlomae.masking.sampling import gumbel


class TokenScorer(nn.Module):
    """Shared two-layer MLP on LayerNormed tokens, (B, L, D) -> (B, L); stays dependent on the image, any image size."""

    def __init__(self, embed_dim: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        return self.net(tokens_BLD).squeeze(-1)


class FlatScorer(nn.Module):
    """The paper's MLP on all tokens flattened, (B, L, D) -> (B, L); tied to one image size, prone to saturate."""

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


class TransformerScorer(nn.Module):
    """A small transformer over the tokens (which carry their positions), then a linear score; any image size."""

    def __init__(self, embed_dim: int, hidden: int, depth: int = 2) -> None:
        super().__init__()
        heads = max(1, hidden // 64)
        if hidden % heads:
            raise ConfigError(f"mask arch 'transformer': hidden {hidden} must be below 128 or a multiple of 64")
        self.net = nn.Sequential(
            nn.LayerNorm(embed_dim),
            nn.Linear(embed_dim, hidden),
            *(Block(hidden, heads, qkv_bias=True) for _ in range(depth)),
            nn.LayerNorm(hidden),
            nn.Linear(hidden, 1),
        )

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        return self.net(tokens_BLD).squeeze(-1)


def standardise(logits_BL: Tensor) -> Tensor:
    """Zero mean and unit variance per image: keeps σ away from 0 and 1, where its gradient dies."""
    centred = logits_BL - logits_BL.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()


@register("learned")
class LearnedMasking(MaskingStrategy):
    """σ = sigmoid(T(tokens)); the ⌊ratio·L⌋ patches with the highest (perturbed) score are removed, weighted by σ.

    - ``arch``: "token" (default), "mlp" (the paper's), "transformer"; ``hidden``: its width.
    - ``sampling``: "topk" (the paper's, no exploration) or "gumbel_topk" (Gumbel noise on logit σ: a sample without
      replacement with odds exp(logit)) or "random" (uniform masks: σ is a weight of the loss and nothing else).
    - ``weighting``: what the weight of a patch is, "value" (σ, the paper's) or "gradient" (1 in value, with the
      derivatives of σ: stage I is plain MAE under the masks that σ chooses, while the hypergradient is that of σ. A
      control: masks without weights).
    - ``normalize``: what divides stage I, "mask" (Σm, the paper's) or "weight" (Σmσ per image, so that lowering every
      σ does not lower the loss).
    - ``detach_mask_input``: T sees tokens as constants. The paper's code lets the gradient pass, and the patch
      embedding can then lower its loss by lowering σ.
    - ``standardize``: logits are standardised per image and multiplied by ``scale``.

    Raises ConfigError for options that leave T without an effect on stage I (random masks, weights of 1) or let θ
    follow the derivative of a weight that is 1 in value (tokens that are not detached).
    """

    trainable = True

    def __init__(
        self,
        embed_dim: int,
        grid: tuple[int, int],
        arch: str = "token",
        hidden: int = 128,
        sampling: str = "gumbel_topk",
        weighting: str = "value",
        normalize: str = "mask",
        detach_mask_input: bool = True,
        standardize: bool = True,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        for option, value, valid in (
            ("arch", arch, ("token", "mlp", "transformer")),
            ("sampling", sampling, ("topk", "gumbel_topk", "random")),
            ("weighting", weighting, ("value", "gradient")),
            ("normalize", normalize, ("mask", "weight")),
        ):
            if value not in valid:
                raise ConfigError(f"learned mask: {option}='{value}' is unknown; choose one of {', '.join(valid)}")
        if hidden < 1 or not scale > 0:
            raise ConfigError(f"learned mask: hidden {hidden} and scale {scale} must be positive")
        if weighting == "gradient" and sampling == "random":
            raise ConfigError(
                "learned mask: with sampling='random' and weighting='gradient' the network changes nothing; "
                "set sampling='gumbel_topk' or weighting='value'"
            )
        if weighting == "gradient" and not detach_mask_input:
            raise ConfigError(
                "learned mask: weighting='gradient' needs detach_mask_input=True, or theta moves by a weight that "
                "stage I does not have"
            )
        length = grid[0] * grid[1]
        self.net: nn.Module
        if arch == "token":
            self.net = TokenScorer(embed_dim, hidden)
        elif arch == "mlp":
            self.net = FlatScorer(embed_dim, length, hidden)
        else:
            self.net = TransformerScorer(embed_dim, hidden)
        self.sampling, self.weighting, self.normalize = sampling, weighting, normalize
        self.detach_mask_input, self.standardize, self.scale = detach_mask_input, standardize, scale

    def logits(self, tokens_BLD: Tensor) -> Tensor:
        """Log-odds of σ, (B, L), at least float32."""
        logits = self.net(tokens_BLD.detach() if self.detach_mask_input else tokens_BLD)
        logits = wide(logits)
        return self.scale * standardise(logits) if self.standardize else logits

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        logits = self.logits(tokens_BLD)
        if state.fixed is not None:
            return state.fixed.with_weight(self.weight(logits))
        ranking = logits.detach()
        if self.sampling == "gumbel_topk":
            ranking = ranking + gumbel(state.uniform(logits.shape[1]))
        elif self.sampling == "random":
            ranking = state.uniform(logits.shape[1])
        return mask_from_scores(ranking, ratio, self.weight(logits))

    def weight(self, logits_BL: Tensor) -> Tensor:
        """The factor of a patch's error, (B, L): σ, or 1 + σ - its constant, which forward mode takes for one too."""
        sigma_BL = torch.sigmoid(logits_BL)
        return sigma_BL if self.weighting == "value" else 1.0 + (sigma_BL - sigma_BL.detach())

    def scores(self, tokens_BLD: Tensor, state: MaskState) -> Tensor:
        return torch.sigmoid(self.logits(tokens_BLD))
