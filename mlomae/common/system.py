"""Facts about this machine, its limits and what is installed on it; needs the standard library alone."""

import importlib.metadata
import os
import platform
import re
from contextlib import suppress
from pathlib import Path

from mlomae.common.errors import ConfigError

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


def check_open_files(workers: int) -> None:
    """Raise the number of files that this process may open to what loading with ``workers`` takes.

    Every tensor that a worker sends is an open file. Raises ConfigError if the system does not allow as many.
    """
    with suppress(ImportError):  # Windows has no such limit
        import resource

        needed = 24 + 16 * workers
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if not workers or soft >= needed or soft == resource.RLIM_INFINITY:
            return
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise ConfigError(
                f"{workers} workers that read images take about {needed} open files, and {hard} are allowed; raise the "
                "limit with `ulimit -n 4096`, or set data.num_workers=0"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
