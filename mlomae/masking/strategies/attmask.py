"""AttMask: the patches that a teacher's class token attends to most are removed.

Source: Kakogeorgiou et al., "What to Hide from Your Students: Attention-Guided Masked Image Modeling", ECCV 2022.
The score of a patch is the class token's attention to it in the teacher's last block on the whole image, mean of heads.

Shape legend: B batch, S image side, L patches.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from mlomae.common.registry import Share
from mlomae.masking.base import MaskState, register
from mlomae.masking.sampling import ranks, share_of, uncover
from mlomae.masking.teacher import TaughtMasking
from mlomae.models import keep_count

_TIES, _HINTS, _WHICH = range(3)  # salts


@register("attmask")
class AttMasking(TaughtMasking):
    """Patches are removed by the class token's attention in the last block of a teacher that sees the whole image.

    - ``variant``: "high" removes the patches with the most attention; so does "hint", but it shows some of the very
      highest; "low" removes those with the least.
    - ``show_max``: for "hint": of the top ⌊show_max L⌋ patches ⌊show_max · ratio · L⌋, drawn at random, stay visible.
    - ``prob``: probability that an image is masked by attention; the others get random masks.
    - ``teacher``, ``decay``, ``teacher_size``: see `mlomae.masking.teacher.Teacher`.

    "high" and "low" give an unchanged image the same mask every time; keys only break ties of equal attention.

    Budget: exactly ⌊(1 - ratio) L⌋ patches are visible. The next patches replace hints; in the paper the ratio falls.

    Changed for the MAE: the paper distils with iBOT and uses its teacher, with a ratio drawn around 0.3 and half the
    images masked. Here the teacher is a moving average of the encoder, the ratio fixed, and every image masked;
    ``decay``, per outer iteration, is the initial value of iBOT's momentum.

    Raises ConfigError for values out of range, and what `Teacher` raises.
    """

    def __init__(
        self,
        embed_dim: int,
        grid: tuple[int, int],
        variant: Literal["hint", "high", "low"] = "hint",
        show_max: Share = 0.1,
        prob: Share = 1.0,
        **teaching: Any,
    ) -> None:
        super().__init__(embed_dim, grid, **teaching)
        self.variant, self.show_max, self.prob = variant, show_max, prob

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        attention_BL = self.teacher.attention(images).mean(dim=1)
        length = attention_BL.shape[1]
        kept, noise_BL = keep_count(length, ratio), state.uniform(length, _TIES)
        ranks_BL = ranks(-attention_BL if self.variant == "low" else attention_BL, noise_BL)
        if self.variant == "hint":
            hints = min(share_of(length, self.show_max * ratio), kept)  # no more can be visible
            ranks_BL = uncover(ranks_BL, share_of(length, self.show_max), hints, state.uniform(length, _HINTS))
        if self.prob == 1.0:
            return ranks_BL
        return torch.where(state.uniform(1, _WHICH) < self.prob, ranks_BL, ranks(noise_BL, noise_BL))
