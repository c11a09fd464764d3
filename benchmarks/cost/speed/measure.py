"""Measuring one row in a process of its own: seconds, peak memory, floating-point operations; and the matrix rate.

Every row has its own process, so that its memory can be read, and takes turns with the others (A B C A B C ...), so
that other load on the machine affects all of them. Units: seconds, MiB (2^20 bytes), GFLOP (10^9 operations, of which a
multiply-add is two).
"""

import gc
import math
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config

from benchmarks.cost.speed.rows import MATMUL, ROWS, Step, build
from benchmarks.cost.speed.setting import RATIO, SETTINGS, Setting
from mlomae.common.errors import MlomaeError, first_line_of
from mlomae.common.flops import count_flops
from mlomae.common.precision import bf16_unit, resolve_amp

MIB = 2**20
HALF = "square, bf16"  # the rate of products in bfloat16, in a setting of float32


# --- one process per row --------------------------------------------------------------------------------------------


_measured: Callable[[], dict[str, float]]  # one timed iteration of this process's row


def prepare(row: str, setting_name: str, threads: int, warmup: int, root: str) -> dict[str, Any]:
    """Build a row in this process, warm it up and report its cost; `measure_once` then times it.

    ``root`` holds the images of a row from files.

    Returns ``gflop``, ``first_s`` (the first iteration, compilation included), ``peak_mib`` and how that was read.
    """
    global _measured
    torch.set_num_threads(threads)
    torch._inductor.config.force_disable_caches = True  # time compilation, not a cache hit
    setting = SETTINGS[setting_name]
    if row == MATMUL:
        _measured = partial(matmul_rates, setting)
        return {}
    before = resident()
    step = build(row, setting, root)
    parts = ROWS[row].iterations
    first = timed(step, setting.device)["seconds"] / parts
    gflop = None if ROWS[row].compiled else count_flops(step) / 1e9 / parts
    repeated(step, warmup)
    peak, how = peak_memory(step, setting.device, before)
    _measured = partial(iteration, step, setting.device, parts)
    amp = resolve_amp(ROWS[row].amp or setting.amp, setting.model["embed_dim"])
    return {"amp": amp, "gflop": gflop, "first_s": first, "peak_mib": peak, "peak_read": how}


def measure_once() -> dict[str, Any]:
    """One iteration of the row of this process, as `timed` gives it."""
    return _measured()


def attempt(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """The result, or {"skipped": reason}: a missing compiler or too little memory must not stop the other rows."""
    try:
        return function(*arguments)
    except MlomaeError as error:
        return {"skipped": first_line_of(error)}
    except RuntimeError as error:
        return {"skipped": f"{type(error).__name__}: {first_line_of(error)}"}


def iteration(step: Step, device: str, parts: int) -> dict[str, float]:
    """One timed iteration, the mean of ``parts``, after an untimed one: while the others had their turns caches were
    lost, and the kernel may have taken pages back. On a GPU, which the processes share, cached memory is released."""
    step()
    spent = timed(step, device)
    if device == "cuda":
        torch.cuda.empty_cache()
    return {key: value / parts for key, value in spent.items()}


def repeated(step: Step, times: int) -> None:
    for _ in range(times):
        step()


def timed(step: Step, device: str) -> dict[str, float]:
    """Wall-clock and processor seconds (of all threads and workers) of one call, the device's work included.

    ``busy_seconds`` is the time for rates: with one thread its processor time, which excludes waiting for a busy
    machine; with several threads, or on a GPU, wall-clock time.
    """
    synchronise = getattr(torch, device).synchronize  # nothing on a CPU
    synchronise()
    wall, cpu = time.perf_counter(), _cpu_seconds()
    step()
    synchronise()
    spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": _cpu_seconds() - cpu}
    alone = device == "cpu" and torch.get_num_threads() == 1
    return spent | {"busy_seconds": spent["cpu_seconds" if alone else "seconds"]}


def _cpu_seconds() -> float:
    """Of this process and, on Linux, of its living children: the workers of a loader."""
    seconds = time.process_time()
    for child in multiprocessing.active_children():
        try:
            fields = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


# --- memory ---------------------------------------------------------------------------------------------------------


def resident(field: str = "VmRSS") -> float:
    """A size of this process from /proc/self/status, in MiB; NaN where there is none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.nan
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), math.nan)


def peak_memory(step: Step, device: str, before: float) -> tuple[float, str]:
    """(MiB, how it was read) at the peak of one iteration after the warm-up; model, optimizers and data included.

    On a GPU, what torch has allocated. On a CPU, resident memory less ``before``, that of the process without the
    model; the high-water mark is reset through /proc where allowed, else it is that of the whole process.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / MIB, "allocated"
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        how = "resident, mark reset"
    except OSError:
        how = "resident, mark of the whole process"
    step()
    mark = resident("VmHWM")
    if math.isnan(mark):
        mark, how = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "resident, mark of the whole process"
    return mark - (0.0 if math.isnan(before) else before), how


# --- the machine's rate ----------------------------------------------------------------------------------------------


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
    """GFLOP/s of each product in the setting's precision: the best of three blocks of about 50 ms.

    "square, bf16" is that of the square in bfloat16 where rows of both precisions run."""
    shapes = [(name, size, setting.amp) for name, size in matmul_shapes(setting).items()]
    if setting.amp == "none" and bf16_unit():
        shapes.append((HALF, matmul_shapes(setting)["square"], "bf16"))
    rates = {}
    for name, (rows, inner, columns), amp in shapes:
        dtype = torch.bfloat16 if amp == "bf16" else torch.float32
        a, b = (torch.randn(*shape, device=setting.device, dtype=dtype) for shape in ((rows, inner), (inner, columns)))
        multiply = partial(torch.mm, a, b, out=a @ b)
        once = timed(multiply, setting.device)["busy_seconds"]
        repeats = max(1, min(1000, round(0.05 / max(once, 1e-7))))
        block = partial(repeated, multiply, repeats)
        best = min(timed(block, setting.device)["busy_seconds"] for _ in range(3))
        rates[name] = 2e-9 * rows * inner * columns * repeats / best
    return rates
