"""The configuration of a transfer: sections of all tasks and of the dense ones, with checks that name the wrong key.

There is one recipe for each data set, the same for every backbone, whose weights are given on the command line.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from mlomae.common.errors import ConfigError, first_line_of
from mlomae.common.precision import resolve_amp
from mlomae.common.registry import Count, NotNegative
from mlomae.config.strict import ADDED, Configuration, build_dataclass, plain, read_config
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD

C = TypeVar("C", bound="TransferConfig")


@dataclass
class BackboneConfig:
    """``weights``: a checkpoint or export of ours, official MAE weights, "timm:NAME[:pretrained]", "random" (with
    ``model``, the architecture) or "random:PATH" (the architecture of a file). ``img_size`` in pixels."""

    weights: str | None = None
    model: dict | None = None
    img_size: int | list = 224
    drop_path: Annotated[float, "[0, 1)"] = 0.0

    def named_weights(self) -> str:
        """``weights``; ConfigError if there are none."""
        if not self.weights:
            raise ConfigError("no backbone was named; give CKPT=... (or --weights), or 'random' as the floor")
        return self.weights

    @property
    def height_width(self) -> tuple[int, int]:
        """``img_size`` as (height, width)."""
        height, width = [self.img_size] * 2 if isinstance(self.img_size, int) else self.img_size
        return height, width


@dataclass
class FeatureBackboneConfig(BackboneConfig):
    """The backbone of dense heads; all keys are arguments of `mlomae.backbones.feature_vit.FeatureViT`."""

    out_indices: tuple = (3, 5, 7, 11)
    window_size: int = 0
    global_blocks: tuple = ()
    rel_pos: bool = False
    with_cp: bool = False


@dataclass
class OptimConfig:
    """``lr`` at this batch size, the peak; ``warmup`` is a fraction of the run; every layer's rate ends at
    ``min_lr`` times its share."""

    type: Literal["adamw", "sgd", "lars"] = "adamw"
    lr: Annotated[float, "(0, inf)"] = 1e-3
    weight_decay: NotNegative = 0.05
    layer_decay: Annotated[float, "(0, 1]"] = 1.0
    betas: tuple = (0.9, 0.999)
    momentum: Annotated[float, "[0, 1)"] = 0.9
    warmup: Annotated[float, "[0, 1]"] = 0.05
    min_lr: NotNegative = 1e-6
    clip_grad: Annotated[float, "(0, inf)"] | None = None


@dataclass
class DataConfig:
    """Sources (``type``, ``root``, ``split``, ...). ``batch_size`` is global, summed over ranks. ``allow_near_copies``
    accepts test images of which training or pretraining has altered copies (`mlomae.data.copies`), ``allow_seen`` those
    that the backbone was pretrained on; the record counts them. ``val``: the source that ``train.eval_interval``
    evaluates on, None for ``test``."""

    train: dict = field(default_factory=dict)
    test: dict = field(default_factory=dict)
    allow_near_copies: bool = field(default=False, metadata=ADDED)
    allow_seen: bool = field(default=False, metadata=ADDED)
    val: dict | None = field(default=None, metadata=ADDED)
    batch_size: Count = 16
    num_workers: Annotated[int, "[0, inf)"] = 0


@dataclass
class TrainConfig:
    """Precision (``amp`` as in a pretraining, "auto" always float32 on a processor) and intervals, in iterations.
    ``eval_interval``: evaluate on the way, None only at the end. ``select``: test the "last" weights, or the "best" on
    ``data.val``."""

    amp: Literal["auto", "none", "bf16"] = "auto"
    log_interval: Count = 50
    checkpoint_interval: Count = 500
    keep_checkpoints: Count = 2
    eval_interval: Count | None = field(default=None, metadata=ADDED)
    select: Literal["last", "best"] = field(default="last", metadata=ADDED)

    def __post_init__(self) -> None:
        self.amp = resolve_amp(self.amp)  # type: ignore[assignment]


@dataclass(kw_only=True)
class TransferConfig(Configuration):
    """The configuration that all tasks share; a task adds its own sections and keys, and extends `check`.

    A key ``protocol`` of a task is what tables call its protocol, "finetune" without one.
    """

    name: str
    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    seed: Annotated[int, "[0, 4294967296)"] = 0
    demo: bool = False

    @classmethod
    def load(cls: type[C], path: str | Path, overrides: dict[str, Any] | None = None, examples: str = "configs/") -> C:
        """Read an MMEngine Python config, apply ``--cfg-options`` style overrides, check it.

        ``examples``: the folder that the error for a missing file points to.
        """
        return cls.from_dict(read_config(path, overrides, examples))

    @classmethod
    def from_dict(cls: type[C], values: dict[str, Any]) -> C:
        """Check plain values and build the configuration; ConfigError names the key at fault."""
        config = build_dataclass(cls, plain(values))
        config.check()
        return config

    def fitted(self: C, patch_size: int) -> C:
        """With what follows from the patch size of the backbone written out; what is given stays."""
        return self

    def check(self) -> None:
        """Raise ConfigError for values that contradict each other, or that a type cannot express."""
        optim, size = self.optim, self.backbone.img_size
        if len(optim.betas) != 2 or not all(isinstance(b, int | float) and 0.0 <= b < 1.0 for b in optim.betas):
            raise ConfigError(f"config key 'optim.betas' must be two numbers inside [0, 1); got {optim.betas}")
        if optim.min_lr > optim.lr:
            raise ConfigError(f"config key 'optim.min_lr' must be at most optim.lr, {optim.lr:g}; got {optim.min_lr}")
        sides = [size] * 2 if isinstance(size, int) else size
        if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
            raise ConfigError(f"config key 'backbone.img_size' must be a side or [height, width] in pixels; got {size}")
        if self.train.select == "best" and not (self.data.val and self.train.eval_interval):
            raise ConfigError(
                "config key 'train.select' is 'best', of evaluations on a validation part; set data.val and "
                "train.eval_interval"
            )
        if self.data.val and not self.train.eval_interval:
            raise ConfigError("config key 'data.val' is evaluated every train.eval_interval iterations; set that, too")
        for part, source in (("train", self.data.train), ("test", self.data.test), ("val", self.data.val)):
            if source is not None and "type" not in source:
                raise ConfigError(f"config key 'data.{part}.type' is missing; name a data source")


@dataclass
class DenseDataConfig(DataConfig):
    """Sources, and the transforms of mmseg or mmdet between loading and packing.

    ``augment`` sees images with labels or objects; ``evaluate`` images alone, since predictions are brought back to the
    size of the file. Evaluation takes images one by one. ``mean`` and ``std`` are per channel, in units of [0, 1].
    """

    augment: list = field(default_factory=list)
    evaluate: list = field(default_factory=list)
    mean: tuple = field(default=IMAGENET_MEAN, metadata=ADDED)
    std: tuple = field(default=IMAGENET_STD, metadata=ADDED)


@dataclass
class DenseTrainConfig(TrainConfig):
    """Length, and how the rate falls: "linear" is mmseg's poly of power 1, "steps" are at 8/9 and 26/27."""

    iterations: Count = 160_000
    decay: Literal["linear", "cosine", "steps"] = "linear"


@dataclass(kw_only=True)
class DenseConfig(TransferConfig):
    """A transfer under dense heads. ``overlays``: test images drawn as pictures.

    ``derived``: keys of ``model`` that follow from the other sections, and must not be given.
    """

    derived = frozenset[str]()

    data: DenseDataConfig
    backbone: FeatureBackboneConfig = field(default_factory=FeatureBackboneConfig)
    train: DenseTrainConfig = field(default_factory=DenseTrainConfig)
    overlays: Annotated[int, "[0, inf)"] = 8
    model: dict = field(default_factory=dict)

    def check(self) -> None:
        super().check()
        if given := sorted(self.derived & set(self.model)):
            raise ConfigError(f"config key 'model.{given[0]}' is made from the other sections; leave it out")


@contextmanager
def values_of(section: str) -> Iterator[None]:
    """Turn errors about a value's type in a free-form section into a one-line ConfigError."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"config section '{section}' holds a value of the wrong type ({first_line_of(error)}); correct it"
        ) from error
