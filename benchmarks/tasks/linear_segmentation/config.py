"""The configuration of a transfer to linear segmentation."""

from dataclasses import dataclass, field
from typing import Literal

from benchmarks.tasks.segmentation.config import SegmentationConfig


@dataclass(kw_only=True)
class LinearSegmentationConfig(SegmentationConfig):
    """A whole transfer, whose model cannot be chosen.

    ``backbone.out_indices``: the block whose patch features are classified, by default the last one of the small ViT.
    ``model``: set ``test_cfg`` for inference by sliding windows. ``protocol``: what tables call it.
    """

    derived = SegmentationConfig.derived | {"type", "neck", "decode_head", "auxiliary_head"}
    model: dict = field(default_factory=dict)
    protocol: Literal["frozen, linear head"] = "frozen, linear head"
