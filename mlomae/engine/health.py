"""Health of a learned mask: is it alive, does it look at the image, does it explore?

Shape legend: B probe images, L patches. A saturated σ has no gradient; a σ that varies over positions but not over
images is a learned constant.
"""

from __future__ import annotations

import torch
from torch import Tensor


def score_health(sigma_BL: Tensor) -> dict[str, Tensor]:
    """Statistics of σ on fixed probe images, 0-dim tensors.

    ``mean``; ``entropy`` of the Bernoulli(σ) in bits, 1 at σ = 0.5; ``saturated``, the share of σ outside
    [0.01, 0.99]; ``var_images``, variance over images at a position, averaged over positions; ``var_positions``,
    variance over positions of the mean over images.
    """
    p = sigma_BL.float().clamp(1e-6, 1 - 1e-6)
    entropy = -(p * p.log2() + (1 - p) * (1 - p).log2())
    return {
        "mean": p.mean(),
        "entropy": entropy.mean(),
        "saturated": ((p < 0.01) | (p > 0.99)).float().mean(),
        "var_images": p.var(dim=0, correction=0).mean(),
        "var_positions": p.mean(dim=0).var(correction=0),
    }


def mask_overlap(mask_BL: Tensor, previous_BL: Tensor, ratio: float) -> Tensor:
    """Share of the removed patches that were removed before too, rescaled: 0 as by chance, 1 the same set, 0-dim."""
    shared = (mask_BL * previous_BL).sum() / mask_BL.sum()
    return (shared - ratio) / (1.0 - ratio)


@torch.no_grad()
def feedback_accuracy(logits_BC: Tensor, label_B: Tensor) -> Tensor:
    """Percentage of right predictions of the feedback head, 0-dim; chance is 100 / C."""
    return 100.0 * (logits_BC.argmax(dim=1) == label_B).float().mean()
