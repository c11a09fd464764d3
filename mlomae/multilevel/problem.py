"""The three coupled minimisations, as functions of their parameters.

    θ*(φ) = argmin_θ L_I(θ, φ),   ω*(θ) = argmin_ω L_II(θ, ω),   min_φ L_III(θ*(φ), ω*(θ*(φ)))

L_II and L_III are one function, the head's loss on the encoder's features, on two disjoint sets of labelled images.
Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .batches import Batch, concat_batches, split_batch
from .params import Params


@dataclass(frozen=True)
class ThreeLevelProblem:
    """What a hypergradient solver has to know about a model; parameters are dicts from name to tensor.

    Every function must be a pure function of its arguments (``torch.func.functional_call``), without wrapped modules.
    A part of ``lower`` that must not be differentiated has to be cut with ``Tensor.detach``: ``torch.no_grad`` stops
    reverse but not forward derivatives, and the mixed product takes both.

    Attributes:
        lower: L_I(θ, φ, batch), 0-dim, the mean over the batch.
        features: z = E(θ, batch), any shape with samples first.
        head_loss: the head's loss (ω, z, batch), 0-dim, the mean over the batch: L_II on a head batch, L_III on an
            upper one. A head without parameters has ω = {}.
        concat: joins a head and an upper batch so that the encoder runs once; None runs it once for each (images of
            different sizes, features that depend on the rest of the batch).
        fix: (θ, φ, batch) → batch in which the mask is frozen, so that later calls of ``lower`` use that one;
            None where the mask does not depend on θ or φ.
    """

    lower: Callable[[Params, Params, Batch], Tensor]
    features: Callable[[Params, Batch], Tensor]
    head_loss: Callable[[Params, Tensor, Batch], Tensor]
    concat: Callable[[Batch, Batch], Batch] | None = concat_batches
    fix: Callable[[Params, Params, Batch], Batch] | None = None

    def mean_lower(self, theta: Params, phi: Params, batch: Batch, chunks: int = 1) -> Tensor:
        """L_I over ``chunks`` equal parts of the batch, averaged: the loss that gradient accumulation minimises."""
        parts = [self.lower(theta, phi, part) for part in split_batch(batch, chunks)]
        total = parts[0]
        for value in parts[1:]:
            total = total + value
        return total / chunks
