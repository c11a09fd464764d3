"""Masking strategies: the interface, the state that they are given, what a loss of their own sees, and the registry.

Shape legend: B batch, L patches, K kept patches, D token width, S image side in pixels.
Convention: mask 1 = removed, 0 = kept; K = ⌊(1 - ratio) L⌋.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mlomae.common import random_keys
from mlomae.common.registry import Registry
from mlomae.masking.sampling import gumbel
from mlomae.models import MAE, Mask, keep_count, mask_from_scores

STRATEGY_SALT = 100  # salts below are reserved for the augmentation


@dataclass(frozen=True)
class MaskState:
    """What a strategy is given besides tokens, images and the ratio.

    Attributes:
        key: (B,) int64, a random key for each image, a function of (seed, stream, epoch, index). It is the only source
            of randomness, through `uniform`: so masks do not depend on batch size, workers, ranks or interruptions.
        object: (B, S, S) bool, pixels of the labelled objects; None where the data has none.
        fixed: a mask whose set of patches must be kept while the weights are recomputed; None to choose freely.
        progress: share of the run that is done, in [0, 1), for a strategy that is ``scheduled``, else 0.
        index: (B,) int64, index of each image in its data set, the same in every epoch: for whatever a strategy
            stores per image. None outside the data streams.
        iteration: number of the outer iteration, from 0, for a strategy that is ``scheduled``, else 0.
    """

    key: Tensor
    object: Tensor | None = None
    fixed: Mask | None = None
    progress: float = 0.0
    index: Tensor | None = None
    iteration: int = 0

    @classmethod
    def of(cls, batch: Mapping[str, Any], **known: Any) -> "MaskState":
        """The state of a batch of `mlomae.data.Stream`; ``known`` are the fields that the batch does not hold."""
        return cls(batch["key"], batch.get("object"), index=batch.get("index"), **known)

    def uniform(self, n: int, salt: int = 0) -> Tensor:
        """(B, n) uniform numbers in (0, 1); another ``salt`` gives independent ones."""
        return random_keys.uniform(self.key, n, salt=STRATEGY_SALT + salt)

    def gumbel(self, n: int, salt: int = 0) -> Tensor:
        """(B, n) Gumbel noise from the same numbers: the top k of log-odds plus it are a sample without replacement."""
        return gumbel(self.uniform(n, salt))


@dataclass(eq=False, repr=False)
class MaskingStrategy(nn.Module):
    """Base class. A strategy is a module so that a learned one can have parameters (φ); most have none.

    It is made for tokens of width ``embed_dim`` on a patch grid (gh, gw). Further fields of a subclass, or parameters
    of its ``__init__``, are its options, which a configuration sets; their annotations say what they accept
    (`mlomae.common.registry.check_value`).

    Attributes:
        grid, length: the patch grid (gh, gw) and the number of patches, L.
        normalize: the divisor of the stage I loss, "mask" (number of removed patches) or "weight" (sum of weights).
        trainable: whether the upper levels move the parameters.
        adaptive: whether they move together with θ, by a loss of the strategy's own (`AdaptiveMasking`).
        scheduled: whether the choice depends on ``progress`` or ``iteration``.
        couples: whether `AdaptiveMasking.own_loss` is not a mean over images; it is then to be taken on those of all
            ranks (`mlomae.common.ranks.gather`).
        sees: what `forward` makes of the tokens: "tokens", with their graph; their "values", which it gets without a
            graph; or "nothing": it gets (B, L, 0), and only the patches that are kept are embedded.
    """

    embed_dim: int
    grid: tuple[int, int]
    normalize = "mask"
    trainable = False
    adaptive = False
    scheduled = False
    couples = False
    sees = "tokens"

    def __post_init__(self) -> None:
        super().__init__()
        self.length = self.grid[0] * self.grid[1]

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        """The mask of a batch, from embedded patches and images (B, 3, S, S); `choose` makes it from scores."""
        raise NotImplementedError

    def check_ratio(self, length: int, ratio: float) -> None:
        """Raise ConfigError if the strategy cannot remove this share of ``length`` patches; called before training."""
        keep_count(length, ratio)

    def batch_ratio(self, ratio: float, key: int) -> float:
        """The share to remove from a training batch; by default the configured ``ratio``.

        One number for the whole batch, because the encoder needs sequences of one length and because the loss of a
        global batch is the mean of its parts' losses only if all images lose equally many patches. ``key`` is a
        function of (seed, number of the batch): the same on every rank, in every chunk, and after a resume.
        """
        return ratio

    def attach(self, mae: MAE) -> None:
        """Called once, before the optimizers are made: the place to copy parts of the model."""

    def follow(self, mae: MAE, progress: float) -> None:
        """Called after every outer iteration, without gradients: the place to update copies of the model."""

    def scores(self, tokens_BLD: Tensor, state: MaskState) -> Tensor | None:
        """σ per patch, (B, L), for pictures and health; None if the strategy has no deterministic preference."""
        return None


def choose(scores_BL: Tensor, ratio: float, state: MaskState, weight_BL: Tensor | None = None) -> Mask:
    """Remove the patches with the highest scores, or the set that ``state`` keeps fixed; the weights default to ones.

    Whatever number of patches a method would remove by itself, ``ratio`` decides where the ranking is cut, so that
    exactly `keep_count` are kept. Of equal scores the later patches are removed.
    """
    if state.fixed is not None:
        return replace(state.fixed, weight=torch.ones_like(state.fixed.mask) if weight_BL is None else weight_BL)
    return mask_from_scores(scores_BL, ratio, weight_BL)


class UnweightedMasking(MaskingStrategy):
    """A strategy that ranks the patches and weights all their errors equally; `ranking` is all it defines."""

    sees = "nothing"

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        return choose(self.ranking(images, ratio, state), ratio, state)

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        """Scores (B, L) from images (B, 3, S, S): the patches with the highest ones are removed (`choose`)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Reconstruction:
    """One forward pass of stage I. ``images`` (B, 3, S, S); ``embedded_BLD`` the tokens of all patches as the
    strategy ``sees`` them, None if only the kept ones were embedded; ``latents_BKD`` (B, 1 + K, D) the encoder's output
    on the class token and the kept patches; ``rec_BR`` error of the patches ``mask.ids_removed``; ``label`` (B,) or
    None, for auxiliary losses alone: no mask may depend on it."""

    mae: MAE
    images: Tensor
    embedded_BLD: Tensor | None
    mask: Mask
    latents_BKD: Tensor
    rec_BR: Tensor
    state: MaskState
    label: Tensor | None = None

    @property
    def tokens_BLD(self) -> Tensor:
        """Embedded patches, all of them."""
        return self.mae.encoder.embed(self.images) if self.embedded_BLD is None else self.embedded_BLD

    @property
    def rec_BL(self) -> Tensor:
        """Error of every patch, also of the kept ones: another pass of the whole decoder."""
        return self.mae.patch_error(self.mae.decoder(self.latents_BKD, self.mask.ids_restore), self.images)

    @property
    def choice(self) -> Tensor:
        """The scores by which an adaptive strategy chose, ``mask.choice``."""
        assert self.mask.choice is not None
        return self.mask.choice


