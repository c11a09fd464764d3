"""Tensors without values, to learn what a computation needs without doing it: its shapes, and the memory in use.

Within `Hollow` what torch makes is hollow: to whatever asks (autograd, autocast, the choice of a kernel) a tensor of
the CPU, but without memory. So is what is computed from it. Tensors of given values, as ``torch.tensor`` makes them,
are real, and so is what is computed from such alone. Reading a value of a hollow tensor is an error. Forward-mode
derivatives work.

It does what torch's ``FakeTensorMode`` does, in a third of the time and with those derivatives, which that lacks.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_META = torch.device("meta")


class HollowTensor(Tensor):
    """``held`` is a tensor of torch's device "meta", which has shape and storage, but no memory."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> "HollowTensor":
        tensor: Any = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=torch.device("cpu")
        )
        tensor.held = held
        return tensor

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"HollowTensor{tuple(self.shape)}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{func} on a tensor without values, outside of `Hollow`")


class Hollow(TorchDispatchMode):
    """The context. ``live`` are the bytes of all tensors made in it, hollow or real, that are still alive, ``peak`` the
    most there were at once. What a kernel needs for itself, and what an allocator rounds up, is not in it.

    ``model.to_empty(device="cpu")`` makes a model hollow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}
        self._known: dict[Any, Any] = {}  # operation and the shapes of its arguments -> tensors like its results

    def __enter__(self) -> "Hollow":
        future = torch.__future__
        self._before = future.get_overwrite_module_params_on_conversion()
        future.set_overwrite_module_params_on_conversion(True)  # a real parameter cannot become hollow in place
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.__future__.set_overwrite_module_params_on_conversion(self._before)

    def reset_peak(self) -> None:
        self.peak = self.live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.ops.aten._efficientzerotensor.default:  # of forward mode: a zero without memory
            zero = torch.zeros((), dtype=kwargs.get("dtype"))
            return HollowTensor(zero.to(_META).expand(args[0])) if args[0] else zero
        ours: dict[int, Tensor] = {}

        def held(t: Tensor) -> Tensor:
            if isinstance(t, HollowTensor):
                ours[id(t.held)] = t
                return t.held
            return t

        args, kwargs = _map(held, args), {key: _map(held, value) for key, value in kwargs.items()}
        named = kwargs.get("device") is not None
        if not ours and not named:
            return _map(self._follow, func(*args, **kwargs))
        args, kwargs = _map(_to_meta, args), {key: _map(_to_meta, value) for key, value in kwargs.items()}
        if named:
            kwargs["device"] = _META

        def hollow(t: Tensor) -> Tensor:  # what is computed in place is what was given
            return ours[id(t)] if id(t) in ours else HollowTensor(self._follow(t))

        return _map(hollow, self._computed(func, args, kwargs))

    def _computed(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The result on the meta device, as for the same shapes before: torch's own functions take most of the time.
        Results that share the storage of an argument are always computed."""
        key = func, _described(args), tuple((name, _described(value)) for name, value in kwargs.items())
        if key in self._known:
            return _map(_empty_like, self._known[key])
        result = func(*args, **kwargs)
        if not _storages(result) & _storages([args, list(kwargs.values())]):
            self._known[key] = _map(_empty_like, result)
        return result

    def _follow(self, t: Tensor) -> Tensor:
        """Count the storage of ``t``, unless it is known, until it is gone."""
        storage = t.untyped_storage()
        key, size = id(storage), storage.nbytes()

        def gone(_: Any) -> None:
            del self._storages[key]
            self.live -= size

        if key not in self._storages:
            self._storages[key] = weakref.ref(storage, gone)
            self.live += size
            self.peak = max(self.peak, self.live)
        return t


def _map(function: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` with ``function`` of its tensors, which only lists and tuples nest."""
    if isinstance(value, Tensor):
        return function(value)
    return type(value)(_map(function, part) for part in value) if isinstance(value, list | tuple) else value


def _to_meta(t: Tensor) -> Tensor:
    return t.to(_META)


def _empty_like(t: Tensor) -> Tensor:
    return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device)


def _described(value: Any) -> Any:
    """What the shapes of a result depend on."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    return tuple(map(_described, value)) if isinstance(value, list | tuple) else (type(value), value)


def _storages(value: Any) -> set[int]:
    found: set[int] = set()
    _map(lambda t: found.add(id(t.untyped_storage())), value)
    return found
