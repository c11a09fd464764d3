"""Masking strategies, one file each; `create` builds one by name."""

from mlomae.masking.adaptive import AdaptiveMasking, Reconstruction
from mlomae.masking.base import (
    Mask,
    MaskingStrategy,
    MaskState,
    UnweightedMasking,
    create,
    is_trainable,
    keep_count,
    list_strategies,
    register,
)
from mlomae.masking.strategies import (  # noqa: F401  (importing a strategy registers it)
    adamae,
    adios,
    amt,
    attg,
    attmask,
    automae,
    block,
    cl_mae,
    colormae,
    grid,
    hpm,
    learned,
    oracle,
    pixel_statistics,
    random,
    random_ratio,
    self_guided,
    semmae,
    simmim,
)

__all__ = [
    "AdaptiveMasking",
    "Mask",
    "MaskState",
    "MaskingStrategy",
    "Reconstruction",
    "UnweightedMasking",
    "create",
    "is_trainable",
    "keep_count",
    "list_strategies",
    "register",
]
