"""Number formats and kernels: which one a run computes in, contexts for what mixed precision would spoil."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mlomae.common.system import cpu_flags

BF16_WIDTH = 64  # of a ViT, from which a processor gains by bfloat16
_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "bf16": "Arm's bf16"}  # flag of a processor -> its name


def bf16_unit() -> str:
    """What multiplies matrices of bfloat16 in hardware here, "" if nothing does: autocast is slower than float32 then.

    It is the GPU where there is one, because runs train on it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name() if torch.cuda.is_bf16_supported(including_emulation=False) else ""
    return cpu_bf16_unit()


def cpu_bf16_unit() -> str:
    """`bf16_unit` of the processor."""
    flags = cpu_flags()
    return next((name for flag, name in _UNITS.items() if flag in flags), "")


def bf16_pays(width: int) -> bool:
    """Whether bfloat16 is faster than float32 here, for a ViT of this ``width``, 0 if it is not known.

    On a processor the casts of narrow layers take longer than their products gain. A step of MAE on one core with AMX:
    0.80 of float32's time at width 64, 0.64 at 128, 0.51 at 192, 0.50 at 256, 0.44 at 384, 0.46 at 768 (medians of four
    to seven turns). With torch's fused attention it was 1.4 at 128 and 1.0 at 192 (`mlomae.models.attention`).
    """
    return bool(bf16_unit()) and (torch.cuda.is_available() or width >= BF16_WIDTH)


def resolve_amp(amp: str, width: int = 0) -> str:
    """``train.amp`` of a run on this machine: "auto" is "bf16" where that pays, else "none"."""
    return amp if amp != "auto" else "bf16" if bf16_pays(width) else "none"


def describe_amp(amp: str, width: int = 0) -> str:
    """The precision of a run and why, e.g. ``bfloat16 (AMX)``."""
    unit = bf16_unit()
    if amp == "bf16":
        where = unit or "not in hardware"
        return f"bfloat16 ({where})" if bf16_pays(width) else f"bfloat16 ({where}: slower than float32)"
    if not unit:
        return "float32 (no bfloat16 in hardware)"
    if not bf16_pays(width):
        return f"float32 (bfloat16 by {unit} pays from width {BF16_WIDTH} on)"
    return f"float32 (train.amp='none'; {unit} would compute bfloat16)"


def wide(t: Tensor) -> Tensor:
    """``t`` in float32 if it is float16 or bfloat16, else ``t``: for sums, and to keep close numbers distinct."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """No autocast on ``device``: for small computations that are differentiated twice, inverted or ranked."""
    return torch.autocast(device.type, enabled=False)


@contextmanager
def no_autocast_cache() -> Iterator[None]:
    """Autocast without its cache of cast weights, in contexts already open and in those opened inside.

    The cache maps a weight to its half-precision copy, graph included. A copy made under ``no_grad``, before an
    optimizer step or inside a functional transform would be returned later with the wrong graph or stale values.
    A weight is cast once per forward pass, so the cache saves nothing here.
    """
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


_TWICE = ContextVar("differentiated twice", default=False)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Attention by its plain formula: fused kernels have neither a forward-mode nor a double-backward rule.

    For everything that ``torch.func.jvp``, ``forward_ad`` or ``create_graph=True`` differentiates.
    """
    token = _TWICE.set(True)
    try:
        with sdpa_kernel(SDPBackend.MATH), no_autocast_cache():
            yield
    finally:
        _TWICE.reset(token)


def fused_attention_pays() -> bool:
    """Whether torch's fused attention is to be used here: not under bfloat16 autocast of a processor, where it is slow,
    nor within `twice_differentiable`, where torch takes more steps for the plain formula than two products need."""
    slow = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return not slow and not _TWICE.get()
