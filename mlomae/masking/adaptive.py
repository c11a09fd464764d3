"""Strategies with parameters of their own that move together with θ, and what stage I shows to losses beside it.

Unlike the learned mask's φ, which follows downstream feedback, these parameters ψ follow losses of the pretraining
itself: ψ and θ take one gradient step on L_I + `own_loss`.

Shape legend: B batch, L patches, K kept patches, D token width, S image side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from mlomae.masking.base import Mask, MaskingStrategy, MaskState

if TYPE_CHECKING:
    from mlomae.models import MAE


@dataclass(frozen=True)
class Reconstruction:
    """One pass of stage I. ``images`` (B, 3, S, S); ``tokens_BLD`` embedded patches; ``latents_BKD`` (B, 1 + K, D) the
    encoder's output on the class token and the kept patches; ``rec_BL`` error of every patch; ``label`` (B,) or None,
    for auxiliary losses alone: no mask may depend on it."""

    mae: MAE
    images: Tensor
    tokens_BLD: Tensor
    mask: Mask
    latents_BKD: Tensor
    rec_BL: Tensor
    state: MaskState
    label: Tensor | None = None


class AdaptiveMasking(MaskingStrategy):
    """Base class of strategies that learn beside θ. ``own_loss`` is added to L_I as it is, with its own weights."""

    adaptive = True

    def own_loss(self, seen: Reconstruction) -> Tensor:
        """A scalar, mean over the images, so that ranks and chunks average to the whole batch. What of ``seen`` is not
        detached moves θ, too."""
        raise NotImplementedError
