"""A mask: which patches stay, which go, and what each removed one weighs in the loss.

Shape legend: B batch, L patches, K kept patches. Convention: mask 1 = removed, 0 = kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Mask:
    """A mask and the weight each patch's reconstruction error carries in stage I.

    ``ids_keep`` (B, K) kept patches; ``ids_restore`` (B, L) inverse of the order "kept first, then removed";
    ``mask`` (B, L) 1 removed, 0 kept; ``weight`` (B, L) factor of the loss (σ for the learned mask, else ones);
    ``gate`` (B, L) or None: factor of the tokens, 1 in value, through which the reconstruction error can be
    differentiated with respect to what chose the patches; ``choice`` (B, ...) or None: the numbers that an adaptive
    strategy chose by, with their graph, for its own loss.
    """

    ids_keep: Tensor
    ids_restore: Tensor
    mask: Tensor
    weight: Tensor
    gate: Tensor | None = None
    choice: Tensor | None = None

    def with_weight(self, weight_BL: Tensor) -> Mask:
        """The same set of patches with other weights: "its own mask kept fixed" of the hypergradient."""
        return replace(self, weight=weight_BL)
