"""The configuration of a transfer to semantic segmentation."""

from dataclasses import dataclass

from mlomae.backbones.config import DenseConfig


@dataclass(kw_only=True)
class SegmentationConfig(DenseConfig):
    """A whole transfer. ``model``: mmseg's EncoderDecoder without what follows from the data and the backbone
    (``backbone``, ``data_preprocessor``, widths, number of classes)."""

    derived = frozenset({"backbone", "data_preprocessor", "pretrained", "init_cfg"})
    model: dict
