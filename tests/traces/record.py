"""Records traces, and says whether the code still makes the same numbers: `python -m tests.traces.record [NAME ...]`.

A trace, ``NAME.json`` beside this file, holds what the program NAME of `programs` gave, to the last bit, where it was
recorded, and the numbers of the parts that it guards. `tests/test_traces.py` runs all of them. Whoever changes a number
on purpose raises the part's number in NUMERICS and records again (``--write``); results of different numbers are not
to be compared. Rounding needs no new number: what differs no more than on another machine, whose results are compared,
too, is recorded again as it is. A change that was not meant to move numbers, and does, is to be mended.
"""

import argparse
import importlib.metadata
import json
import math
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from . import adapter
from .programs import PROGRAMS, SOURCES

Trace = dict[str, Any]
Place = tuple[str | int, ...]
Leaf = str | int | float | None

FOLDER = Path(__file__).parent
KINDS = (*SOURCES, "coco_folder")  # of the sources that traces rest on
# the version of what each part computes; the same number, the same results up to rounding
NUMERICS = adapter.numerics(KINDS)
# Where all of these are those of the trace, bits must be. The others of `environment` are kept to explain a difference:
# a new version of timm, say, that moves numbers is a change like any other.
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn")
EXACT = ("torch", "capability", "threads", "machine", "cpu")


def environment() -> dict[str, str | int]:
    """What bits depend on besides the code. ``cpu``: MKL and oneDNN choose their kernels by more than AVX2 or not."""
    return {
        **{package: importlib.metadata.version(package).partition("+")[0] for package in PACKAGES},
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "cpu": _cpu(),
    }


