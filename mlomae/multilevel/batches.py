"""All that solvers do with a batch: count its samples, join two, cut one into parts and add up what each part gives.

A batch is a Tensor with samples along dimension 0, or a (nested) dict, tuple or list of such Tensors.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor, cat
from torch.utils._pytree import tree_leaves, tree_map_only

from mlomae.common.errors import ConfigError

from .params import Params, axpy

Batch: TypeAlias = Any


def batch_size(batch: Batch) -> int:
    """Number of samples: the length of the first Tensor in the batch. Raises ConfigError if there is none."""
    first = next((t for t in tree_leaves(batch) if isinstance(t, Tensor)), None)
    if first is None or first.dim() == 0:
        raise ConfigError("batch holds no tensor with samples along dimension 0")
    return first.shape[0]


def concat_batches(a: Batch, b: Batch) -> Batch:
    """Join two batches along dimension 0; keys that only one of two dicts has are dropped (weak labels, indices).

    Raises ConfigError if the two are built differently or hold something that is not a Tensor.
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return cat([a, b])
    if isinstance(a, dict) and isinstance(b, dict):
        return {k: concat_batches(a[k], b[k]) for k in a if k in b}
    if isinstance(a, (tuple, list)) and type(a) is type(b) and len(a) == len(b):
        joined = [concat_batches(x, y) for x, y in zip(a, b, strict=True)]
        return joined if isinstance(a, list) else tuple(joined)
    raise ConfigError(
        f"cannot concatenate batches of {type(a).__name__} and {type(b).__name__}: pass ThreeLevelProblem(concat=...)"
    )


def split_batch(batch: Batch, chunks: int, equal: bool = True) -> list[Batch]:
    """Cut a batch into ``chunks`` parts along dimension 0; what is not a Tensor goes to every part unchanged.

    With ``equal`` all parts must have the same size, so that the mean of their means is the mean of the batch; raises
    ConfigError for a batch that does not divide. Without it sizes differ by at most one.
    """
    if chunks < 1:
        raise ConfigError(f"chunks={chunks} must be at least 1")
    if chunks == 1:
        return [batch]
    size = batch_size(batch)
    if size < chunks or (equal and size % chunks):
        raise ConfigError(f"a batch of {size} samples does not divide into {chunks} equal chunks")

    def part(i: int) -> Batch:
        return tree_map_only(Tensor, lambda t: t.tensor_split(chunks)[i] if t.dim() else t, batch)

    return [part(i) for i in range(chunks)]


def sum_over_chunks(find: Callable[[Batch], Params], batch: Batch, chunks: int) -> Params:
    """Sum of ``find(part)`` over equal parts of a batch, taken one after the other, for memory."""
    total: Params = {}
    for part in split_batch(batch, chunks):
        total = axpy(1.0, find(part), total)
    return total
