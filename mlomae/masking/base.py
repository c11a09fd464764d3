"""What a masking strategy is: the interface, the mask it returns, and the registry.

Shape legend: B batch, L patches, K kept patches, D token width, S image side in pixels.
Convention: mask 1 = removed, 0 = kept; K = ⌊(1 - ratio) L⌋.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mlomae.common import random_keys as counter
from mlomae.common.errors import ConfigError
from mlomae.common.registry import Registry
from mlomae.models.mask import Mask

if TYPE_CHECKING:
    from mlomae.models import MAE


@dataclass(frozen=True)
class MaskState:
    """What a strategy may know beyond tokens and images.

    ``key`` (B,) int64 per-sample counter keys, functions of (seed, epoch, index): the only source of randomness;
    ``object`` (B, S, S) bool pixels of the labelled objects, embedded data only; ``fixed`` a mask whose set must be
    kept while its weights are computed anew; ``progress`` the share of the run that is done, in [0, 1), for a strategy
    that is ``scheduled``, else 0.
    """

    key: Tensor
    object: Tensor | None = None
    fixed: Mask | None = None
    progress: float = 0.0

    def uniform(self, n: int, salt: int = 0) -> Tensor:
        """(B, n) uniform numbers in (0, 1); salts below 100 are reserved for the augmentation."""
        return counter.uniform(self.key, n, salt=100 + salt)


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


def mask_from_scores(scores_BL: Tensor, ratio: float, weight_BL: Tensor | None = None) -> Mask:
    """Remove the patches with the highest scores; ties are broken by position, which keeps the choice deterministic."""
    length = scores_BL.shape[1]
    kept = keep_count(length, ratio)
    ids_shuffle = torch.argsort(scores_BL.detach(), dim=1, stable=True)
    ids_restore = torch.argsort(ids_shuffle, dim=1)
    dtype = torch.float32 if weight_BL is None else weight_BL.dtype
    mask = (ids_restore >= kept).to(dtype)
    return Mask(ids_shuffle[:, :kept], ids_restore, mask, torch.ones_like(mask) if weight_BL is None else weight_BL)


def unweighted_mask(scores_BL: Tensor, ratio: float, state: MaskState) -> Mask:
    """`mask_from_scores`, or the set that ``state`` keeps fixed; all errors weigh alike."""
    if state.fixed is not None:
        return state.fixed.with_weight(torch.ones_like(state.fixed.mask))
    return mask_from_scores(scores_BL, ratio)


class MaskingStrategy(nn.Module):
    """Base class. A strategy is a module so that a learned one can have parameters (φ); most have none.

    ``normalize`` says what divides stage I: "mask" the number of removed patches, "weight" the sum of their weights.
    ``trainable`` says whether the upper levels move the parameters; ``adaptive`` whether they move together with θ, by
    a loss of the strategy's own (`mlomae.masking.adaptive`); ``scheduled`` whether the choice depends on the progress.
    """

    normalize: str = "mask"
    trainable: bool = False
    adaptive: bool = False
    scheduled: bool = False

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        raise NotImplementedError

    def check_ratio(self, length: int, ratio: float) -> None:
        """Raise ConfigError if the strategy cannot remove this share of ``length`` patches; asked before training."""
        keep_count(length, ratio)

    def batch_ratio(self, ratio: float, key: int) -> float:
        """The share to remove from a training batch; by default the configured ``ratio``.

        One number for the whole batch, because the encoder needs sequences of one length and because the loss of a
        global batch is the mean of its parts' losses only if all images lose equally many patches. ``key`` is a
        function of (seed, number of the batch): the same on every rank, in every chunk, and after a resume.
        """
        return ratio

    def attach(self, mae: MAE) -> None:
        """Called once, before the optimizers are made: who needs parts or copies of the model makes them here."""

    def follow(self, mae: MAE, progress: float) -> None:
        """Called after every outer iteration, without gradients: who keeps a copy of the model lets it follow here."""

    def scores(self, tokens_BLD: Tensor, state: MaskState) -> Tensor | None:
        """σ per patch, (B, L), for pictures and health; None where the strategy has no deterministic preference."""
        return None


class UnweightedMasking(MaskingStrategy):
    """A strategy that says which patches go and weighs all their errors alike; `ranking` is all it defines."""

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        return unweighted_mask(self.ranking(images, ratio, state), ratio, state)

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        """(B, L) from images (B, 3, S, S): the patches with the highest numbers are removed, of equal ones the later.

        Whatever number of patches a method would remove by itself, ``ratio`` decides where the ranking is cut, so that
        exactly `keep_count` are kept.
        """
        raise NotImplementedError


_STRATEGIES = Registry[MaskingStrategy]("masking strategy")
register = _STRATEGIES.register


def list_strategies() -> list[str]:
    """Names that `create` accepts."""
    return _STRATEGIES.names()


def is_trainable(name: str) -> bool:
    """Whether the upper levels move the strategy's parameters, so that labelled batches are needed."""
    return bool(getattr(_STRATEGIES.get(name), "trainable", False))


def create(name: str, *, embed_dim: int, grid: tuple[int, int], **kwargs: object) -> MaskingStrategy:
    """Build a strategy for tokens of width ``embed_dim`` on a patch grid (gh, gw).

    Raises ConfigError for an unknown name, an unknown option, or an option value the strategy refuses.
    """
    return _STRATEGIES.build(name, kwargs, embed_dim=embed_dim, grid=grid)
