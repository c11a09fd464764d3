"""Three coupled minimisations and the gradient through them, in pure torch.

A solver is a function of losses, parameters and batches; ``OuterStep`` is one iteration of the method. Nothing here
knows about engines, data-parallel wrappers or logging. Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128.
"""

from mlomae.common.registry import import_modules

from .params import Params
from .problem import Hypergradient, Point, ThreeLevelProblem, hypergradient, list_options, list_solvers, register
from .products import mixed_product, patch_influence
from .response import identity, implicit, respond
from .solvers.one_step import AdamPreconditioner
from .step import OuterStep

import_modules(f"{__name__}.solvers")

__all__ = [
    "AdamPreconditioner",
    "Hypergradient",
    "OuterStep",
    "Params",
    "Point",
    "ThreeLevelProblem",
    "hypergradient",
    "identity",
    "implicit",
    "list_options",
    "list_solvers",
    "mixed_product",
    "patch_influence",
    "register",
    "respond",
]
