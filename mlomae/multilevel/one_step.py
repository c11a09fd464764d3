"""One step: both inverse Hessians are the identity, as in MLO-MAE (Guo et al., TMLR 2025, arXiv 2402.18128).

    g_φ = −(∂²L_I/∂φ∂θ) [∂L_III/∂θ − (∂²L_II/∂θ∂ω) ∂L_III/∂ω]

Up to the factor lr·head_lr this differentiates one gradient step of each lower level. Cost: one encoder forward and
backward, and one forward-mode pass through the lower model. Exact, where the authors take finite differences.
"""

from __future__ import annotations

from .batches import Batch
from .encoder import Encoded
from .implicit import Hypergradient, implicit
from .params import Params, Reduce
from .problem import ThreeLevelProblem
from .response import Paths, identity


def one_step(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    phi: Params,
    *,
    lower_batch: Batch,
    head_batch: Batch,
    upper_batch: Batch,
    reduce: Reduce | None = None,
    smooth: Reduce | None = None,
    chunks: int = 1,
    paths: Paths = "both",
    rate: float = 1.0,
    encoded_head: Encoded | None = None,
) -> Hypergradient:
    """g_φ, a dict like φ, with the identity for both inverse Hessians; options as in ``implicit``.

    Raises:
        ConfigError: unknown ``paths``; batches that do not divide into ``chunks``.
    """
    return implicit(
        problem,
        theta,
        omega,
        phi,
        lower_batch=lower_batch,
        head_batch=head_batch,
        upper_batch=upper_batch,
        solve_lower=identity,
        solve_head=identity,
        reduce=reduce,
        smooth=smooth,
        chunks=chunks,
        paths=paths,
        rate=rate,
        encoded_head=encoded_head,
    )
