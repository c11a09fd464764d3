"""The three coupled minimisations, as functions of their parameters.

    θ*(φ) = argmin_θ L_I(θ, φ),   ω*(θ) = argmin_ω L_II(θ, ω),   min_φ L_III(θ*(φ), ω*(θ*(φ)))

L_II and L_III are one function, the head's loss on the encoder's features, on two disjoint sets of labelled images.
Where the best response ω*(θ) is known in closed form, or stage II has no parameters, both levels are one joint loss:

    L_III(ω*(θ)) = J(z_head, z_upper),   v = dJ/dθ through both sets of features

Where φ also weighs the features that the feedback sees (``attend``), L_II and L_III depend on φ explicitly.

Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mlomae.common.errors import ConfigError

from .batches import Batch, concat_batches, split_batch
from .params import Params, constants


def _no_head_loss(omega: Params, z: Tensor, batch: Batch) -> Tensor:
    raise ConfigError("this ThreeLevelProblem has a joint_loss and no head_loss: omega must be {}")


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
        attend: (θ, φ, z, batch) → features as the feedback sees them, samples first, differentiable in φ and z; θ is a
            constant. None where φ does not touch the feedback. Not for ``finite_difference``, the published scheme.
        joint_loss: (z_head, z_upper, head_batch, upper_batch), 0-dim, the mean over the upper batch, differentiable in
            both features; with it ω is {}, stage II takes no steps, and ``head_loss`` is not called. It couples the
            samples of the two batches: under data parallelism each rank's head batch serves its own upper batch and
            v is the mean over ranks, which is *not* what one process finds on the concatenated batches.
        concat: joins a head and an upper batch so that the encoder runs once; None runs it once for each (images of
            different sizes, features that depend on the rest of the batch).
        fix: (θ, φ, batch) → batch in which the mask is frozen, so that later calls of ``lower`` use that one;
            None where the mask does not depend on θ or φ.
    """

    lower: Callable[[Params, Params, Batch], Tensor]
    features: Callable[[Params, Batch], Tensor]
    head_loss: Callable[[Params, Tensor, Batch], Tensor] = _no_head_loss
    concat: Callable[[Batch, Batch], Batch] | None = concat_batches
    fix: Callable[[Params, Params, Batch], Batch] | None = None
    joint_loss: Callable[[Tensor, Tensor, Batch, Batch], Tensor] | None = None
    attend: Callable[[Params, Params, Tensor, Batch], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.head_loss is _no_head_loss and self.joint_loss is None:
            raise ConfigError("ThreeLevelProblem needs a head_loss or a joint_loss")

    def seen(self, theta: Params, phi: Params, z: Tensor, batch: Batch) -> Tensor:
        """The features z of a batch as the feedback sees them."""
        return z if self.attend is None else self.attend(constants(theta), phi, z, batch)

    def mean_lower(self, theta: Params, phi: Params, batch: Batch, chunks: int = 1) -> Tensor:
        """L_I over ``chunks`` equal parts of the batch, averaged: the loss that gradient accumulation minimises."""
        parts = [self.lower(theta, phi, part) for part in split_batch(batch, chunks)]
        total = parts[0]
        for value in parts[1:]:
            total = total + value
        return total / chunks
