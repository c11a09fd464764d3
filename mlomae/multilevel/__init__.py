"""Three coupled minimisations and the gradient through them, in pure torch.

A solver is a function of losses, parameters and batches; ``OuterStep`` is one iteration of the method. Nothing here
knows about engines, data-parallel wrappers or logging. Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128.
"""

from __future__ import annotations

from .influence import patch_influence
from .mixed import mixed_product
from .params import Params
from .problem import ThreeLevelProblem
from .response import identity, response_vector
from .sama import AdamPreconditioner
from .solvers import hypergradient, list_options, list_solvers
from .step import OuterStep

__all__ = [
    "AdamPreconditioner",
    "OuterStep",
    "Params",
    "ThreeLevelProblem",
    "hypergradient",
    "identity",
    "list_options",
    "list_solvers",
    "mixed_product",
    "patch_influence",
    "response_vector",
]
