"""The configuration of a pretraining run: MMEngine Python files, checked strictly against the dataclasses below.

An unknown key, a value of the wrong type or out of range is a `ConfigError`; nothing is silently ignored.
"""

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from mlomae.common.errors import ConfigError
from mlomae.common.precision import resolve_amp
from mlomae.common.registry import Count, NotNegative, Positive, Share, check_interval
from mlomae.config.strict import ADDED, Configuration, build_dataclass, plain, read_config

Width = Annotated[int, "[1, 100000]"]
WIDTHS = {"tiny": 192, "small": 384, "base": 768, "large": 1024, "huge": 1280}  # of the named sizes
LEVELS = ("theta", "omega", "phi")
Depth = Annotated[int, "[1, 1000]"]


@dataclass
class ModelConfig:
    """Encoder and decoder; ``embed_dim``, ``depth``, ``num_heads`` override the named size.

    ``norm_eps``: of all layer norms; 1e-12 for weights of Hugging Face.
    """

    size: str = "base"
    img_size: Width = 224
    patch_size: Width = 16
    embed_dim: Width | None = None
    depth: Depth | None = None
    num_heads: Width | None = None
    decoder_embed_dim: Width = 512
    decoder_depth: Depth = 8
    decoder_num_heads: Width = 16
    norm_pix_loss: bool = True
    norm_eps: Annotated[float, "(0, 1)"] = field(default=1e-6, metadata=ADDED)

    @property
    def width(self) -> int:
        """0 for a size without a name."""
        return self.embed_dim or WIDTHS.get(self.size, 0)


@dataclass
class DataConfig:
    """Sources and batches. ``feedback`` is a labelled training source of its own; default: the split of ``train``.

    ``batch_size`` and ``feedback_batch_size`` are global, summed over data-parallel ranks; one larger than its part of
    the data is lowered, with a word in the log and ``lowered`` in the record. ``probe_limit`` caps the training images
    that k-NN and the linear probe are fitted on (None: all). ``shuffle_labels``, a seed, permutes the labels that the
    feedback sees among the images of each part of its split, so that images, split and class counts stay (a control);
    None leaves them. ``allow_near_copies`` accepts evaluation images of which training has recompressed, resized or
    mirrored copies (`mlomae.data.copies`).
    """

    train: dict = field(default_factory=dict)
    eval: dict | None = None
    feedback: dict | None = None
    shuffle_labels: int | None = field(default=None, metadata=ADDED)
    allow_near_copies: bool = field(default=False, metadata=ADDED)
    augment: dict = field(default_factory=lambda: {"type": "RandomResizedCropFlip"})
    feedback_augment: dict = field(default_factory=lambda: {"type": "RandomResizedCropFlip"})
    val_fraction: Annotated[float, "(0, 1)"] = 0.2
    split_seed: int = 0
    batch_size: Count = 128
    feedback_batch_size: Count = 128
    num_workers: Annotated[int, "[0, inf)"] = 0
    probe_limit: int | None = None


