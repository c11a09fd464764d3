"""AttMask: the patches that a teacher's class token attends to most are removed.

Source: Kakogeorgiou et al., "What to Hide from Your Students: Attention-Guided Masked Image Modeling", ECCV 2022.
The score of a patch is the attention that the class token pays to it in the teacher's last block on the whole image,
mean over heads.

Shape legend: B batch, S image side, L patches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlomae.common.errors import ConfigError
from mlomae.masking.base import MaskState, keep_count, register
from mlomae.masking.teacher import ENCODER, TaughtMasking

VARIANTS = ("hint", "high", "low")
_TIES, _HINTS, _WHICH = range(3)  # salts


def share_of(length: int, share: float) -> int:
    """⌊share · L⌋, nudged as in `keep_count`."""
    return int(share * length + 1e-6)


def ranks(values_BL: Tensor, ties_BL: Tensor) -> Tensor:
    """How many patches of its image each one follows in ascending order, (B, L) int64; ``ties_BL`` settles equals."""
    order = torch.argsort(ties_BL, dim=1, stable=True)
    order = order.gather(1, torch.argsort(values_BL.gather(1, order), dim=1, stable=True))
    return torch.argsort(order, dim=1)


def uncover(ranks_BL: Tensor, pool: int, count: int, noise_BL: Tensor) -> Tensor:
    """Move ``count`` of the ``pool`` highest ranks, those with the most noise, below all others; the order of the rest
    stays."""
    length = ranks_BL.shape[1]
    lots_BL = ranks(torch.where(ranks_BL >= length - pool, noise_BL, -1.0), noise_BL)
    return torch.where(lots_BL >= length - count, ranks_BL - length, ranks_BL)


@register("attmask")
class AttMasking(TaughtMasking):
    """Patches are removed by the class token's attention in the last block of a teacher that sees the whole image.

    - ``variant``: "high" removes the patches with the most attention; "hint" too, but shows some of the very highest;
      "low" removes those with the least.
    - ``show_max``: of "hint": out of the top ⌊show_max L⌋ patches ⌊show_max · ratio · L⌋ drawn at random stay visible.
    - ``prob``: chance of an image to be masked by attention; the others get random masks.
    - ``teacher``, ``decay``, ``teacher_size``: see `mlomae.masking.teacher.Teacher`.

    "high" and "low" mask an unchanged image always alike but for equal attention, which keys settle.

    Budget: exactly ⌊(1 - ratio) L⌋ patches are visible. For hints the next patches in the order are removed instead;
    in the paper the ratio falls.

    Changed for the MAE: the paper distils with iBOT and takes its teacher, with a ratio drawn around 0.3 and half the
    images masked. Here the teacher is a moving average of the encoder, the ratio fixed, and every image masked;
    ``decay``, by outer iteration, is the value that iBOT's momentum begins with.

    Raises ConfigError for values out of range, and what `Teacher` raises.
    """

    def __init__(
        self,
        embed_dim: int,
        grid: tuple[int, int],
        variant: str = "hint",
        show_max: float = 0.1,
        prob: float = 1.0,
        teacher: str = ENCODER,
        decay: float = 0.996,
        teacher_size: int | None = None,
    ) -> None:
        super().__init__(teacher, decay, teacher_size)
        if variant not in VARIANTS:
            raise ConfigError(f"attmask: variant='{variant}' is unknown; choose one of {', '.join(VARIANTS)}")
        if not (0.0 <= show_max <= 1.0 and 0.0 <= prob <= 1.0):
            raise ConfigError(f"attmask: show_max={show_max} and prob={prob} must be shares, inside [0, 1]")
        self.variant, self.show_max, self.prob = variant, show_max, prob

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        attention_BL = self.teacher.attention(images).mean(dim=1)
        length = attention_BL.shape[1]
        kept, noise_BL = keep_count(length, ratio), state.uniform(length, _TIES)
        found = ranks(-attention_BL if self.variant == "low" else attention_BL, noise_BL)
        if self.variant == "hint":
            hints = min(share_of(length, self.show_max * ratio), kept)  # more could not be visible
            found = uncover(found, share_of(length, self.show_max), hints, state.uniform(length, _HINTS))
        if self.prob == 1.0:
            return found
        return torch.where(state.uniform(1, _WHICH) < self.prob, found, ranks(noise_BL, noise_BL))
