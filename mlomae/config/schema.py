"""The configuration of a pretraining run: MMEngine Python files, checked strictly against the dataclasses below.

An unknown key, a value of the wrong type or out of range is a `ConfigError`; nothing is silently ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlomae.config.ranges import check_ranges
from mlomae.config.strict import Configuration, build_dataclass, plain, read_config


@dataclass
class ModelConfig:
    """Encoder and decoder; ``embed_dim``, ``depth``, ``num_heads`` override the named size."""

    size: str = "base"
    img_size: int = 224
    patch_size: int = 16
    embed_dim: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    decoder_embed_dim: int = 512
    decoder_depth: int = 8
    decoder_num_heads: int = 16
    norm_pix_loss: bool = True


@dataclass
class DataConfig:
    """Sources and batches. ``feedback`` is a labelled training source of its own; default: the split of ``train``.

    ``batch_size`` and ``feedback_batch_size`` are global, summed over data-parallel ranks; one larger than its part of
    the data repeats images. ``probe_limit`` caps the training images that k-NN and the linear probe are fitted on
    (None: all). ``shuffle_labels``, a seed, permutes the labels that the feedback sees among the images of each part of
    its split, so that images, split and class counts stay (a control); None leaves them.
    """

    train: dict = field(default_factory=dict)
    eval: dict | None = None
    feedback: dict | None = None
    shuffle_labels: int | None = None
    augment: dict = field(default_factory=lambda: {"type": "RandomResizedCropFlip"})
    feedback_augment: dict = field(default_factory=lambda: {"type": "RandomResizedCropFlip"})
    val_fraction: float = 0.2
    split_seed: int = 0
    batch_size: int = 128
    feedback_batch_size: int = 128
    num_workers: int = 0
    probe_limit: int | None = None


@dataclass
class LevelsConfig:
    """One outer iteration: ``lower_steps`` (K) on θ, ``head_steps`` on ω, one on φ by ``solver``.

    ``warmup``: outer iterations with random masks before φ takes its first step; its schedule starts there.
    ``warmup_margin``: percentage points by which the feedback's accuracy must exceed chance before φ starts, tested
    every tenth iteration from ``warmup`` on (`mlomae.pretraining.warmup`); 0 is the fixed warm-up only.
    ``upper_every``: φ and its hypergradient take their turn in every n-th iteration after the warm-up only; the mask
    of those between is the learned one. The rate of φ stays a function of the iteration.
    ``mask_pooling``: σ weighs the patch tokens whose mean the feedback sees, so that L_III depends on φ directly too;
    ``solver="explicit"`` follows that part alone, which costs one encoder forward on the labelled images.
    ``v_momentum``: β of the running average of the response vector over φ's steps; 0 is no average.
    """

    lower_steps: int = 2
    head_steps: int = 1
    solver: str = "one_step"
    solver_options: dict = field(default_factory=dict)
    warmup: int = 0
    warmup_margin: float = 0.0
    upper_every: int = 1
    v_momentum: float = 0.0
    mask_pooling: bool = False


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and cosine decay to ``min_lr``; ``warmup`` is a fraction of the run.

    ``clip_grad`` bounds the global norm of θ's gradient; the other levels are not clipped.
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple = (0.9, 0.95)
    warmup: float = 0.05
    min_lr: float = 0.0
    clip_grad: float | None = None


@dataclass
class TrainConfig:
    """Length, precision and intervals, all counted in outer iterations. ``amp``: "none" or "bf16"."""

    outer_iterations: int = 1000
    amp: str = "none"
    accumulate: int = 1
    compile: bool = False
    log_interval: int = 50
    picture_interval: int = 500
    checkpoint_interval: int = 500
    keep_checkpoints: int = 2


@dataclass
class PretrainConfig(Configuration):
    """A whole run. ``mask`` is {type, ratio, options of the strategy}; ``feedback`` {type, options}; ``auxiliary``
    {type, options} of a loss beside the reconstruction."""

    name: str
    method: str
    model: ModelConfig
    data: DataConfig
    mask: dict
    train: TrainConfig
    feedback: dict = field(default_factory=lambda: {"type": "linear"})
    levels: LevelsConfig = field(default_factory=LevelsConfig)
    optim: dict[str, OptimConfig] = field(default_factory=dict)
    seed: int = 0
    demo: bool = False
    init_from: str | None = None
    auxiliary: dict | None = None

    def to_dict(self) -> dict[str, Any]:
        """As `Configuration`; no auxiliary loss and no shuffled labels are no keys, so that the hash of a configuration
        is that of the records of before there were any."""
        values = super().to_dict()
        for section, key in ((values, "auxiliary"), (values["data"], "shuffle_labels")):
            if section[key] is None:
                del section[key]
        return values


def config_from_dict(values: dict[str, Any]) -> PretrainConfig:
    """Check plain values (a config file's, or a checkpoint's) and build a `PretrainConfig`."""
    config = build_dataclass(PretrainConfig, plain(values))
    for level in ("theta", "omega", "phi"):
        config.optim.setdefault(level, OptimConfig())
    check_ranges(config)
    return config


def load_config(path: str | Path, overrides: dict[str, Any] | None = None) -> PretrainConfig:
    """Read an MMEngine Python config, apply ``--cfg-options`` style overrides ("data.batch_size": 64), check it."""
    return config_from_dict(read_config(path, overrides, "configs/pretrain/"))
