"""The configuration of a transfer to semantic segmentation."""

from dataclasses import dataclass

from mlomae.backbones.config import DenseConfig


@dataclass(kw_only=True)
class SegmentationConfig(DenseConfig):
    """A whole transfer. ``model``: mmseg's EncoderDecoder without what follows from the data and the backbone
    (``backbone``, ``data_preprocessor``, widths, number of classes)."""

    model: dict

    def check(self) -> None:
        super().check()
        self.check_derived("backbone", "data_preprocessor", "pretrained", "init_cfg")
