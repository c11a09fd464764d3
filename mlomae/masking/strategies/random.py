"""Uniform random masks, the baseline of every table, and the same with a ratio drawn for every training batch.

Sources: MAE (He et al., CVPR 2022, section 3); R²MAE (Dong, Wang and Kluger, "Understanding and Enhancing Mask-Based
Pretraining towards Universal Representations", NeurIPS 2025, arXiv 2509.21650): a ratio per batch, uniform masks.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from mlomae.common import random_keys
from mlomae.common.registry import check_interval
from mlomae.masking.base import MaskState, UnweightedMasking, register
from mlomae.models import keep_count


@register("random")
class RandomMasking(UnweightedMasking):
    """Each patch's score is uniform noise; the patches with the highest scores are removed."""

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        return state.uniform(self.length)


@register("random_ratio")
@dataclass(eq=False, repr=False)
class RandomRatioMasking(RandomMasking):
    """The ratio of a training batch is uniform on [``low``, ``high``]; the patches are chosen as in random masking.

    All images of a batch share the ratio, and so do all ranks and chunks of the batch, because the encoder takes
    sequences of one length; so it comes from the batch's key and not from the images' (`MaskingStrategy.batch_ratio`).
    It does not work with ``train.compile``, which would recompile for every ratio.
    Pictures, the health log and diagnostics use the configured ``ratio``, so that they compare over time.

    Budget: ⌊(1 - drawn ratio) L⌋ patches are kept. The default interval has MAE's 0.75 as its mean, so that a run
    encodes as many patches as an MAE run; the interval is an option, because the best one depends on data and model.

    Raises ConfigError for an empty interval, and before training for one that may keep no patch.
    """

    low: Annotated[float, "(0, 1)"] = 0.6
    high: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self.high, f"[{self.low}, 1)", "option 'high' of masking strategy 'random_ratio'")

    def check_ratio(self, length: int, ratio: float) -> None:
        for each in (ratio, self.low, self.high):
            keep_count(length, each)

    def batch_ratio(self, ratio: float, key: int) -> float:
        return self.low + (self.high - self.low) * random_keys.uniform(torch.tensor(key), 1).item()
