"""Hard patches mining: a second decoder predicts where the reconstruction will fail, and those patches are removed.

Source: Wang et al., "Hard Patches Mining for Masked Image Modeling", CVPR 2023, sections 3.2 and 3.3. The predictor's
loss compares the removed patches i, j of an image, l the prediction and L the true error, a constant:

    - mean over pairs i ≠ j of  1[Lᵢ > Lⱼ] log σ(lᵢ - lⱼ) + 1[Lᵢ < Lⱼ] log(1 - σ(lᵢ - lⱼ))

Shape legend: B batch, L patches, R removed patches, K kept patches, D width, S image side.
"""

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlomae.common.precision import wide
from mlomae.common.registry import NotNegative, Share, check_interval
from mlomae.masking.base import AdaptiveMasking, MaskState, Reconstruction, choose, register
from mlomae.masking.teacher import move_average
from mlomae.models import MAE, Mask, keep_count
from mlomae.models.vit import init_weights


def ranking_loss(predicted_BR: Tensor, true_BR: Tensor) -> Tensor:
    """The loss of the module docstring, mean over images; a pair of equal errors counts as 0."""
    pairs = predicted_BR.shape[1] * (predicted_BR.shape[1] - 1)
    if not pairs:
        return predicted_BR.sum() * 0.0
    predicted_BR, true_BR = wide(predicted_BR), true_BR.detach()
    sign_BRR = (true_BR[:, :, None] - true_BR[:, None]).sign().to(predicted_BR.dtype)
    ahead_BRR = predicted_BR[:, :, None] - predicted_BR[:, None]
    return (sign_BRR.abs() * F.softplus(-sign_BRR * ahead_BRR)).sum() / (pairs * len(predicted_BR))


@register("hpm")
@dataclass(eq=False, repr=False)
class HPMMasking(AdaptiveMasking):
    """A share of the removed patches is the hardest of the image by prediction, the others are random.

    - ``hard``: the share at the end of the run; it grows linearly from 0, where masks are random. 0.5 is the paper's.
    - ``weight``: factor of the ranking loss, the paper's 1.
    - ``decay``, ``decay_end``, ``rise``: the copies' decay per outer iteration goes linearly from the first to the
      second within the first ``rise`` of the run. The defaults are the paper's, 100 of 800 epochs; a run of a few
      hundred iterations needs copies that follow faster.

    The predictor has the shape of MAE's decoder with one output per patch; it learns from the latents of the masked
    pass, and its loss moves the encoder, too, as in the paper. An exponential moving average of encoder and predictor
    does the ranking: it sees the whole image. Budget: ⌊share · R⌋ of R = L - ⌊(1 - ratio) L⌋ removed are the hardest.

    Changed: the share grows with the iterations, not the epochs; the copies follow once per outer iteration.

    Raises ConfigError for shares and decays outside [0, 1] and a negative weight.
    """

    scheduled = True
    sees = "nothing"
    hard: Share = 0.5
    weight: NotNegative = 1.0
    decay: Share = 0.999
    decay_end: float = 0.9999
    rise: Annotated[float, "(0, 1]"] = 0.125

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self.decay_end, f"[{self.decay}, 1]", "option 'decay_end' of masking strategy 'hpm'")

    def attach(self, mae: MAE) -> None:
        predictor = copy.deepcopy(mae.decoder)
        predictor.pred = nn.Linear(predictor.pred.in_features, 1)
        predictor.apply(init_weights)
        nn.init.normal_(predictor.mask_token, std=0.02)
        self.predictor = predictor
        copies = {"encoder": copy.deepcopy(mae.encoder), "predictor": copy.deepcopy(predictor)}
        self.copies = nn.ModuleDict(copies).requires_grad_(False)

    def follow(self, mae: MAE, progress: float) -> None:
        decay = self.decay + (self.decay_end - self.decay) * min(1.0, progress / self.rise)
        for name, module in (("encoder", mae.encoder), ("predictor", self.predictor)):
            move_average(self.copies[name], module, decay)

    def predict(self, images: Tensor) -> Tensor:
        """The copies' prediction of every patch's error from whole images (B, 3, S, S): (B, L), higher is harder."""
        with torch.no_grad():
            latents = self.copies["encoder"](images)
            order_BL = torch.arange(latents.shape[1] - 1, device=latents.device).expand(len(latents), -1)
            return self.copies["predictor"](latents, order_BL).squeeze(-1).float()

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        length = tokens_BLD.shape[1]
        hardest = int(self.hard * state.progress * (length - keep_count(length, ratio)))
        scores_BL = state.uniform(length)
        if hardest:
            top_BT = torch.argsort(self.predict(images), dim=1, descending=True, stable=True)[:, :hardest]
            scores_BL = scores_BL.scatter(1, top_BT, 2.0)
        return choose(scores_BL, ratio, state)

    def own_loss(self, seen: Reconstruction) -> Tensor:
        predicted_BR = self.predictor.predict_removed(seen.latents_BKD, seen.mask).squeeze(-1)
        return self.weight * ranking_loss(predicted_BR, seen.rec_BR)
