"""AdaMAE: a network predicts how likely a patch is to be shown, and learns to show what is reconstructed badly.

Source: Bandara et al., "AdaMAE: Adaptive Masking for Efficient Spatiotemporal Learning with Masked Autoencoders", CVPR
2023, section 3. The visible patches are drawn without replacement with odds p = softmax(net(tokens)); the network
raises the expected error by a score-function (REINFORCE) gradient, rec a constant:

    - λ · mean over removed patches of  log pᵢ · recᵢ

Since -log p falls as p rises and rec > 0, a removed patch with a high error becomes likelier to be *visible* next time:
the few visible patches go where the image is hard to guess, and flat regions, which neighbours predict, are removed.
For a fixed error of each patch the expected gradient is 0 where p is proportional to recᵢ · P(i is removed).

Shape legend: B batch, L patches, D token width.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from mlomae.common.precision import wide
from mlomae.common.registry import Count, NotNegative
from mlomae.masking.base import AdaptiveMasking, Mask, MaskState, Reconstruction, choose, register
from mlomae.masking.strategies.learned import TokenScorer


@register("adamae")
@dataclass(eq=False, repr=False)
class AdaMAEMasking(AdaptiveMasking):
    """Visible patches are a sample without replacement with odds p, from Gumbel noise on log p.

    - ``weight``: λ, the paper's 1e-4. AdamW divides a gradient by its size, so λ only decides how much the network's
      loss counts when the gradient's norm, which all parameters share, is clipped.
    - ``hidden``: width of the network (linear layer, transformer block, linear score). The paper's is the encoder's.

    Budget: exactly ⌊(1 - ratio) L⌋ patches are visible, as in the paper.

    Changed: images instead of videos; the network sees the tokens (which carry their positions) as constants, so that
    its loss does not move the MAE; no dropout.

    Raises ConfigError for a negative weight and a width that `TokenScorer` refuses.
    """

    sees = "values"
    weight: NotNegative = 1e-4
    hidden: Count = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        self.net = TokenScorer(self.embed_dim, self.hidden, depth=1)

    def log_odds(self, tokens_BLD: Tensor) -> Tensor:
        """log p, (B, L), at least float32."""
        return wide(self.net(tokens_BLD.detach())).log_softmax(dim=1)

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        log_p_BL = self.log_odds(tokens_BLD)
        scores_BL = -log_p_BL.detach() - state.gumbel(log_p_BL.shape[1])
        return replace(choose(scores_BL, ratio, state), choice=log_p_BL)

    def own_loss(self, seen: Reconstruction) -> Tensor:
        return -self.weight * (seen.mask.of_removed(seen.choice) * seen.rec_BR.detach()).mean()
