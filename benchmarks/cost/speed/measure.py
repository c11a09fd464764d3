"""Measuring one row in a process of its own: seconds, peak memory, floating-point operations; and the matrix rate.

Every row has its own process, so that memory is its own, and takes turns with the others (A B C A B C ...), so that a
busy machine is busy for all of them. Units: seconds, MiB (2^20 bytes), GFLOP (10^9 operations, multiply and add apart).
"""

import gc
import math
import resource
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.cost.speed.rows import MATMUL, ROWS, Step, build
from benchmarks.cost.speed.setting import RATIO, SETTINGS, Setting
from mlomae.common.errors import MlomaeError

MIB = 2**20
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


# --- one process a row ----------------------------------------------------------------------------------------------


def worker(row: str, setting_name: str, threads: int, warmup: int, pipe: Connection) -> None:
    """Build a row, warm it up, say what it costs, then run one iteration for every message until the pipe closes.

    The first answer is a dict with ``gflop``, ``first_s`` (the first iteration, compilation included), ``peak_mib`` and
    how that was read, or {"skipped": reason}; the others have ``seconds`` and ``cpu_seconds``.
    """
    torch.set_num_threads(threads)
    torch._inductor.config.force_disable_caches = True  # the seconds of compiling, not of finding what was compiled
    setting = SETTINGS[setting_name]
    try:
        if row == MATMUL:
            pipe.send({})
            serve(lambda: matmul_rates(setting), pipe)
            return
        before = resident()
        step = build(row, setting)
        first = timed(step, setting.device)["seconds"]
        gflop = None if ROWS[row].compiled else count_gflop(step)
        for _ in range(warmup):
            step()
        peak, how = peak_memory(step, setting.device, before)
        pipe.send({"gflop": gflop, "first_s": first, "peak_mib": peak, "peak_read": how})
        serve(lambda: iteration(step, setting.device), pipe)
    except MlomaeError as error:
        pipe.send({"skipped": str(error)})
    except RuntimeError as error:  # a missing compiler, too little memory: the other rows still count
        pipe.send({"skipped": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"})


def serve(answer: Any, pipe: Connection) -> None:
    """Answer every message but None with ``answer()``."""
    while pipe.recv() is not None:
        pipe.send(answer())


def iteration(step: Step, device: str) -> dict[str, float]:
    """One timed iteration. On a GPU, where the processes share the memory, it is handed back in between."""
    if device == "cuda":
        step()
    spent = timed(step, device)
    if device == "cuda":
        torch.cuda.empty_cache()
    return spent


def timed(step: Step, device: str) -> dict[str, float]:
    """Seconds by the clock and of the processor (all threads) of one call, the device's work included.

    ``busy_seconds`` is what rates are formed with: one thread's processor time, which waiting for a busy machine does
    not add to; with several threads, or on a GPU, that by the clock.
    """
    synchronise(device)
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    synchronise(device)
    spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    alone = device == "cpu" and torch.get_num_threads() == 1
    return spent | {"busy_seconds": spent["cpu_seconds" if alone else "seconds"]}


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


# --- memory ---------------------------------------------------------------------------------------------------------


def resident(field: str = "VmRSS") -> float:
    """A size of this process from /proc/self/status, in MiB; NaN where there is none."""
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.nan
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), math.nan)


def peak_memory(step: Step, device: str, before: float) -> tuple[float, str]:
    """(MiB, how it was read) at the peak of one iteration after the warm-up; model, optimizers and data included.

    On a GPU what torch has allocated. On a CPU resident memory less ``before``, the process without the model: the
    high-water mark is reset through /proc where that is allowed, and else is that of the whole process.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        synchronise(device)
        return torch.cuda.max_memory_allocated() / MIB, "allocated"
    try:
        _CLEAR.write_text("5", encoding="ascii")
        how = "resident, mark reset"
    except OSError:
        how = "resident, mark of the whole process"
    step()
    mark = resident("VmHWM")
    if math.isnan(mark):
        mark, how = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "resident, mark of the whole process"
    return mark - (0.0 if math.isnan(before) else before), how


# --- operations and the machine's rate ------------------------------------------------------------------------------


class FlopCounter(TorchDispatchMode):
    """torch's own formulas for matrix products and convolutions, summed over all that runs.

    `FlopCounterMode` adds hooks on modules that some uses of ``autograd.grad`` refuse; the formulas are the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def count_flops(step: Step) -> int:
    """Operations of one call: every matrix product and convolution, those of attention written out included."""
    with FlopCounter() as counter, sdpa_kernel(SDPBackend.MATH):
        step()
    return counter.total


def count_gflop(step: Step) -> float:
    return count_flops(step) / 1e9


def matmul_shapes(setting: Setting) -> dict[str, tuple[int, int, int]]:
    """(rows, inner, columns) of products that the model makes, and one large square as the machine's rate."""
    m = setting.model
    length, dim, width = (m["img_size"] // m["patch_size"]) ** 2, m["embed_dim"], m["decoder_embed_dim"]
    tokens, kept = setting.batch * (length + 1), setting.batch * (int(length * (1 - RATIO)) + 1)
    side = {"cuda": 8192, "cpu": 2048}[setting.device] if setting.name != "tiny" else 128
    return {
        "square": (side, side, side),
        "encoder, all tokens": (tokens, dim, 4 * dim),
        "encoder, kept tokens": (kept, dim, 4 * dim),
        "decoder": (tokens, width, 4 * width),
    }


def matmul_rates(setting: Setting) -> dict[str, float]:
    """GFLOP/s of each product in the setting's precision: the best of three blocks of about 50 ms."""
    dtype = torch.bfloat16 if setting.amp == "bf16" else torch.float32
    return {name: _rate(shape, dtype, setting.device) for name, shape in matmul_shapes(setting).items()}


def _rate(shape: tuple[int, int, int], dtype: torch.dtype, device: str) -> float:
    rows, inner, columns = shape
    a, b = torch.randn(rows, inner, device=device, dtype=dtype), torch.randn(inner, columns, device=device, dtype=dtype)
    out = a @ b
    once = timed(lambda: torch.mm(a, b, out=out), device)["busy_seconds"]
    repeats = max(1, min(1000, round(0.05 / max(once, 1e-7))))

    def block() -> None:
        for _ in range(repeats):
            torch.mm(a, b, out=out)

    best = min(timed(block, device)["busy_seconds"] for _ in range(3))
    return 2e-9 * rows * inner * columns * repeats / best


# --- statistics -----------------------------------------------------------------------------------------------------


def median_interval(values: Sequence[float], coverage: float = 0.95) -> tuple[float, float, float]:
    """(median, low, high): the shortest pair of order statistics that covers the population's median at least so often.

    Free of assumptions on the distribution; with fewer than six values it is the whole range and covers less.
    """
    ordered, n = sorted(values), len(values)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    cut = 0
    while 2 * (cut + 1) < n and 1 - 2 * _binomial_tail(n, cut + 1) >= coverage:
        cut += 1
    return middle, ordered[cut], ordered[n - 1 - cut]


def _binomial_tail(n: int, k: int) -> float:
    """P(at most k of n fair coins show heads): the chance that the median lies outside on one side."""
    return sum(math.comb(n, i) for i in range(k + 1)) / 2**n
