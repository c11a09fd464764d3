"""The explicit part alone: how L_III changes with φ at fixed θ.

    g_φ = ∂L_III/∂φ − (∂²L_II/∂φ∂ω) ∂L_III/∂ω

It exists if the feedback pools features by the scores of φ (``ThreeLevelProblem.pool``): patches whose features tell
the labels apart get a higher score, and the lower level weights or masks them by it. The path through θ is left out, so
it costs one encoder forward without a graph, and its signal does not have to wait for a lower step to take effect.
"""

from dataclasses import replace

import torch
from torch import Tensor

from mlomae.common.errors import ConfigError
from mlomae.common.precision import full_precision, no_autocast_cache, wide

from ..batches import split_batch
from ..encoder import separate
from ..params import constants, gradient, leaves
from ..problem import Point
from ..registry import Hypergradient, register
from ..response import identity, upper_batches, upper_scalar


@register("explicit")
def explicit(at: Point) -> Hypergradient:
    """The equation above; ``at.lower_batch`` is not used.

    Raises:
        ConfigError: a problem without ``pool``; batches that do not divide into ``at.chunks``.
    """
    if at.problem.pool is None:
        raise ConfigError("solver='explicit' needs a problem with pool: without it L_III depends on phi through theta")
    at = replace(at, theta=constants(at.theta), phi=leaves(at.phi))
    with no_autocast_cache():
        features = _features(at)
        with torch.enable_grad(), full_precision(features[0].device):
            value, loss_upper = upper_scalar(at, identity)(*features)
            found = gradient(value, at.phi)
    return Hypergradient(at.average(constants(found)), loss_upper)


@torch.no_grad()
def _features(at: Point) -> list[Tensor]:
    """z of every batch, in one pass if the problem can join two."""
    problem, batches = at.problem, upper_batches(at)
    joined = [problem.concat(*batches)] if problem.concat is not None and len(batches) == 2 else batches
    z = [
        wide(torch.cat([problem.features(at.theta, part) for part in split_batch(batch, at.chunks, False)]))
        for batch in joined
    ]
    return separate(z[0], batches) if len(joined) < len(batches) else z
