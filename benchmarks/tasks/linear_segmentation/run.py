"""The steps of linear segmentation: those of segmentation, with a frozen backbone."""

from dataclasses import replace
from typing import Any

from torch import nn

from benchmarks.tasks.linear_segmentation import model as _model  # noqa: F401  registers segmentor and head
from benchmarks.tasks.linear_segmentation.config import MODEL
from benchmarks.tasks.segmentation.model import build_segmentor
from benchmarks.tasks.segmentation.run import SegmentationSteps
from benchmarks.transfer.dense import dense_step
from mlomae.backbones.training import TransferStep


class LinearSegmentationSteps(SegmentationSteps):
    """Trains a linear head on frozen features; its checkpoints hold the head alone."""

    def build_model(self) -> tuple[nn.Module, str]:
        config = replace(self.config, model={**MODEL, **self.config.model})
        return build_segmentor(config, len(self.train.classes))

    def create_step(self, model: Any) -> TransferStep:
        return dense_step(model, {"head": model.decode_head}, self.config)
