"""A mask: which patches stay, which are removed, and how much each removed one counts in the loss.

Shape legend: B batch, L patches, K kept patches. Convention: mask 1 = removed, 0 = kept; K = ⌊(1 - ratio) L⌋.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mlomae.common.errors import ConfigError


@dataclass(frozen=True)
class Mask:
    """A mask and the weight each patch's reconstruction error carries in stage I.

    ``ids_keep`` (B, K) kept patches; ``ids_restore`` (B, L) inverse of the order "kept first, then removed";
    ``mask`` (B, L) 1 removed, 0 kept; ``weight`` (B, L) factor of the loss (σ for the learned mask, else ones);
    ``gate`` (B, L) or None: factor of the tokens, 1 in value, through which the reconstruction error can be
    differentiated with respect to the scores that chose the patches; ``choice`` (B, ...) or None: the scores by which
    an adaptive strategy chose, with their graph, for its own loss.
    """

    ids_keep: Tensor
    ids_restore: Tensor
    mask: Tensor
    weight: Tensor
    gate: Tensor | None = None
    choice: Tensor | None = None

    def with_weight(self, weight_BL: Tensor) -> "Mask":
        """The same set of patches with other weights: "its own mask kept fixed" of the hypergradient."""
        return replace(self, weight=weight_BL)


def keep_count(length: int, ratio: float) -> int:
    """⌊(1 - ratio) L⌋, at least one kept and one removed; raises ConfigError for a ratio that leaves neither.

    The product is nudged by a millionth of a patch so that 0.1 * 10, which binary fractions put just below 1, counts
    as 1.
    """
    if not 0.0 < ratio < 1.0:
        raise ConfigError(f"mask ratio {ratio} is outside (0, 1); 0.75 is MAE's default")
    kept = int(length * (1.0 - ratio) + 1e-6)
    if not 0 < kept < length:
        raise ConfigError(
            f"mask ratio {ratio} keeps {kept} of {length} patches; choose one that keeps some and removes some"
        )
    return kept


def mask_from_scores(scores_BL: Tensor, ratio: float, weight_BL: Tensor | None = None) -> "Mask":
    """Remove the patches with the highest scores; ties are broken by position, which keeps the choice deterministic.

    The weights default to ones.
    """
    kept = keep_count(scores_BL.shape[1], ratio)
    ids_shuffle = torch.argsort(scores_BL.detach(), dim=1, stable=True)
    ids_restore = torch.argsort(ids_shuffle, dim=1)
    dtype = torch.float32 if weight_BL is None else weight_BL.dtype
    mask = (ids_restore >= kept).to(dtype)
    return Mask(ids_shuffle[:, :kept], ids_restore, mask, torch.ones_like(mask) if weight_BL is None else weight_BL)
