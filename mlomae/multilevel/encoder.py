"""Derivatives through the encoder: cut the graph at the features, work on the tiny head, come back once.

    ∂s(E(θ))/∂θ = (∂E/∂θ)ᵀ c   with   c = ∂s/∂z at z = E(θ)

However often ``s`` differentiates the head, the encoder is traversed once forward and once backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mlomae.errors import ConfigError

from .batches import Batch, batch_size, split_batch
from .modes import full_precision
from .params import Params, leaves, wide
from .problem import ThreeLevelProblem


def pull_back(
    problem: ThreeLevelProblem,
    theta: Params,
    batches: Sequence[Batch],
    scalar: Callable[..., Tensor],
    chunks: int = 1,
) -> Params:
    """Gradient with respect to θ of ``scalar(z_1, ..., z_n)``, ``z_i`` the features of ``batches[i]``.

    Two batches share one encoder pass where the problem can concatenate them. With ``chunks > 1`` each pass is cut
    into parts whose activations are dropped and recomputed one part at a time, while ``scalar`` still sees all
    features (GradCache, Gao et al., RepL4NLP 2021): exact for losses that couple samples, dropout included.

    Returns only the entries of θ that the features use (float32 where θ is), so that the caller can tell structural
    zeros without looking at values. Raises ConfigError where features and batches differ in length.
    """
    theta = leaves(theta)
    with torch.enable_grad():
        joint = problem.concat is not None and len(batches) == 2
        inputs = [problem.concat(*batches)] if problem.concat is not None and joint else list(batches)
        passes = [_forward(problem, theta, batch, chunks) for batch in inputs]
        cuts = [wide(torch.cat([part.detach() for part in parts])).requires_grad_() for parts in passes]
        features = _separate(cuts[0], batches) if joint else cuts
        with full_precision(cuts[0].device):
            value = scalar(*features)
        cotangents = torch.autograd.grad(value, cuts, allow_unused=True)
    total: Params = {}
    for parts, cotangent in zip(passes, cotangents, strict=True):
        if cotangent is not None:
            for part, c in zip(parts, torch.split(cotangent, [len(part) for part in parts]), strict=True):
                _accumulate(total, part, theta, c)
    return {k: total[k] for k in theta if k in total}


def _forward(problem: ThreeLevelProblem, theta: Params, batch: Batch, chunks: int) -> list[Tensor]:
    if chunks == 1:
        return [problem.features(theta, batch)]
    return [
        checkpoint(problem.features, theta, part, use_reentrant=False) for part in split_batch(batch, chunks, False)
    ]


def _separate(z: Tensor, batches: Sequence[Batch]) -> list[Tensor]:
    sizes = [batch_size(batch) for batch in batches]
    if sum(sizes) != len(z):
        raise ConfigError(f"features has length {len(z)} for batches of {sizes}: samples must come first")
    return list(torch.split(z, sizes))


def _accumulate(total: Params, z: Tensor, theta: Params, c: Tensor) -> None:
    if not z.requires_grad:
        return
    found = torch.autograd.grad(z, list(theta.values()), c.to(z.dtype), allow_unused=True)
    for key, g in zip(theta, found, strict=True):
        if g is not None:
            total[key] = total[key] + g if key in total else g
