"""An accelerator without hardware: tensors on the device "sim" are computed on the CPU, and none of the CPU mixes in.

`Simulated` is a context. Within it tensors move to "sim" as to a GPU, modules by ``model.to("sim")``. Values are right,
mixed precision and forward-mode derivatives included. An operation on tensors of both devices raises RuntimeError, as
on a GPU (which lets a CPU tensor of 0 dimensions pass, too), and ``found`` lists what a GPU would suffer from:

- "waits": the host waits for the device, where it reads a value or a shape that depends on values, where a tensor is
  copied between the devices (without ``non_blocking`` also to this one), where linear algebra looks whether it worked;
- "float64": more than a single number is in float64, which a consumer GPU computes at a 64th of its usual rate.

An entry names the innermost function of the project, or says that torch's backward pass is alone. The back-end is
torch's for extensions in Python. Importing this module registers it for the whole process, whose backward passes then
have a thread for it, so that its forks cannot have any: tests that use it run by themselves (`tests/test_device.py`).
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

# a process has one kind of accelerator
SUPPORTED = hasattr(backend_registration, "_setup_privateuseone_for_python_backend") and not torch.cuda.is_available()
ROOT = Path(__file__).parents[2]
PROJECT = tuple(str(ROOT / package) for package in ("mlomae", "benchmarks"))
WAITING = re.compile(
    r"_linalg_(check_errors|eigh|svd)|_local_scalar_dense|_unique2|bincount|equal|linalg_(eig|lstsq)|masked_select|nms|"
    r"nonzero|unique_\w+"
)
"""Operations that wait on CUDA, whatever their arguments."""
COPIES = ("_to_copy", "copy_")
LOW = re.compile(
    r"_?conv\w*|prelu|einsum|linear|matmul|add(mm|mv|r|bmm)|mm|mv|baddbmm|bmm|chain_matmul|linalg_(vecdot|multi_dot)|"
    r"scaled_dot_product_attention"
)
"""Operations that CUDA's autocast takes in half precision; of those that it knows it takes most others in float32."""
PROMOTED = re.compile(r"addc(div|mul)|atan2|bilinear|cross|dot|grid_sampler|index_put|scatter_add|tensordot|vdot")
"""These in the widest of their arguments' types."""


class SimTensor(Tensor):
    """A tensor on "sim"; ``held`` has its values, on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "SimTensor":
        tensor: Any = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=torch.device("sim", 0)
        )
        tensor.held = held
        return tensor

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Sim{self.held!r}"

    def tolist(self) -> Any:
        """As of any tensor, but torch refuses to do it for subclasses."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on the simulated device outside of `Simulated`")


class Simulated(TorchDispatchMode):
    """The context; ``found`` are lines "kind: file function: operation (line)"."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __enter__(self) -> "Simulated":
        future = torch.__future__
        self._before = torch._C._only_lift_cpu_tensors(), future.get_overwrite_module_params_on_conversion()
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device="sim")` is a copy from the CPU
        future.set_overwrite_module_params_on_conversion(True)  # a CPU parameter cannot become a SimTensor in place
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(self._before[0])
        torch.__future__.set_overwrite_module_params_on_conversion(self._before[1])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.partition("::")[2]
        given = _tensors([args, *kwargs.values()])
        ours = {id(t.held): t for t in given if isinstance(t, SimTensor)}
        others = [t for t in given if not isinstance(t, SimTensor)]
        device = kwargs.get("device")
        there = bool(ours) if device is None else torch.device(device).type == "sim"
        if name in COPIES:
            waits = bool(others) and not (kwargs.get("non_blocking") or args[2:3] == (True,)) if there else bool(ours)
        else:
            if ours and any(t.dim() for t in others):
                raise RuntimeError(f"tensors on the CPU and on the simulated device: {place_of(func)}")
            by_mask = name.startswith("index") and any(t.dtype == torch.bool for t in given[1:])
            waits = bool(ours) and (WAITING.fullmatch(name) is not None or by_mask)
        if waits:
            self.found.append(f"waits: {place_of(func)}")
        if there and device is not None:
            kwargs["device"] = torch.device("cpu")
        if func is torch.ops.aten._efficientzerotensor.default:  # of forward mode: it has no memory to read
            func = torch.ops.aten.zeros.default
        held = lambda t: t.held if isinstance(t, SimTensor) else t  # noqa: E731
        result = func(*_map(held, args), **{key: _map(held, value) for key, value in kwargs.items()})
        if not there:
            return result
        if any(t.dtype == torch.float64 and t.dim() for t in _tensors(result)):
            self.found.append(f"float64: {place_of(func)}")
        # what is computed in place is what was given
        return _map(lambda t: ours[id(t)] if id(t) in ours else SimTensor(t), result)


def _map(function: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` with ``function`` of its tensors, which only lists and tuples nest."""
    if isinstance(value, Tensor):
        return function(value)
    return type(value)(_map(function, part) for part in value) if isinstance(value, list | tuple) else value


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _map(found.append, value)
    return found


def place_of(operation: Any) -> str:
    """File and innermost function of the project that has called it, from whatever depth."""
    frame: Any = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(PROJECT):
        frame = frame.f_back
    if frame is None:
        return f"backward: {operation}"
    file = Path(frame.f_code.co_filename).relative_to(ROOT).as_posix()
    return f"{file} {frame.f_code.co_name}: {operation} (line {frame.f_lineno})"


class _Module:
    """What torch asks the module of a device."""

    def is_available(self) -> bool:
        return False

    def is_initialized(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """The values are drawn from the CPU's generator."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class _Hook(torch._C._acc.PrivateUse1Hooks if SUPPORTED else object):  # type: ignore[misc]
    def is_available(self) -> bool:
        return False

    def has_primary_context(self, device: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


def _register() -> list[torch.library.Library]:
    """Make the back-end; its autocast is CUDA's, by the list that torch has of it."""
    backend_registration._setup_privateuseone_for_python_backend("sim", _Module(), _Hook())
    others = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    others.fallback(torch.library.fallthrough_kernel)
    known = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    for full in torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCUDA"):
        namespace, _, rest = full.partition("::")
        if namespace != "aten":  # torchvision's, which keep float32
            continue
        name, _, overload = rest.partition(".")
        op = getattr(getattr(torch.ops.aten, name), overload or "default")
        known.impl(op, _autocast(op, name))
    return [others, known]


def _autocast(op: Any, name: str) -> Any:
    own_key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        single = any(t.dtype == torch.float32 for t in _tensors(args))
        low = LOW.fullmatch(name) or (PROMOTED.fullmatch(name) and not single)
        dtype = torch.bfloat16 if low else torch.float32

        def cast(t: Tensor) -> Tensor:
            return t.to(dtype) if t.dtype in (torch.float32, torch.bfloat16) else t

        with torch._C._ExcludeDispatchKeyGuard(own_key):
            return op(*_map(cast, args), **kwargs)

    return kernel


_libraries = _register() if SUPPORTED else []  # kept, or torch forgets what they register
