"""mmseg's and mmdet's models around our backbone: how they are built, and the step that MMEngine's loop drives."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.dist import get_rank, get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import DefaultScope, Registry
from torch import Tensor, nn

from mlomae.backbones.batches import ImageLoader
from mlomae.backbones.feature_vit import FeatureViT
from mlomae.backbones.layer_decay import layer_decay_groups, layer_schedule
from mlomae.backbones.optimizers import AveragingWrapper, average_statistics, build_optimizer
from mlomae.backbones.run import Outcome, TransferRun
from mlomae.backbones.seeding import seed_step, seeded
from mlomae.common.errors import ConfigError, reason_of
from mlomae.common.random_keys import root_key
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD
from mlomae.pretraining.optim import LevelOptimizers

PIXELS: dict[str, Any] = {  # of a data_preprocessor: uint8 in BGR to what the backbone was pretrained on
    "bgr_to_rgb": True,
    "mean": [255 * m for m in IMAGENET_MEAN],
    "std": [255 * s for s in IMAGENET_STD],
}


def build_dense(registry: Registry, section: dict[str, Any], backbone: FeatureViT, name: str, seed: int) -> Any:
    """The model of ``registry`` that a complete ``section`` describes; fresh weights depend on (seed, name) alone.

    SyncBN becomes BatchNorm unless there are several processes with a GPU each: the others cannot run it.
    Raises ConfigError for a section that mmseg or mmdet refuses.
    """
    scope = registry.scope
    section = {**section, "backbone": {"type": lambda: backbone}}  # is built: widths in the section are its own
    with (
        seeded(root_key(seed, name)),
        DefaultScope.overwrite_default_scope(scope),  # an earlier run of this process leaves "mmengine"
    ):
        try:
            model = registry.build(ConfigDict(section))
            model._dump_init_info = lambda: None  # MMEngine logs a line, and more, for every parameter
            model.init_weights()
        except Exception as error:  # their constructors raise anything
            raise ConfigError(f"config section 'model' is refused by {scope} ({reason_of(error)})") from error
    if torch.cuda.is_available() and get_world_size() > 1:
        return model
    return revert_sync_batchnorm(model)


class DenseTransfer(BaseModel):
    """A segmentor or detector whose step draws from (seed, iteration, rank) alone.

    ``name``: "segmentor" or "detector", under which a checkpoint keeps the weights.
    """

    def __init__(self, model: nn.Module, seed: int, name: str) -> None:
        super().__init__()
        self.seed, self.name = seed, name
        self.add_module(name, model)  # a resumed run looks for it under its name in the checkpoint
        self._autocast_checked = False

    @property
    def model(self) -> Any:
        return getattr(self, self.name)

    @property
    def casts_itself(self) -> bool:
        """Whether the model opens autocast around some of its parts; else the optimizer's wrapper does, around all."""
        return hasattr(self.model, "check_autocast")

    def init_weights(self) -> None:
        """Nothing: MMEngine's Runner calls this, and the weights are there."""

    def saved_modules(self) -> dict[str, nn.Module]:
        return {self.name: self.model}

    def train_step(self, data: dict[str, Any], optim_wrapper: Any) -> dict[str, Tensor]:
        """One update on a batch; ``data["iteration"]`` is its number. Returns the model's losses, detached."""
        wrapper = optim_wrapper["model"]
        if not self._autocast_checked:
            blocks = self.model.backbone.vit.blocks
            caster = self.model if self.casts_itself else wrapper
            caster.check_autocast(next(m for m in blocks.modules() if isinstance(m, nn.Linear)))
            self._autocast_checked = True
        batch = {key: data[key] for key in ("inputs", "data_samples")}
        seed_step(root_key(self.seed, "drop", data["iteration"], get_rank()))  # samplers of boxes draw too
        losses = self.model.train_step(batch, wrapper)
        average_statistics(self.model)
        return {name: value.detach() for name, value in losses.items()}

    def test_step(self, data: dict[str, Any]) -> list[Any]:
        """Data samples with ``pred_sem_seg`` or ``pred_instances`` at the size of the file."""
        return list(self.model.test_step(data))

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        return self.model(inputs, data_samples, mode)


def build_wrapper(model: DenseTransfer, config: Any) -> LevelOptimizers:
    """{"model": the wrapper}: layer-wise rates in the backbone, the full rate in neck and heads."""
    o, amp = config.optim, "none" if model.casts_itself else config.train.amp
    groups = layer_decay_groups(model.model, o.lr, o.weight_decay, o.layer_decay)
    return LevelOptimizers(model=AveragingWrapper(build_optimizer(groups, o), amp, o.clip_grad))


def train_dense(
    run: TransferRun, model: nn.Module, name: str, loader: ImageLoader, test_loader: ImageLoader, metric: BaseMetric
) -> Outcome:
    """Train and evaluate a segmentor or detector that is still on the CPU; ``name`` as for `DenseTransfer`."""
    config: Any = run.config
    whole = DenseTransfer(model, config.seed, name).to("cuda" if torch.cuda.is_available() else "cpu")
    schedulers = layer_schedule(config.optim, len(loader), config.train.decay)
    return run.train(whole, loader, build_wrapper(whole, config), schedulers, test_loader, metric)
