"""Vectors shaped like a module's parameters: dicts from name to tensor, and the few operations solvers need.

A key that is missing from one operand stands for zeros, so that a vector known to vanish on some parameters (the
decoder's, in the response vector) need not be stored or multiplied.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from mlomae.common.precision import wide

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


def zeros_like(x: Mapping[str, Tensor]) -> Params:
    """Zeros with ``x``'s keys, shapes, dtypes and devices."""
    return {k: torch.zeros_like(t) for k, t in x.items()}


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
