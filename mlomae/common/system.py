"""Facts about this machine, its limits, what is installed on it and the checkout; imports little."""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from mlomae.common.installing import installed

PACKAGES = ("torch", "torchvision", "timm", "mmengine", "mmcv", "mmdet", "mmseg", "numpy")
# import name -> (upstream distribution, maintained distribution); both write the same folder
MM_DISTRIBUTIONS = {
    "mmengine": ("mmengine", "onedl-mmengine"),
    "mmcv": ("mmcv", "onedl-mmcv"),
    "mmdet": ("mmdet", "onedl-mmdetection"),
    "mmseg": ("mmsegmentation", "onedl-mmsegmentation"),
}


def cpu_model() -> str:
    """The processor's name as the kernel gives it, e.g. "AMD EPYC"."""
    return _cpu_field("model name") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """The instruction sets of the processor by Linux's names, such as avx512_bf16; empty elsewhere."""
    return set((_cpu_field("flags") or _cpu_field("Features")).split())  # the latter on Arm


def _cpu_field(name: str) -> str:
    try:
        found = re.search(rf"^{name}\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else ""


def usable_cores() -> int:
    """Logical cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Python and the installed packages that can change a number."""
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, "scikit-learn", "mlomae"):
        version = next((v for name in MM_DISTRIBUTIONS.get(package, (package,)) if (v := installed(name))), None)
        if version:
            found[package] = version
    return found


def git_state(folder: str | Path) -> tuple[str | None, bool | None]:
    """(commit, whether the working tree differs from it) of the checkout that ``folder`` is part of; Nones without one.

    A package that is installed below somebody's repository is no part of it: git does not track its files.
    """
    answers = []
    for command in ("ls-files --error-unmatch .", "rev-parse HEAD", "status --porcelain"):
        try:
            done = subprocess.run(["git", *command.split()], cwd=folder, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None, None
        answers.append(done.stdout.strip())
    return answers[1], bool(answers[2])


def hardware() -> dict[str, Any]:
    """{"cpu": name, "cores": usable, "threads": of torch, "gpu": name or None}; never the host's name."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": cpu_model(), "cores": usable_cores(), "threads": torch.get_num_threads(), "gpu": gpu}
