"""Mixup, cutmix and label smoothing of a batch, from timm, as a function of a counter key.

Shape suffixes: B batch, C channels or (of targets) classes, H height, W width.
"""

from timm.data import Mixup
from timm.data.mixup import mixup_target
from torch import Tensor

from benchmarks.tasks.classification.augment import check_shares
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.common.random_keys import seeded


def mix_key(seed: int, iteration: int, rank: int = 0) -> int:
    """The key of what one process draws to mix its batch of one training step."""
    return random_keys.root_key(seed, "mix", iteration, rank)


class BatchMix:
    """timm's mixup, cutmix and label smoothing as a function of (batch, key): pairs image i with image B - 1 - i.

    Sources: Zhang et al., ICLR 2018 (mixup); Yun et al., ICCV 2019 (CutMix); defaults of MAE's fine-tuning.

    Args:
        mixup, cutmix: parameter of each Beta(a, a); 0 switches it off.
        prob: of mixing at all. switch_prob: of cutmix where both are on.
        mode: one draw for the ``batch``, for each ``pair`` or for each ``elem``.

    Raises ConfigError for values out of range.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        label_smoothing: float = 0.1,
        mode: str = "batch",
    ) -> None:
        check_shares(prob=prob, switch_prob=switch_prob, label_smoothing=label_smoothing)
        if mixup < 0 or cutmix < 0:
            raise ConfigError(f"mixup {mixup} and cutmix {cutmix} must not be negative; 0 switches one off")
        if mode not in ("batch", "pair", "elem"):
            raise ConfigError(f"mixing mode '{mode}' is unknown; choose batch, pair or elem")
        self.enabled = mixup > 0 or cutmix > 0
        self._mix = Mixup(
            mixup_alpha=mixup,
            cutmix_alpha=cutmix,
            prob=prob,
            switch_prob=switch_prob,
            mode=mode,
            label_smoothing=label_smoothing,
            num_classes=num_classes,
        )
        self._mix.mixup_enabled = self.enabled
        self.num_classes = num_classes

    def check_batch(self, size: int) -> None:
        """Raise ConfigError if a process's batch of ``size`` images cannot be paired."""
        if self.enabled and size % 2:
            raise ConfigError(
                f"mixup and cutmix pair the images of a batch, and {size} in a process is odd; "
                "choose an even batch size a process, or mixup 0 and cutmix 0"
            )

    def __call__(self, image_BCHW: Tensor, label_B: Tensor, key: int) -> tuple[Tensor, Tensor]:
        """Mixed images (the given ones are left alone) and soft targets (B, C) float32; ``key`` as from `mix_key`."""
        self.check_batch(len(image_BCHW))
        if not self.enabled:  # timm mixes nothing, but insists on pairs
            return image_BCHW, mixup_target(label_B, self.num_classes, smoothing=self._mix.label_smoothing)
        with seeded(key):
            mixed_BCHW, target_BC = self._mix(image_BCHW.clone(), label_B)
        return mixed_BCHW, target_BC
