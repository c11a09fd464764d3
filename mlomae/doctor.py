"""`mlomae doctor`: what is installed, what it can do on this machine, and what is wrong, one line each.

Only the standard library and modules that need nothing else are imported at the top, because the doctor must also work
where torch or torchvision cannot be imported.
"""

import os
import platform
import re
import sys
import tempfile
from pathlib import Path

from mlomae.backbones.mmcv_ops import load_mmcv_ops
from mlomae.common.errors import BackendError, first_line_of
from mlomae.common.installing import install_command, installed, opencv_fault, pip_command
from mlomae.common.system import MM_DISTRIBUTIONS, PACKAGES, cpu_flags, cpu_model, usable_cores

OLDEST = {"torch": (2, 6), "torchvision": (0, 21), "timm": (1, 0, 26), "numpy": (2, 0, 1)}  # as in pyproject.toml
PYTHON_RANGE = ((3, 10), (3, 14))  # from, the last that the project knows of
PYTHON = sys.version_info[:2]


def check_versions(problems: list[str]) -> list[str]:
    """Lines on Python and packages; appends to ``problems``."""
    (oldest, newest), (low, high) = PYTHON_RANGE, (".".join(map(str, version)) for version in PYTHON_RANGE)
    if oldest > PYTHON:
        problems.append(f"Python {'.'.join(map(str, PYTHON))} is not supported; use {low} to {high}")
    note = f" (note: newer than {high}, not tried)" if newest < PYTHON else ""
    lines = [f"python       {platform.python_version()}{note}"]
    for package in PACKAGES:
        upstream, maintained = MM_DISTRIBUTIONS.get(package, (package, ""))
        versions = {name: installed(name) for name in (upstream, maintained) if name}
        if len([v for v in versions.values() if v]) == 2:
            problems.append(
                f"{upstream} and {maintained} are both installed and overwrite each other; "
                f"pip uninstall both, then {pip_command()} {maintained}"
            )
        found = [f"{v} ({n})" if n != package else str(v) for n, v in versions.items() if v]
        optional = package in ("mmcv", "mmdet", "mmseg")
        note = "not installed (note: only the benchmarks need it)" if optional else "missing"
        lines.append(f"{package:<12} {', '.join(found) or note}")
        if not found and package not in MM_DISTRIBUTIONS:
            problems.append(f"{package} is not installed; {install_command()}")
    for package, floor in OLDEST.items():
        version = installed(package)
        if version and tuple(int(n) for n in re.findall(r"\d+", version.partition("+")[0])[:3]) < floor:
            problems.append(f"{package} {version} is older than {'.'.join(map(str, floor))}; {install_command()}")
    return lines


def check_devices(problems: list[str]) -> list[str]:
    """Lines on the processor, CUDA devices and bf16."""
    lines = [f"cpu          {cpu_model()}, {usable_cores()} cores"]
    try:
        import torch
    except Exception as error:
        problems.append(f"torch does not import ({first_line_of(error)}); reinstall torch and torchvision as a pair")
        return lines
    from mlomae.common.precision import cpu_bf16_unit

    native = cpu_bf16_unit() or ("emulated, slower than float32" if cpu_flags() else "unknown")
    lines.append(f"cpu bf16     {native} ({torch.backends.cpu.get_cpu_capability()})")
    # make bench-speed, an Intel Xeon, two threads: 0.98 [0.84, 1.11] and 0.76 [0.55, 0.94], after 73 and 89 s
    lines.append(
        "compile      train.compile=True on a processor: 0.98 of the time of MAE's step in float32, where it does not "
        "pay, 0.76 in bfloat16, after 90 s of compiling"
    )
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        lines.append(f"cuda:{index}       {properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bf16}")
    if not torch.cuda.device_count():
        lines.append("cuda         none")
    return lines


