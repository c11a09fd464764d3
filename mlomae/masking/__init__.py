"""Masking strategies: what they share, and one file each in ``strategies``; `create` builds one by name."""

from mlomae.common.registry import import_modules
from mlomae.masking.base import (
    AdaptiveMasking,
    MaskingStrategy,
    MaskState,
    Reconstruction,
    UnweightedMasking,
    choose,
    create,
    is_coupling,
    is_trainable,
    list_strategies,
    register,
)
from mlomae.models import Mask, keep_count

import_modules("mlomae.masking.strategies")

__all__ = [
    "AdaptiveMasking",
    "Mask",
    "MaskState",
    "MaskingStrategy",
    "Reconstruction",
    "UnweightedMasking",
    "choose",
    "create",
    "is_coupling",
    "is_trainable",
    "keep_count",
    "list_strategies",
    "register",
]
