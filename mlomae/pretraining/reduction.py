"""The explicit reduction: the mean of named tensors over data-parallel ranks, in buckets that travel asynchronously.

Steps call it themselves, there is no DDP wrapper (it does not mix with derivatives of higher order). Every tensor is
copied once, into its bucket; the results are parts of the buckets. One process copies nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from mmengine.dist import get_comm_device, get_world_size
from torch import Tensor, distributed

Tensors = dict[str, Tensor]
BUCKET = 25 * 2**20  # bytes, as in torch's DistributedDataParallel: large enough for bandwidth, small enough to overlap


def buckets(names: Iterable[str], tensors: Mapping[str, Tensor], limit: int | None = None) -> list[list[str]]:
    """``names`` in their order, cut where the dtype changes or where the next tensor would exceed ``limit`` bytes."""
    limit = BUCKET if limit is None else limit
    found: list[list[str]] = []
    size = 0
    for name in names:
        t = tensors[name]
        if found and tensors[found[-1][0]].dtype == t.dtype and size + t.nbytes <= limit:
            found[-1].append(name)
            size += t.nbytes
        else:
            found.append([name])
            size = t.nbytes
    return found


class _Sent:
    """A bucket on its way; ``receive`` waits for it."""

    def __init__(self, tensors: Tensors) -> None:
        self.shapes = {name: t.shape for name, t in tensors.items()}
        flat = torch.cat([t.detach().reshape(-1) for t in tensors.values()])
        self.home = flat.device
        self.flat = flat.to(get_comm_device())
        self.work = distributed.all_reduce(self.flat, async_op=True)

    def receive(self) -> Tensors:
        self.work.wait()
        flat = self.flat.div_(get_world_size()).to(self.home)
        parts = flat.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


def _received(sent: list[_Sent]) -> Tensors:
    return {name: t for bucket in sent for name, t in bucket.receive().items()}


def mean_over_ranks(tensors: Tensors) -> Tensors:
    """The mean of each tensor over the ranks, which all have to name the same ones; of one process, ``tensors``."""
    if get_world_size() == 1:
        return tensors
    sent = [_Sent({name: tensors[name] for name in bucket}) for bucket in buckets(tensors, tensors)]
    found = _received(sent)
    return {name: found[name] for name in tensors}


class MeanWhile:
    """``g = mean(theta, backward)``: what ``backward()`` returns, the gradient of the leaves ``theta``, averaged.

    A bucket leaves as soon as autograd has made its last gradient, while it goes on with the others. The buckets follow
    the order in which the gradients came the last time, which is the same on all ranks because their graphs are; what
    did not come then, or does not come now, travels at the end. For graphs in which every leaf is reached at most once
    by a single call of ``torch.autograd.grad``.
    """

    def __init__(self) -> None:
        self._order: list[str] = []

    def __call__(self, theta: Tensors, backward: Callable[[], Tensors]) -> Tensors:
        waiting = buckets(self._order, theta)
        came: Tensors = {}
        order: list[str] = []
        sent: list[_Sent] = []

        def arrive(name: str, gradient: Tensor) -> None:
            order.append(name)
            came[name] = gradient
            while waiting and all(each in came for each in waiting[0]):
                sent.append(_Sent({each: came.pop(each) for each in waiting.pop(0)}))

        hooks = [t.register_hook(partial(arrive, name)) for name, t in theta.items()]
        try:
            gradients = backward()
        finally:
            for hook in hooks:
                hook.remove()
        self._order = order
        late = mean_over_ranks({name: t for name, t in gradients.items() if name in came})
        found = _received(sent) | late
        return {name: found[name] for name in gradients}
