"""The configuration of linear segmentation: that of segmentation without a model section, which has no choices."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.tasks.segmentation.config import SegmentationConfig

MODEL: dict[str, Any] = {"type": "FrozenSegmentor", "decode_head": {"type": "PatchLinearHead"}}


@dataclass(kw_only=True)
class LinearSegmentationConfig(SegmentationConfig):
    """A whole transfer. ``backbone.out_indices``: the block whose patch features are classified, by default the last
    one of the small ViT. ``model``: set ``test_cfg`` for inference by sliding windows."""

    model: dict = field(default_factory=dict)

    def check(self) -> None:
        super().check()
        self.check_derived("type", "neck", "decode_head", "auxiliary_head")
