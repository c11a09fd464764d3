"""AMT: patches are drawn for removal with odds that follow the encoder's own attention, refreshed at intervals.

Source: Liu, Gui and Luo, "Good Helper Is around You: Attention-Driven Masked Image Modeling", AAAI 2023. Each head's
attention of the class token to the patches (last block, whole image) is scaled to [0, 1] over the image; the mean over
heads is the patch's weight w. The patches to remove are drawn without replacement with weights w.

Shape legend: B batch, S image side, H heads, L patches, K kept patches, D token width.
"""

import math
from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from mlomae.common.errors import ConfigError
from mlomae.common.registry import Share
from mlomae.masking.base import MaskState, register
from mlomae.masking.sampling import share_of
from mlomae.masking.teacher import ENCODER, TaughtMasking
from mlomae.models import MAE, Mask, keep_count

SMALLEST = 1e-12  # so that a patch without attention is removed last and has a finite logarithm


def attention_weight(attention_BHL: Tensor) -> Tensor:
    """Mean over heads of the attention, each head's scaled to [0, 1] over the patches, 0 for a uniform head; (B, L)."""
    low, high = attention_BHL.amin(dim=2, keepdim=True), attention_BHL.amax(dim=2, keepdim=True)
    return ((attention_BHL - low) / (high - low).clamp(min=SMALLEST)).mean(dim=1)


@register("amt")
class AMTMasking(TaughtMasking):
    """Random masks at first; then patches are drawn with weights from the attention of a snapshot of the encoder.

    - ``start``: share of the run with random masks; ``every``: share of the run between two snapshots, the first one
      at ``start``. The paper: 40 of 400 epochs for both.
    - ``throw``: share of the patches, ⌊throw · L⌋, that are drawn next and thrown away: the encoder does not see them
      and they are not predicted. 0, as in the paper's main run for the MAE. None are thrown before ``start``.
    - ``teacher``, ``teacher_size``: see `mlomae.masking.teacher.Teacher`; a timm model is not refreshed.

    Budget: exactly ⌊(1 - ratio) L⌋ patches are not removed; those that are thrown are among them, so that
    ``Mask.ids_keep`` is shorter by their number and the mask is 0 there.

    Changed: the paper stores a map for every uncropped image and crops it as it crops the image; here the snapshot sees
    the augmented view itself, which costs a forward pass and stores nothing. The decoder sees mask tokens where patches
    were thrown, and its predictions there do not count; in the paper it does not see these positions. The ratio is the
    same before ``start``. The draw is top-k of log w with Gumbel noise, which is the same distribution.

    Raises ConfigError for values out of range, before training if no patch would be visible, and what `Teacher` raises.
    """

    scheduled = True

    def __init__(
        self,
        embed_dim: int,
        grid: tuple[int, int],
        start: Share = 0.1,
        every: Annotated[float, "(0, 1]"] = 0.1,
        throw: Annotated[float, "[0, 1)"] = 0.0,
        teacher: str = ENCODER,
        teacher_size: int | None = None,
    ) -> None:
        super().__init__(embed_dim, grid, teacher, 0.0, teacher_size)
        self.start, self.every, self.throw = start, every, throw
        self.refreshed = nn.Buffer(torch.tensor(0))  # number of snapshots after the first one
        self._refreshed = 0  # the same on the host, which would wait for a GPU in every iteration

    def _load_from_state_dict(self, *given: Any) -> None:
        super()._load_from_state_dict(*given)
        self._refreshed = int(self.refreshed)

    def follow(self, mae: MAE, progress: float) -> None:
        """Before ``start`` the snapshot follows the encoder, so that the first one is taken at ``start``."""
        due = math.floor((progress - self.start) / self.every + 1e-6)
        if progress < self.start or due > self._refreshed:
            self.teacher.follow(mae)
            self._refreshed = max(due, 0)
            self.refreshed.fill_(self._refreshed)

    def check_ratio(self, length: int, ratio: float) -> None:
        kept, thrown = keep_count(length, ratio), share_of(length, self.throw)
        if thrown >= kept:
            raise ConfigError(
                f"amt mask: of {length} patches ratio {ratio} leaves {kept} and throw={self.throw} takes {thrown} "
                "of these; lower one of them"
            )

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        mask = super().forward(tokens_BLD, images, ratio, epoch, state)
        if state.fixed is not None or state.progress < self.start:
            return mask
        visible = mask.ids_keep.shape[1] - share_of(mask.mask.shape[1], self.throw)
        return replace(mask, ids_keep=mask.ids_keep[:, :visible])  # the last ones were drawn next

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        noise_BL = state.gumbel(self.length)
        if state.progress < self.start:
            return noise_BL
        return attention_weight(self.teacher.attention(images)).clamp(min=SMALLEST).log() + noise_BL
