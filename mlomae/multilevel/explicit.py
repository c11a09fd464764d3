"""The explicit part alone: how L_III changes with φ at fixed θ.

    g_φ = ∂L_III/∂φ − (∂²L_II/∂φ∂ω) ∂L_III/∂ω

It exists where φ weighs the features that the feedback sees (``ThreeLevelProblem.attend``): patches whose features tell
the labels apart get a higher score, and the lower level weighs or masks them by it. The way through θ is left out, so
one encoder forward without a graph is all it costs, and its signal does not wait for a lower step to show an effect.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlomae.common.dtypes import wide
from mlomae.common.errors import ConfigError

from .batches import Batch, split_batch
from .encoder import separate
from .implicit import Hypergradient
from .modes import full_precision, no_autocast_cache
from .params import Params, Reduce, constants, gradient, keep, leaves
from .problem import ThreeLevelProblem
from .response import Paths, check_paths, identity, upper_batches, upper_scalar


def explicit(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    phi: Params,
    *,
    lower_batch: Batch,
    head_batch: Batch,
    upper_batch: Batch,
    reduce: Reduce | None = None,
    chunks: int = 1,
    paths: Paths = "both",
) -> Hypergradient:
    """g_φ, a dict like φ; ``lower_batch`` is not used. Options as in ``implicit``.

    Raises:
        ConfigError: a problem without ``attend``; unknown ``paths``; batches that do not divide into ``chunks``.
    """
    if problem.attend is None:
        raise ConfigError(
            "solver='explicit' needs a problem with attend: without it L_III depends on phi through theta"
        )
    check_paths(paths, omega, problem, head_batch)
    average, theta, phi = reduce or keep, constants(theta), leaves(phi)
    batches = upper_batches(problem, omega, head_batch, upper_batch, paths)
    upper: list[Tensor] = []
    scalar = upper_scalar(problem, theta, omega, phi, head_batch, upper_batch, identity, average, paths, upper)
    with no_autocast_cache():
        features = _features(problem, theta, batches, chunks)
        with torch.enable_grad(), full_precision(features[0].device):
            found = gradient(scalar(*features), phi)
    return Hypergradient(average(constants(found)), upper[0])


@torch.no_grad()
def _features(problem: ThreeLevelProblem, theta: Params, batches: list[Batch], chunks: int) -> list[Tensor]:
    """z of every batch, in one pass where the problem can join two."""
    joined = [problem.concat(*batches)] if problem.concat is not None and len(batches) == 2 else batches
    z = [
        wide(torch.cat([problem.features(theta, part) for part in split_batch(batch, chunks, False)]))
        for batch in joined
    ]
    return separate(z[0], batches) if len(joined) < len(batches) else z
