"""Diagnostics: which patches the feedback wants reconstructed, and whether those are the objects.

`diagnose` (the command) is imported from its own module: it needs the engine, whose hooks need this package.
"""

from mlomae.pretraining.influence import Influence, influence_along_response, model_influence
from mlomae.pretraining.separation import Separation, Spread, auroc, separate, spread

__all__ = [
    "Influence",
    "Separation",
    "Spread",
    "auroc",
    "influence_along_response",
    "model_influence",
    "separate",
    "spread",
]
