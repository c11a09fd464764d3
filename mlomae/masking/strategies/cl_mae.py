"""CL-MAE: a network chooses the mask, first to help the autoencoder and, by the end of the run, to work against it.

Source: Madan et al., "CL-MAE: Curriculum-Learned Masked Autoencoders", WACV 2024; details are those of the published
code. The network gives every patch a score s in (0, 1), high for patches to keep. Its loss, with t the share of the run
that is done, s̄ the mean score of an image, k the share of patches kept and σ = 0.12, is

    (1 - 2t) · L(s)
    + gauss · mean σ √(2π) exp(-(s - ½)² / 2σ²)                    scores away from ½
    + kl · mean KL(s̄ ‖ k), of Bernoulli distributions              a mean score like the share of kept patches
    + diversity · mean over pairs of images exp(-‖sᵢ - sⱼ‖₂ / 10)   different masks for different images

L(s) is the autoencoder's error when all patches are encoded, each token times its score, and the error of a patch has
the weight 1 - s, relative to their sum: it is differentiable in s throughout.

Shape legend: B batch, L patches, D token width.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from mlomae.common.precision import wide
from mlomae.common.ranks import gather
from mlomae.common.registry import Count, NotNegative
from mlomae.masking.base import AdaptiveMasking, Mask, MaskState, Reconstruction, choose, register
from mlomae.masking.strategies.learned import TokenScorer

SIGMA = 0.12


def indecision(s_BL: Tensor) -> Tensor:
    """The second term without its weight."""
    return SIGMA * math.sqrt(2 * math.pi) * torch.exp(-(s_BL - 0.5).square() / (2 * SIGMA**2)).mean()


def divergence(s_BL: Tensor, share: float) -> Tensor:
    """The third term without its weight; ``share`` is k."""
    mean_B = s_BL.mean(dim=1).clamp(1e-6, 1 - 1e-6)
    return (mean_B * (mean_B / share).log() + (1 - mean_B) * ((1 - mean_B) / (1 - share)).log()).mean()


def similarity(s_BL: Tensor) -> Tensor:
    """The fourth term without its weight, on the images of all ranks; 0 for a single image."""
    s_BL = gather(s_BL)
    if len(s_BL) < 2:
        return s_BL.sum() * 0.0
    return torch.exp(-F.pdist(s_BL) / 10).mean()


@register("cl_mae")
@dataclass(eq=False, repr=False)
class CLMAEMasking(AdaptiveMasking):
    """The ⌊(1 - ratio) L⌋ patches with the highest scores are visible: an image's mask changes as the network does.

    - ``gauss``, ``kl``, ``diversity``: weights of the terms, the published 1, 0.1 and 2.
    - ``hidden``, ``depth``: of the network, a transformer on the tokens, which carry their positions. The paper's has 5
      blocks as wide as the encoder, with 4 heads; here a width of 256 gives 4 heads.

    The loss moves the network alone, and L_I the autoencoder alone: each treats the other as constant. It costs a
    forward and backward pass over all patches. ``diversity`` couples the images of a batch: its pairs are those of the
    global batch, gathered over ranks; chunks compare pairs within their own part, which is the same in expectation.

    Changed: both take their steps together on a batch, with one optimizer, where the paper alternates; scores come from
    the patches' own outputs instead of the class token's; L(s) and KL are means over images, where the published code
    normalises over the batch and sums over it, which makes its KL stronger with every image of a batch.

    Raises ConfigError for negative weights and for what `TokenScorer` refuses.
    """

    scheduled = True
    couples = True
    sees = "values"
    gauss: NotNegative = 1.0
    kl: NotNegative = 0.1
    diversity: NotNegative = 2.0
    hidden: Count = 64
    depth: Count = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.net = TokenScorer(self.embed_dim, self.hidden, self.depth)

    def keeping(self, tokens_BLD: Tensor) -> Tensor:
        """s, (B, L), at least float32."""
        return wide(self.net(tokens_BLD.detach())).sigmoid()

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        s_BL = self.keeping(tokens_BLD)
        return replace(choose(-s_BL, ratio, state), choice=s_BL)

    def scores(self, tokens_BLD: Tensor, state: MaskState) -> Tensor:
        """1 - s: high for patches to remove."""
        return 1.0 - self.keeping(tokens_BLD)

    def soft_error(self, seen: Reconstruction) -> Tensor:
        """L(s) of the module docstring; the autoencoder and its tokens are constants."""
        s_BL = seen.choice
        constants = {name: parameter.detach() for name, parameter in seen.mae.named_parameters()}
        order_BL = torch.arange(s_BL.shape[1], device=s_BL.device).expand(len(s_BL), -1)
        hidden_BL = 1.0 - s_BL
        every = Mask(order_BL, order_BL, mask=hidden_BL, weight=hidden_BL, gate=s_BL)  # all patches are encoded
        pred_BLP = functional_call(seen.mae, constants, (seen.tokens_BLD.detach(), every))
        rec_BL = seen.mae.patch_error(pred_BLP, seen.images)
        return ((hidden_BL * rec_BL).sum(dim=1) / hidden_BL.sum(dim=1)).mean()

    def own_loss(self, seen: Reconstruction) -> Tensor:
        s_BL = seen.choice
        loss = (1.0 - 2.0 * seen.state.progress) * self.soft_error(seen) + self.gauss * indecision(s_BL)
        loss = loss + self.kl * divergence(s_BL, seen.mask.ids_keep.shape[1] / s_BL.shape[1])
        return loss + self.diversity * similarity(s_BL) if self.diversity else loss
