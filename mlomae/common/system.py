"""Facts about this machine and what is installed on it; needs the standard library alone."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path

PACKAGES = ("torch", "torchvision", "timm", "mmengine", "mmcv", "mmdet", "mmseg", "numpy")
# import name -> (upstream distribution, maintained distribution); both write the same folder
MM_DISTRIBUTIONS = {
    "mmengine": ("mmengine", "onedl-mmengine"),
    "mmcv": ("mmcv", "onedl-mmcv"),
    "mmdet": ("mmdet", "onedl-mmdetection"),
    "mmseg": ("mmsegmentation", "onedl-mmsegmentation"),
}


def installed(distribution: str) -> str | None:
    """Version of a distribution, None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    """The processor's name as the kernel gives it, e.g. "AMD EPYC"."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Logical cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
