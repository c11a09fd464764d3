"""The step of a segmentation transfer, as MMEngine's loop drives it."""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_rank
from mmengine.model import BaseModel
from torch import Tensor, nn

from benchmarks.segmentation.config import SegmentationConfig
from benchmarks.transfer.optimizers import AveragingWrapper, average_statistics, build_optimizer
from benchmarks.transfer.param_groups import layer_decay_groups
from benchmarks.transfer.seeding import seed_step
from mlomae.counter import root_key
from mlomae.engine.optim import LevelOptimizers


class TransferSegmentor(BaseModel):
    """A segmentor whose step draws from (seed, iteration, rank) alone; names what a checkpoint keeps."""

    def __init__(self, segmentor: nn.Module, seed: int) -> None:
        super().__init__()
        self.segmentor: Any = segmentor
        self.seed = seed
        self._autocast_checked = False

    def init_weights(self) -> None:
        """Nothing: MMEngine's Runner calls this, and the weights are there."""

    def saved_modules(self) -> dict[str, nn.Module]:
        return {"segmentor": self.segmentor}

    def train_step(self, data: dict[str, Any], optim_wrapper: Any) -> dict[str, Tensor]:
        """One update on a batch; ``data["iteration"]`` is its number. Returns mmseg's losses, detached."""
        wrapper = optim_wrapper["model"]
        if not self._autocast_checked:
            blocks = self.segmentor.backbone.vit.blocks
            wrapper.check_autocast(next(m for m in blocks.modules() if isinstance(m, nn.Linear)))
            self._autocast_checked = True
        batch = {key: data[key] for key in ("inputs", "data_samples")}
        seed_step(root_key(self.seed, "drop", data["iteration"], get_rank()))
        losses = self.segmentor.train_step(batch, wrapper)
        average_statistics(self.segmentor)
        return {name: value.detach() for name, value in losses.items()}

    def test_step(self, data: dict[str, Any]) -> list[Any]:
        """mmseg's data samples with ``pred_sem_seg`` at the size of the file."""
        return list(self.segmentor.test_step(data))

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        return self.segmentor(inputs, data_samples, mode)


def build_wrapper(model: TransferSegmentor, config: SegmentationConfig) -> LevelOptimizers:
    """{"model": the wrapper}: layer-wise rates in the backbone, the full rate in neck and heads."""
    o = config.optim
    groups = layer_decay_groups(model.segmentor, o.lr, o.weight_decay, o.layer_decay)
    return LevelOptimizers(model=AveragingWrapper(build_optimizer(groups, o), config.train.amp, o.clip_grad))