class AdaptiveMasking(MaskingStrategy):
    """Base class of strategies with parameters ψ that move together with θ: one gradient step on L_I + `own_loss`.

    Unlike the learned mask's φ, which follows downstream feedback, ψ follows losses of the pretraining itself.
    `own_loss` is added to L_I as it is, with its own weights.
    """

    adaptive = True

    def own_loss(self, seen: Reconstruction) -> Tensor:
        """A scalar, mean over the images, so that ranks and chunks average to the whole batch, unless it ``couples``
        them. Whatever of ``seen`` is not detached moves θ, too."""
        raise NotImplementedError


_STRATEGIES = Registry[MaskingStrategy]("masking strategy")
register = _STRATEGIES.register
registered = _STRATEGIES.registered
list_strategies = _STRATEGIES.names
is_trainable = partial(_STRATEGIES.has, "trainable")  # the upper levels move its parameters, with labelled batches
is_coupling = partial(_STRATEGIES.has, "couples")


def create(name: str, *, embed_dim: int, grid: tuple[int, int], **kwargs: object) -> MaskingStrategy:
    """Build a strategy for tokens of width ``embed_dim`` on a patch grid (gh, gw).

    Raises ConfigError for an unknown name, an unknown option, or an option value the strategy refuses.
    """
    return _STRATEGIES.build(name, kwargs, embed_dim=embed_dim, grid=grid)
