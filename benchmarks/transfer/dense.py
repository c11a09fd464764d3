"""mmseg's and mmdet's models around our backbone: how they are built and trained."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.dist import get_world_size
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope, Registry
from torch import nn

from mlomae.backbones.config import DenseConfig
from mlomae.backbones.feature_vit import FeatureViT
from mlomae.backbones.layer_decay import layer_decay_groups
from mlomae.backbones.training import TransferStep
from mlomae.common.errors import ConfigError, reason_of
from mlomae.common.random_keys import root_key, seeded
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD
from mlomae.pretraining.devices import training_device

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


def dense_step(model: nn.Module, modules: Mapping[str, nn.Module], config: DenseConfig) -> TransferStep:
    """The update of a model: layer-wise rates in the backbone, the full rate in neck and heads.

    ``modules``: what a checkpoint keeps of the model, by name. The model is moved to the device of training.
    """
    model, o = model.to(training_device()), config.optim
    groups = layer_decay_groups(model, o.lr, o.weight_decay, o.layer_decay)
    return TransferStep(model, modules, groups, config, decay=config.train.decay)
