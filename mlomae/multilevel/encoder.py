"""Derivatives through the encoder: cut the graph at the features, work on the tiny head, come back once.

    ∂s(E(θ))/∂θ = (∂E/∂θ)ᵀ c   with   c = ∂s/∂z at z = E(θ)

However often ``s`` differentiates the head, the encoder is traversed once forward and once backward. Who needs the
features earlier (the steps on ω) encodes the batch himself and hands in the result, graph and all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mlomae.common.dtypes import wide
from mlomae.common.errors import ConfigError

from .batches import Batch, batch_size, split_batch
from .modes import full_precision
from .params import Params, leaves
from .problem import ThreeLevelProblem


class Encoded(NamedTuple):
    """Features of a batch with the graph that leads back to θ, good for one backward pass.

    ``theta`` are the leaves that the graph ends at, ``parts`` the encoder's outputs (one a chunk), ``z`` their values
    joined, at least float32: a leaf, at which scalars are differentiated. ``z.detach()`` serves who needs no θ.
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
    scalar: Callable[..., Tensor],
    chunks: int = 1,
    first: Encoded | None = None,
    also: Params | None = None,
) -> tuple[Params, Params]:
    """Gradient with respect to θ of ``scalar(z_1, ..., z_n)``, ``z_i`` the features of ``batches[i]``, and with respect
    to the leaves ``also`` on which ``scalar`` depends without the encoder (zeros where it does not).

    Two batches share one encoder pass where the problem can concatenate them. With ``first``, the first batch as
    ``encode`` returned it at this θ, only the others are encoded. With ``chunks > 1`` each pass is cut
    into parts whose activations are dropped and recomputed one part at a time, while ``scalar`` still sees all
    features (GradCache, Gao et al., RepL4NLP 2021): exact for losses that couple samples, dropout included.

    Of θ, returns only the entries that the features use (float32 where θ is), so that the caller can tell structural
    zeros without looking at values. Raises ConfigError where features and batches differ in length.
    """
    joint = first is None and problem.concat is not None and len(batches) == 2
    if joint:
        assert problem.concat is not None
        passes = [encode(problem, theta, problem.concat(*batches), chunks)]
    else:
        known = [] if first is None else [first]
        passes = known + [encode(problem, theta, batch, chunks) for batch in batches[len(known) :]]
    cuts = [encoded.z for encoded in passes]
    with torch.enable_grad():
        features = separate(cuts[0], batches) if joint else cuts
        with full_precision(cuts[0].device):
            value = scalar(*features)
        leaf = list((also or {}).values())
        found = torch.autograd.grad(value, cuts + leaf, allow_unused=True)
    cotangents, rest = found[: len(cuts)], found[len(cuts) :]
    explicit = {
        k: torch.zeros_like(t) if g is None else g for (k, t), g in zip((also or {}).items(), rest, strict=True)
    }
    total: Params = {}
    for encoded, cotangent in zip(passes, cotangents, strict=True):
        if cotangent is not None:
            pieces = torch.split(cotangent, [len(part) for part in encoded.parts])
            for part, c in zip(encoded.parts, pieces, strict=True):
                _accumulate(total, part, encoded.theta, c)
    return {k: total[k] for k in theta if k in total}, explicit


def separate(z: Tensor, batches: Sequence[Batch]) -> list[Tensor]:
    """Features of joined batches, cut apart again. Raises ConfigError where they differ in length."""
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
