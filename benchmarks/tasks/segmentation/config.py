"""The configurations of transfers to semantic segmentation."""

from dataclasses import dataclass, field

from mlomae.backbones.config import DenseConfig


@dataclass(kw_only=True)
class SegmentationConfig(DenseConfig):
    """A whole transfer. ``model``: mmseg's EncoderDecoder without what follows from the data and the backbone
    (``backbone``, ``data_preprocessor``, widths, number of classes)."""

    derived = frozenset({"backbone", "data_preprocessor", "pretrained", "init_cfg"})
    model: dict


@dataclass(kw_only=True)
class LinearSegmentationConfig(SegmentationConfig):
    """A transfer to linear segmentation, whose model cannot be chosen.

    ``backbone.out_indices``: the block whose patch features are classified, by default the last one of the small ViT.
    ``model``: set ``test_cfg`` for inference by sliding windows.
    """

    derived = SegmentationConfig.derived | {"type", "neck", "decode_head", "auxiliary_head"}
    model: dict = field(default_factory=dict)
