"""The simple feature pyramid: maps of several scales from the last map of a plain ViT (Li et al., ViTDet, ECCV 2022).

Shape legend: B images, D width of the backbone, C channels of the pyramid, h w patch grid.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from mlomae.backbones.feature_vit import MODELS
from mlomae.common.errors import ConfigError

if "LN2d" not in ROOT_MODELS:  # the layer norm over channels that ViTDet's heads take by this name
    ROOT_MODELS.register_module(name="LN2d", module=LayerNorm2d)


def _rescale(width: int, scale: float) -> tuple[list[nn.Module], int]:
    """Layers that bring a map to ``scale`` times its sides, and its width after them."""
    if scale == 4:
        up = [nn.ConvTranspose2d(width, width // 2, 2, 2), LayerNorm2d(width // 2), nn.GELU()]
        return [*up, nn.ConvTranspose2d(width // 2, width // 4, 2, 2)], width // 4
    if scale == 2:
        return [nn.ConvTranspose2d(width, width // 2, 2, 2)], width // 2
    if scale == 1:
        return [], width
    if scale == 0.5:
        return [nn.MaxPool2d(2, 2)], width
    raise ConfigError(f"the pyramid has scales 4, 2, 1 and 0.5; got {scale}")


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """(B, D, h, w) -> maps (B, C, s·h, s·w) for each s of ``scales``, and one more at half the last side.

    Each scale has its own convolutions (1x1, 3x3, without bias) and layer norms. Takes the backbone's last map.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        scales: Sequence[float] = (4, 2, 1, 0.5),
        extra_level: bool = True,
        init_cfg: None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.extra_level = extra_level
        self.levels = nn.ModuleList()
        for scale in scales:
            layers, width = _rescale(in_channels, scale)
            layers += [nn.Conv2d(width, out_channels, 1, bias=False), LayerNorm2d(out_channels)]
            layers += [nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), LayerNorm2d(out_channels)]
            self.levels.append(nn.Sequential(*layers))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        pyramid = [level(maps[-1]) for level in self.levels]
        if self.extra_level:
            pyramid.append(F.max_pool2d(pyramid[-1], 1, 2))
        return tuple(pyramid)
