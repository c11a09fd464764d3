"""Do the features still depend on the image? Logged and recorded in every run; one that collapses ends by name.

Shape legend: N images, D encoder width.
"""

from typing import Any

import torch
from torch import Tensor

from mlomae.common.errors import TrainingError
from mlomae.data.streams import Batch
from mlomae.pretraining.pretrainer import Pretrainer

COLLAPSED = 1e-3
"""Spread below which features say nothing of their images. Untrained ViTs have 0.1 or more, trained ones more yet."""


def feature_health(features_ND: Tensor) -> dict[str, Tensor]:
    """Of the features of N images:

    - ``feature_rank``: the effective rank, exp of the entropy of the singular values' shares, 1 to min(N, D) (RankMe:
      Garrido et al., ICML 2023, equation 1).
    - ``feature_spread``: their deviation over images, root mean square over D, where each has length √D: 0 if all are
      the same, 1 if they share no direction.
    """
    features = features_ND.detach().double()
    values = torch.linalg.svdvals(features)
    share = values / values.sum() + torch.finfo(torch.float32).eps
    unit = features / features.norm(dim=1, keepdim=True).clamp(min=1e-12) * features.shape[1] ** 0.5
    spread = (unit - unit.mean(dim=0)).square().mean().sqrt()
    return {"feature_rank": (-(share * share.log()).sum()).exp(), "feature_spread": spread}


class CollapseGuard:
    """The trainer's hook that adds `feature_health` of fixed probe images, mean of their patch tokens, to the log every
    ``interval`` outer iterations, and raises TrainingError where they are all the same."""

    def __init__(self, model: Pretrainer, interval: int, probe: Batch) -> None:
        self.model, self.interval, self.probe = model, interval, probe

    @torch.no_grad()
    def __call__(self, t: int, data: Any, losses: dict[str, Tensor], values: dict[str, float] | None) -> None:
        if (t + 1) % self.interval or values is None or len(self.probe["image"]) < 2:
            return
        encoder = self.model.mae.encoder
        features = encoder(self.probe["image"].to(encoder.cls_token.dtype))[:, 1:].mean(dim=1)
        found = {name: float(value) for name, value in feature_health(features).items()}
        if found["feature_spread"] < COLLAPSED:
            raise TrainingError(
                f"the features have collapsed: at outer iteration {t + 1} those of {len(self.probe['image'])} images "
                f"differ by {found['feature_spread']:.1g} of their length; train again with a lower rate of theta, a "
                "longer warm-up, or another mask or feedback"
            )
        values |= found