@dataclass
class LevelsConfig:
    """One outer iteration: ``lower_steps`` (K) on θ, ``head_steps`` on ω, one on φ by ``solver``.

    ``warmup``: outer iterations with random masks before φ takes its first step; its schedule starts there.
    ``warmup_margin``: percentage points by which the feedback's accuracy must exceed chance before φ starts, tested
    every tenth iteration from ``warmup`` on (`mlomae.pretraining.feedback_gate`); 0 is the fixed warm-up only.
    ``upper_every``: φ and its hypergradient take their turn in every n-th iteration after the warm-up only; the mask
    of those between is the learned one. The rate of φ stays a function of the iteration.
    ``mask_pooling``: σ weighs the patch tokens whose mean the feedback sees, so that L_III depends on φ directly too;
    ``solver="explicit"`` follows that part alone, which costs one encoder forward on the labelled images.
    ``v_momentum``: β of the running average of the response vector over φ's steps; 0 is no average.
    """

    lower_steps: Count = 2
    head_steps: Count = 1
    solver: str = "one_step"
    solver_options: dict = field(default_factory=dict)
    warmup: int = 0
    warmup_margin: Annotated[float, "[0, 100)"] = 0.0
    upper_every: Count = 1
    v_momentum: Annotated[float, "[0, 1)"] = 0.0
    mask_pooling: bool = False


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and cosine decay to ``min_lr``; ``warmup`` is a fraction of the run.

    ``clip_grad`` bounds the global norm of θ's gradient; the other levels are not clipped.
    """

    lr: NotNegative = 1e-3
    weight_decay: NotNegative = 0.05
    betas: tuple = (0.9, 0.95)
    warmup: Share = 0.05
    min_lr: NotNegative = 0.0
    clip_grad: Positive | None = None


@dataclass
class TrainConfig:
    """Length, precision and intervals, all counted in outer iterations.

    ``amp``: "auto" becomes "bf16" where that is faster (on GPUs and processors that compute it in hardware; on
    processors for ViTs of width 64 and more), else "none", which is float32; what it became is what the run, its
    checkpoints and its record have. ``cuda_graphs`` replays the kernels of ``compile`` as CUDA graphs.
    """

    outer_iterations: Count = 1000
    amp: Literal["auto", "none", "bf16"] = "auto"
    accumulate: Count = 1
    compile: bool = False
    cuda_graphs: bool = field(default=False, metadata=ADDED)
    log_interval: Count = 50
    picture_interval: Count = 500
    checkpoint_interval: Count = 500
    keep_checkpoints: Count = 2


@dataclass
class PretrainConfig(Configuration):
    """A whole run. ``mask`` is {type, ratio, options of the strategy}; ``feedback`` {type, options}; ``auxiliary``
    {type, options} of a loss added to the reconstruction loss."""

    name: str
    method: str
    model: ModelConfig
    data: DataConfig
    mask: dict
    train: TrainConfig
    feedback: dict = field(default_factory=lambda: {"type": "linear"})
    levels: LevelsConfig = field(default_factory=LevelsConfig)
    optim: dict[str, OptimConfig] = field(default_factory=dict)
    seed: Annotated[int, "[0, 4294967296)"] = 0
    demo: bool = False
    init_from: str | None = None
    auxiliary: dict | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.train.amp = resolve_amp(self.train.amp, self.model.width)  # type: ignore[assignment]


def _check_optim(section: object) -> None:
    """Raise ConfigError for a key of ``optim`` that is no level."""
    for key in section if isinstance(section, dict) else ():
        if key not in LEVELS:
            own = key in inspect.signature(OptimConfig).parameters
            ways = ", ".join(f"optim.{level}.{key}" for level in LEVELS)
            remedy = f"each level has its own: {ways}" if own else f"the levels are {', '.join(LEVELS)}"
            raise ConfigError(f"unknown config key 'optim.{key}'; {remedy}")


def config_from_dict(values: dict[str, Any]) -> PretrainConfig:
    """Check plain values (a config file's, or a checkpoint's) and build a `PretrainConfig`.

    Raises ConfigError, naming the key, also for a section without a type or for values that contradict each other.
    """
    _check_optim(values.get("optim"))
    config = build_dataclass(PretrainConfig, plain(values))
    for level in LEVELS:
        config.optim.setdefault(level, OptimConfig())
    kinds = {"mask": "masking strategies", "feedback": "feedback losses", "auxiliary": "auxiliary losses"}
    for section, kind in kinds.items():
        if "type" not in (getattr(config, section) or {"type": None}):
            raise ConfigError(f"config key '{section}.type' is missing; choose one of the {kind}")
    check_interval(config.mask.get("ratio", 0.75), "(0, 1)", "config key 'mask.ratio'")
    for level, settings in config.optim.items():
        betas = settings.betas
        if len(betas) != 2 or not all(isinstance(b, int | float) and 0.0 <= b < 1.0 for b in betas):
            raise ConfigError(f"config key 'optim.{level}.betas' must be two numbers inside [0, 1); got {betas}")
        if level != "theta" and settings.clip_grad is not None:
            raise ConfigError(f"config key 'optim.{level}.clip_grad' has no effect, only theta is clipped; remove it")
    levels, train = config.levels, config.train
    if not 0 <= levels.warmup < train.outer_iterations:
        raise ConfigError(
            f"config key 'levels.warmup' must be inside [0, train.outer_iterations), or the mask never learns; "
            f"got {levels.warmup}"
        )
    if levels.solver == "explicit" and not levels.mask_pooling:
        raise ConfigError(
            "levels.solver='explicit' needs levels.mask_pooling=True, or the mask has nothing to learn from"
        )
    if levels.solver == "finite_difference" and levels.mask_pooling:
        raise ConfigError("levels.solver='finite_difference' does not work with levels.mask_pooling; choose one_step")
    return config


def load_config(path: str | Path, overrides: dict[str, Any] | None = None) -> PretrainConfig:
    """Read an MMEngine Python config, apply ``--cfg-options`` style overrides ("data.batch_size": 64), check it."""
    return config_from_dict(read_config(path, overrides, "configs/pretrain/"))