def run_torchvision_ops() -> None:
    """Run ``nms`` and ``roi_align`` on a tiny input; raises what torchvision raises, or RuntimeError."""
    import torch
    from torchvision.ops import nms, roi_align

    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0], [4.0, 4.0, 8.0, 8.0]])
    if nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() != [0, 2]:
        raise RuntimeError("torchvision.ops.nms gives a wrong answer")
    pooled = roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]]), output_size=2)
    if not torch.equal(pooled, torch.ones(1, 1, 2, 2)):
        raise RuntimeError("torchvision.ops.roi_align gives a wrong answer")


def check_ops(problems: list[str]) -> list[str]:
    """The line on what runs detection's operators; operators that are installed but do not run are a problem."""
    fallback = "torchvision stand-in"
    try:
        run_torchvision_ops()
    except Exception as error:
        fallback = "none"
        problems.append(
            f"torchvision's operators do not run ({first_line_of(error)}): torch {installed('torch')} and torchvision "
            f"{installed('torchvision')} do not match; install them as a pair"
        )
    try:
        state = {True: "compiled", False: fallback, None: "mmcv not installed"}[load_mmcv_ops()]
    except BackendError as error:
        state = "none"
        problems.append(str(error))
    return [f"mmcv ops     {state}"]


def check_opencv(problems: list[str]) -> list[str]:
    """The line on OpenCV, without which segmentation and detection do not run, and all else does."""
    version = installed("opencv-python") or installed("opencv-python-headless")
    if fault := opencv_fault():
        version = f"{version or 'unknown'}, does not import (note: only the benchmarks need it)"
        if installed("onedl-mmcv") or installed("mmcv"):
            problems.append(fault)
    return [f"opencv       {version or 'not installed (note: only the benchmarks need it)'}"]


def _layout(root: Path, name: str) -> str | None:
    """The layout of a data set under ``root``, None if it is not there."""
    pickles = {"cifar10": ("cifar-10-batches-py", "data_batch_1"), "cifar100": ("cifar-100-python", "train")}
    for folder in (root / name, *sorted(root.glob(f"{name}_*")), root):
        if name in pickles and folder.joinpath(*pickles[name]).is_file():
            return f"{folder.relative_to(root) / pickles[name][0]} (pickled batches)"
        test = "val" if name == "imagenet" else "test"
        if folder != root and (folder / "train").is_dir() and (folder / test).is_dir():
            return f"{folder.relative_to(root)} (image folders train, {test})"
    return None


def check_data(root: Path, explicit: bool, problems: list[str]) -> list[str]:
    """Lines on the data sets under ``root``; a missing root is a problem only if the user named it."""
    if explicit and not root.is_dir():
        problems.append(f"data root '{root}' is not a folder; name an existing one or unset MLOMAE_DATA")
    lines = [f"data root    {root}{'' if root.is_dir() else ' (not there)'}", "textures     embedded, always available"]
    return lines + [f"{n:<12} {_layout(root, n) or 'not found'}" for n in ("cifar10", "cifar100", "imagenet")]


def doctor(data_root: Path | None = None) -> tuple[str, int]:
    """The report as text and the exit status: 0 if it ends in "ok", 1 if it lists problems, one line each.

    ``data_root`` defaults to the environment variable MLOMAE_DATA, then to ``./data``. Raises nothing: whatever fails
    is a line of the report.
    """
    named = data_root or os.environ.get("MLOMAE_DATA")
    root = Path(named or "data")
    problems: list[str] = []
    lines = check_versions(problems) + check_devices(problems) + check_ops(problems) + check_opencv(problems)
    lines += check_data(root, named is not None, problems)
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()):  # runs write into it by default
            lines.append("write        current folder is writable")
    except OSError as error:
        problems.append(f"the current folder is not writable ({error.strerror or error}); change to one that is")
        lines.append("write        current folder is NOT writable")
    lines += [f"problem: {problem}" for problem in problems] or ["ok"]
    return "\n".join(lines), int(bool(problems))
