"""The learned mask: a network T scores every patch; its parameters φ are moved by the hypergradient of stage III.

Source: MLO-MAE (Guo et al., TMLR 2025, arXiv 2402.18128), section 3; options that depart from it are named below.

Shape legend: B batch, L patches, D token width.
"""

import torch
from torch import Tensor, nn

from mlomae.common.errors import ConfigError
from mlomae.common.precision import wide
from mlomae.common.registry import check_choice, check_range
from mlomae.masking.base import Mask, MaskingStrategy, MaskState, choose, register
from mlomae.masking.networks import FlatScorer, TokenScorer, TransformerScorer, standardise
from mlomae.masking.sampling import gumbel


@register("learned")
class LearnedMasking(MaskingStrategy):
    """σ = sigmoid(T(tokens)); the ⌊ratio·L⌋ patches with the highest (perturbed) score are removed, weighted by σ.

    - ``arch``: "token" (default), "mlp" (the paper's), "transformer"; ``hidden``: its width.
    - ``sampling``: "topk" (the paper's, no exploration), "gumbel_topk" (Gumbel noise on logit σ: a sample without
      replacement with odds exp(logit)) or "random" (uniform masks: σ is a weight of the loss and nothing else).
    - ``weighting``: the weight of a patch, "value" (σ, the paper's) or "gradient" (1 in value, with the derivatives of
      σ: stage I is plain MAE under the masks that σ chooses, while the hypergradient is that of σ. A control: masks
      without weights).
    - ``normalize``: the divisor of stage I, "mask" (Σm, the paper's) or "weight" (Σmσ per image, so that lowering every
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
        super().__init__(embed_dim, grid)
        check_choice("learned mask", ("token", "mlp", "transformer"), arch=arch)
        check_choice("learned mask", ("topk", "gumbel_topk", "random"), sampling=sampling)
        check_choice("learned mask", ("value", "gradient"), weighting=weighting)
        check_choice("learned mask", ("mask", "weight"), normalize=normalize)
        check_range("learned mask", "[1, inf)", hidden=hidden)
        check_range("learned mask", "(0, inf)", scale=scale)
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
        self.net: nn.Module
        if arch == "token":
            self.net = TokenScorer(embed_dim, hidden)
        elif arch == "mlp":
            self.net = FlatScorer(embed_dim, self.length, hidden)
        else:
            self.net = TransformerScorer(embed_dim, hidden)
        self.sampling, self.weighting, self.normalize = sampling, weighting, normalize
        self.detach_mask_input, self.standardize, self.scale = detach_mask_input, standardize, scale

    def logits(self, tokens_BLD: Tensor) -> Tensor:
        """Log-odds of σ, (B, L), at least float32."""
        logits_BL = wide(self.net(tokens_BLD.detach() if self.detach_mask_input else tokens_BLD))
        return self.scale * standardise(logits_BL) if self.standardize else logits_BL

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        logits_BL = self.logits(tokens_BLD)
        scores_BL = logits_BL.detach()
        if self.sampling == "gumbel_topk":
            scores_BL = scores_BL + gumbel(state.uniform(logits_BL.shape[1]))
        elif self.sampling == "random":
            scores_BL = state.uniform(logits_BL.shape[1])
        return choose(scores_BL, ratio, state, self.weight(logits_BL))

    def weight(self, logits_BL: Tensor) -> Tensor:
        """The factor of a patch's error, (B, L): σ, or 1 + σ - const(σ), 1 in value with the derivatives of σ."""
        sigma_BL = torch.sigmoid(logits_BL)
        return sigma_BL if self.weighting == "value" else 1.0 + (sigma_BL - sigma_BL.detach())

    def scores(self, tokens_BLD: Tensor, state: MaskState) -> Tensor:
        return torch.sigmoid(self.logits(tokens_BLD))