def _cpu() -> str:
    """Vendor, family and model, of which "AMD EPYC" has several."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return " ".join(fields.get(key, "?") for key in ("vendor_id", "cpu family", "model"))


def make(name: str) -> Trace:
    """Run a program here, with as many threads as torch is set to. Raises what the code under test raises.

    Every trace carries the numbers of the data too, which it rests on: with other pixels all are recorded again.
    """
    with tempfile.TemporaryDirectory() as folder:
        values = json.loads(json.dumps(PROGRAMS[name](Path(folder)), allow_nan=False))
    parts = [*(part for part in values if part != "data"), *(f"data.{kind}" for kind in KINDS)]
    numerics = {part: NUMERICS[part] for part in parts}
    return {"environment": environment(), "numerics": numerics, "values": values}


def read(name: str) -> Trace:
    trace: Trace = json.loads(path_of(name).read_text())
    return trace


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.json"


def is_exact(trace: Trace, found: Trace) -> bool:
    """Whether the two were made where the same code gives the same bits."""
    return all(trace["environment"].get(key) == found["environment"][key] for key in EXACT)


def differences(trace: Trace, found: Trace, exact: bool | None = None) -> list[str]:
    """In words, which values of ``found`` are not those of ``trace``: the earliest iteration first.

    ``exact``: whether bits count, or the tolerance for other machines does; by default as `is_exact` says."""
    exact = is_exact(trace, found) if exact is None else exact
    before, now = (dict(_leaves(t["values"])) for t in (trace, found))
    different = [p for p in before | now if p not in before or p not in now or not _agree(p, before[p], now[p], exact)]
    lines = []
    for place in sorted(different, key=_first):
        values = [repr(leaves[place]) if place in leaves else "nothing" for leaves in (before, now)]
        lines.append(f"{_named(place)}: {values[0]} recorded, {values[1]} now")
    return lines


def complaint(name: str, trace: Trace, found: Trace) -> str | None:
    """One paragraph if ``found`` is not what the trace says, with the remedy; None if it is."""
    stale = {part for part, number in found["numerics"].items() if trace["numerics"].get(part) != number}
    if stale:
        return (
            f"trace '{name}' was recorded with other numbers than NUMERICS has ({', '.join(sorted(stale))}); "
            f"record it again: python -m tests.traces.record {name} --write"
        )
    lines = differences(trace, found)
    if not lines:
        return None
    how = "bit for bit" if is_exact(trace, found) else "within the tolerance for other machines"
    parts = sorted({".".join(line.split(".")[: 1 + line.startswith("data.")]) for line in lines})
    shown = "\n  ".join(lines[:8] + [f"and {len(lines) - 8} more"] * (len(lines) > 8))
    return (
        f"trace '{name}' is not reproduced ({how}): {len(lines)} values differ, first\n  {shown}\n"
        f"environment recorded {trace['environment']}\nenvironment now      {found['environment']}\n"
        + (
            f"raise NUMERICS of {', '.join(parts)} and record again, or mend the change"
            if differences(trace, found, exact=False)
            else "by rounding, as on another machine: record again if the order of operations was to change, or mend it"
        )
    )


def write(name: str, found: Trace) -> None:
    """Keep a trace. Raises ValueError for values under the same numbers that differ by more than rounding: that is what
    numbers are for."""
    path = path_of(name)
    if path.exists():
        trace = read(name)
        lines = differences(trace, found, exact=False) if trace["numerics"] == found["numerics"] else []
        if lines:
            raise ValueError(f"'{path.name}' says otherwise ({lines[0]}); raise NUMERICS first, or mend the change")
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def _leaves(values: Any, place: Place = ()) -> Iterator[tuple[Place, Leaf]]:
    pairs = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else None
    if pairs is None:
        yield place, values
        return
    for key, value in pairs:
        yield from _leaves(value, (*place, key))


def _first(place: Place) -> tuple[int, str]:
    """Losses and rates by iteration, then the rest."""
    step = place[-1]
    return (step if isinstance(step, int) else sys.maxsize), _named(place)


def _named(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)[1:]


def _agree(place: Place, recorded: Leaf, now: Leaf, exact: bool) -> bool:
    if exact or recorded is None or now is None:
        return recorded == now
    if isinstance(recorded, str) or isinstance(now, str):
        return True  # hashes tell nothing but that bits differ
    relative, absolute = _tolerance(place)
    return math.isclose(recorded, now, rel_tol=relative, abs_tol=absolute)


def _tolerance(place: Place) -> tuple[float, float]:
    """How far values of the same code may lie apart on other machines, relative and absolute.

    Measured on an AVX2 machine, every program run with two threads, and with one under ATEN_CPU_CAPABILITY=default,
    MKL_CBWR=COMPATIBLE and ONEDNN_MAX_CPU_ISA=SSE41, each alone and all at once. The largest differences from the trace
    were: losses 5e-7, relative; projections of weights 0.05, which come from weights that no output depends on, such as
    biases of keys: their gradients are rounding errors, and Adam takes whole steps along them; pixels, accuracies and
    areas none. In detection the last bits soon decide which boxes are sampled: 7e-8, 2e-5, 9e-5, 7e-4 and 5e-3 in the
    losses of the first five iterations, up to 0.8 after them, so that nothing else of it can be compared.
    """
    part, kind, *_ = place
    step, infinite = place[-1], (0.0, math.inf)
    if kind == "rates":
        return 1e-12, 0.0
    if part == "data":
        return 0.0, (0.5 if "decoded" in place else 0.01)  # a level of 255; a hundredth of a standard deviation
    if part == "detection":
        if kind != "losses" or not isinstance(step, int):
            return infinite
        return (1e-5 * 10.0**step, 0.0) if step < 5 else infinite
    if kind == "losses" or "loss" in str(step):
        return 1e-5, 1e-7
    if kind == "weights":
        return 0.0, 0.2
    if kind == "predictions":
        return 0.02, 1e-3
    share = any(word in _named(place).lower() for word in ("top", "iou", "acc", "mean_per_class"))
    return (0.0, 5.0) if share else (1e-3, 1e-3)  # percentages of 20 to 100 images


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.traces.record", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PROGRAMS)}; default: all")
    parser.add_argument(
        "--write", action="store_true", help="keep what was made, if numbers were raised or it differs by rounding"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch (traces are recorded with one)")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.names) - set(PROGRAMS)):
        parser.error(f"there is no trace '{unknown[0]}'")
    torch.set_num_threads(args.threads)
    failed = False
    for name in args.names or PROGRAMS:
        found = make(name)
        if args.write:
            try:
                write(name, found)
                said = None
            except ValueError as error:
                said = str(error)
        else:
            said = complaint(name, read(name), found)
        print(said or f"{name}: {'recorded' if args.write else 'reproduced'}", flush=True)
        failed |= said is not None
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
