"""Vectors shaped like a module's parameters, and batches: the few operations that solvers need on both.

A vector is a dict from name to tensor. A key that is missing from one operand stands for zeros, so that a vector known
to vanish on some parameters (the decoder's, in the response vector) need not be stored or multiplied.

A batch is a Tensor with samples along dimension 0, or a (nested) dict, tuple or list of such Tensors.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from mlomae.common.errors import ConfigError
from mlomae.common.precision import wide

Batch: TypeAlias = Any
Params: TypeAlias = dict[str, Tensor]
Reduce: TypeAlias = Callable[[Params], Params]


def unchanged(x: Params) -> Params:
    """The reduction over one process: there is nothing to average."""
    return x


def dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensor:
    """Inner product ⟨a, b⟩ over the shared keys, 0-dim, on the tensors' device."""
    terms = [(wide(a[k]) * wide(b[k])).sum() for k in a if k in b]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def norm(a: Mapping[str, Tensor]) -> Tensor:
    """Euclidean norm ‖a‖ over all entries, 0-dim, without a host synchronisation."""
    terms = [torch.linalg.vector_norm(wide(t)) for t in a.values()]
    return torch.linalg.vector_norm(torch.stack(terms)) if terms else torch.zeros(())


def axpy(alpha: float | Tensor, x: Mapping[str, Tensor], y: Mapping[str, Tensor]) -> Params:
    """``alpha·x + y`` over the union of the keys, in ``y``'s order first."""
    out = {k: t + alpha * x[k] if k in x else t for k, t in y.items()}
    out.update({k: alpha * t for k, t in x.items() if k not in y})
    return out


def scale(alpha: float | Tensor, x: Mapping[str, Tensor]) -> Params:
    """``alpha·x``."""
    return {k: alpha * t for k, t in x.items()}


def fill(x: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Params:
    """``x`` with zeros for the keys that only ``like`` has, in ``like``'s order."""
    return {k: x[k] if k in x else torch.zeros_like(t) for k, t in like.items()}


def constants(x: Mapping[str, Tensor]) -> Params:
    """The same values, outside every graph (storage is shared)."""
    return {k: t.detach() for k, t in x.items()}


def leaves(x: Mapping[str, Tensor]) -> Params:
    """The same values as fresh leaves of a new graph (storage is shared)."""
    return {k: t.detach().requires_grad_() for k, t in x.items()}


def gradient(value: Tensor, wrt: Mapping[str, Tensor], create_graph: bool = False) -> Params:
    """``∂value/∂wrt`` as a dict like ``wrt``; zeros where ``value`` does not depend on an entry.

    The graph is kept: the values differentiated here are small, or are differentiated again.
    """
    if not wrt:
        return {}
    found = torch.autograd.grad(
        value, list(wrt.values()), retain_graph=True, create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(wrt, found, strict=True))


# --- batches --------------------------------------------------------------------------------------------------------


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
        return torch.cat([a, b])
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
