"""What is installed, and the command that installs what is missing; needs the standard library only.

A command names the Python that runs now: `pip` on PATH may belong to another one, above all where mlomae was started as
``PYTHON -m mlomae``.
"""

import importlib.metadata
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

EXTRAS = {name: "benchmarks" for name in ("mmcv", "mmdet", "mmseg", "ftfy", "regex", "pycocotools")} | {
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime", "onnx_ir"), "onnx"),
    "lightly": "peers",
    "submitit": "cluster",
}
"""Top-level module -> the extra that brings it; all others come with mlomae itself."""
DEBIAN_OPENCV = "libgl1 libglib2.0-0"
"""Packages of Debian and Ubuntu with the libraries that opencv-python needs and slim containers lack."""
_CHECKOUT = Path(__file__).parents[2]


def installed(distribution: str) -> str | None:
    """Version of a distribution, None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def shown(path: str | Path) -> str:
    """A path as a word of a command: relative if it lies below the current folder, ``~/`` for the home folder."""
    for parent, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if Path(path).is_relative_to(parent) and Path(path) != parent and parent != Path("/"):
            return prefix + shlex.quote(str(Path(path).relative_to(parent)))
    return shlex.quote(str(path))


def pip_command() -> str:
    """``.venv/bin/python -m pip install``, or uv's command where the environment has no pip."""
    if importlib.util.find_spec("pip") is None:
        return f"uv pip install --python {shown(sys.executable)}"
    return f"{shown(sys.executable)} -m pip install"


def install_command(extra: str = "") -> str:
    """The command that installs mlomae with what it needs, and with what an extra of it adds."""
    extras = f"[{extra}]" if extra else ""
    if (_CHECKOUT / "pyproject.toml").is_file():
        folder = "." if Path.cwd() == _CHECKOUT else str(_CHECKOUT)
        return f"{pip_command()} -e {shlex.quote(folder + extras) if folder == '.' else shown(folder + extras)}"
    return f"{pip_command()} {shlex.quote(f'mlomae{extras}')}"


def from_checkout(module: str) -> ModuleType | None:
    """A module of `benchmarks`, which come with a checkout and not with a wheel; None where they, or another package of
    that name, lack it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            return None
        raise


def opencv_fault() -> str | None:
    """What is wrong with cv2, if it is installed, and how to mend it."""
    if importlib.util.find_spec("cv2") is None:
        return None
    try:
        importlib.import_module("cv2").setNumThreads  # noqa: B018  half an installation is an empty module
    except Exception as error:
        return _broken_opencv(error)
    return None


def import_fault(error: BaseException) -> str | None:
    """What is not installed, if that is why an import failed, and how to install it."""
    if isinstance(error, ModuleNotFoundError):
        name = error.name or "."
        if "." in name or name in ("mlomae", "benchmarks"):  # a part of something that is there
            return None
        return f"{name} is not installed for this Python; {install_command(EXTRAS.get(name, ''))}"
    if isinstance(error, ImportError) and re.search(r"\blib[\w+-]+\.so", said := str(error)):
        if any(library in said for library in ("libGL", "libglib", "libgthread")):
            return _broken_opencv(error)
        return f"a library of the system does not load ({said.splitlines()[0]:.150}); install its package"
    return None


def _broken_opencv(error: BaseException) -> str:
    headless = f"{pip_command()} --force-reinstall --no-deps opencv-python-headless"
    return (
        f"cv2 does not import ({' '.join(str(error).split()):.150}), which segmentation and detection need; on Debian "
        f"and Ubuntu: apt-get install {DEBIAN_OPENCV}; or {headless}"
    )
