"""R²MAE: random masks whose ratio is itself random, drawn anew for every training batch.

Source: Dong, Wang and Kluger, "Understanding and Enhancing Mask-Based Pretraining towards Universal Representations",
NeurIPS 2025, arXiv 2509.21650: a ratio for each batch, then patches are masked uniformly.
"""

from __future__ import annotations

import torch

from mlomae.common import random_keys as counter
from mlomae.common.errors import ConfigError
from mlomae.masking.base import keep_count, register
from mlomae.masking.strategies.random import RandomMasking


@register("random_ratio")
class RandomRatioMasking(RandomMasking):
    """The ratio of a training batch is uniform on [``low``, ``high``]; which patches go is random masking.

    All images of a batch share the ratio: the encoder takes sequences of one length, and so do all ranks and chunks of
    the batch, which is why it comes from the batch's key and not from the images' (`MaskingStrategy.batch_ratio`).
    It does not go with ``train.compile``, which would compile anew for every ratio.
    Pictures, the health log and diagnostics use the configured ``ratio``, so that they compare over time.

    Budget: ⌊(1 - drawn ratio) L⌋ patches are kept. The default interval has MAE's 0.75 as its mean, so that a run
    encodes as many patches as one of MAE; the interval is an option, because the best one depends on data and model.

    Raises ConfigError for an empty interval, and before training for one that may keep no patch.
    """

    def __init__(self, embed_dim: int, grid: tuple[int, int], low: float = 0.6, high: float = 0.9) -> None:
        super().__init__(embed_dim, grid)
        if not 0 < low <= high < 1:
            raise ConfigError(f"random_ratio mask: low={low} and high={high} must be ordered and inside (0, 1)")
        self.low, self.high = low, high

    def check_ratio(self, length: int, ratio: float) -> None:
        for each in (ratio, self.low, self.high):
            keep_count(length, each)

    def batch_ratio(self, ratio: float, key: int) -> float:
        return self.low + (self.high - self.low) * counter.uniform(torch.tensor(key), 1).item()
