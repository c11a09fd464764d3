"""Derivatives through the encoder: cut the graph at the features, differentiate the tiny head, go back once.

    ∂s(E(θ))/∂θ = (∂E/∂θ)ᵀ c   with   c = ∂s/∂z at z = E(θ)

However often ``s`` differentiates the head, the encoder is traversed once forward and once backward. A caller that
needs the features earlier (the steps on ω) encodes the batch itself and passes in the result with its graph.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mlomae.common.errors import ConfigError
from mlomae.common.precision import full_precision, wide

from .params import Batch, Params, batch_size, leaves, split_batch
from .problem import ThreeLevelProblem


class Encoded(NamedTuple):
    """Features of a batch with the graph that leads back to θ, good for one backward pass.

    ``theta`` are the leaves that the graph ends at, ``parts`` the encoder's outputs (one per chunk), ``z`` their values
    joined, at least float32: a leaf, at which scalars are differentiated. Use ``z.detach()`` where θ does not matter.
    """

    theta: Params
    parts: list[Tensor]
    z: Tensor


def encode(problem: ThreeLevelProblem, theta: Params, batch: Batch, chunks: int = 1) -> Encoded:
    """One encoder pass at θ, its graph kept; ``chunks`` as in ``pull_back``."""
    theta = leaves(theta)
    with torch.enable_grad():
        if chunks == 1:
            parts = [problem.features(theta, batch)]
        else:
            cut = split_batch(batch, chunks, False)
            parts = [checkpoint(problem.features, theta, part, use_reentrant=False) for part in cut]
    values = [part.detach() for part in parts]
    return Encoded(theta, parts, wide(values[0] if chunks == 1 else torch.cat(values)).requires_grad_())


def pull_back(
    problem: ThreeLevelProblem,
    theta: Params,
    batches: Sequence[Batch],
    scalar: Callable[..., tuple[Tensor, Any]],
    chunks: int = 1,
    first: Encoded | None = None,
    also: Params | None = None,
) -> tuple[Params, Params, Any]:
    """Gradient in θ of ``value``, the first result of ``scalar(z_1, ..., z_n)`` with ``z_i`` the features of
    ``batches[i]``; gradient in the leaves ``also``, on which it depends without the encoder (zeros where it does not);
    and the second result of ``scalar`` as it is.

    Two batches share one encoder pass if the problem can concatenate them. With ``first``, the first batch as
    ``encode`` returned it at this θ, only the others are encoded. With ``chunks > 1`` each pass is cut
    into parts whose activations are dropped and recomputed one part at a time, while ``scalar`` still sees all
    features (GradCache, Gao et al., RepL4NLP 2021): exact for losses that couple samples, dropout included.

    Of θ, returns only the entries that the features use (float32 where θ is), so that the caller can tell structural
    zeros without looking at values. Raises ConfigError if features and batches differ in length.
    """
    also = also or {}
    concat = problem.concat if first is None and len(batches) == 2 else None
    if concat is not None:
        passes, sizes = [encode(problem, theta, concat(*batches), chunks)], [batch_size(b) for b in batches]
        if sum(sizes) != len(passes[0].z):
            raise ConfigError(f"features has length {len(passes[0].z)} for batches of {sizes}: samples must come first")
    else:
        known = [] if first is None else [first]
        passes = known + [encode(problem, theta, batch, chunks) for batch in batches[len(known) :]]
    cuts = [encoded.z for encoded in passes]
    with torch.enable_grad():
        features = cuts if concat is None else torch.split(cuts[0], sizes)
        with full_precision(cuts[0].device):
            value, result = scalar(*features)
        found = torch.autograd.grad(value, cuts + list(also.values()), allow_unused=True)
    rest = zip(also.items(), found[len(cuts) :], strict=True)
    explicit = {k: torch.zeros_like(t) if g is None else g for (k, t), g in rest}
    total: Params = {}
    for encoded, cotangent in zip(passes, found[: len(cuts)], strict=True):
        if cotangent is not None:
            pieces = torch.split(cotangent, [len(part) for part in encoded.parts])
            for part, c in zip(encoded.parts, pieces, strict=True):
                if part.requires_grad:
                    wrt = list(encoded.theta.values())
                    gradients = torch.autograd.grad(part, wrt, c.to(part.dtype), allow_unused=True)
                    for key, g in zip(encoded.theta, gradients, strict=True):
                        if g is not None:
                            total[key] = total[key] + g if key in total else g
    return {k: total[k] for k in theta if k in total}, explicit, result
