"""Lets mmdet's Mask R-CNN train and evaluate without mmcv's compiled operators, on torchvision's kernels.

Where an import from `mmcv.ops` fails, mmdet keeps a function that raises in its place. So a module that imports mmdet
calls `install()` first, as `import mlomae.mm` does:

    import mlomae.mm
    from mmdet.models import MaskRCNN

mmdet's command lines import parts of it before they read the config that does so; what these have kept is replaced.

Forked processes (the default of loaders on Linux) inherit the stand-in. A spawned process inherits nothing, but
unpickling an object imports the module of its class first, which makes the call above.
"""

import ast
import importlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path

from mlomae.common.errors import BackendError, first_line_of
from mlomae.common.installing import install_command

COMPILED = "compiled"
STAND_IN = "torchvision stand-in"

_EXTENSION = "mmcv._ext"
_HARMLESS = {"mmdet.version", "mmdet.registry"}  # modules of mmdet that import no operators


def install() -> str:
    """Register the stand-in as `mmcv._ext`, unless mmcv comes with the real one; calling it again does nothing.

    mmcv and mmdet may be imported before: what mmdet has kept in place of operators is replaced.

    Returns:
        what runs mmcv's operators in this process, "compiled" or "torchvision stand-in".

    Raises BackendError if mmcv is not installed, if its compiled operators are installed but do not load, if `mmcv.ops`
    runs on something else, or if a module of mmdet was imported whose source cannot be read.
    """
    stand_in = importlib.import_module("mlomae.backbones.mmcv_ext")
    if sys.modules.get(_EXTENSION) is stand_in:
        return STAND_IN
    compiled = load_mmcv_ops()
    if compiled is None:
        raise BackendError(f"mmcv is not installed; {install_command('benchmarks')}")
    if compiled:
        return COMPILED
    if sys.modules.get(_EXTENSION) or "mmcv.ops" in sys.modules:
        raise BackendError(
            "mmcv.ops was imported with other operators than torchvision's; call mmcv_ops.install() before that"
        )
    early = {name: _operators_in(name) for name in sorted(sys.modules) if name.startswith("mmdet.")}
    sys.modules[_EXTENSION] = stand_in
    for name, operators in early.items():
        for source, operator, own in operators:
            setattr(sys.modules[name], own, getattr(importlib.import_module(source), operator))
    return STAND_IN


def _operators_in(name: str) -> list[tuple[str, str, str]]:
    """What a loaded module of mmdet takes from `mmcv.ops` when it is imported: module, name there, name here."""
    if name in _HARMLESS:
        return []
    try:
        tree = ast.parse(Path(sys.modules[name].__file__ or "").read_text(encoding="utf-8"))
    except (OSError, SyntaxError, AttributeError) as error:
        raise BackendError(
            f"{name} was imported without operators and keeps none; import mlomae.mm before mmdet"
        ) from error
    return [
        (node.module, alias.name, alias.asname or alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
        for alias in node.names
        if node.module.startswith("mmcv.ops") or (node.module, alias.name) == ("mmcv", "ops")
    ]


def load_mmcv_ops() -> bool | None:
    """Import mmcv's compiled operators: True if they are loaded, False if mmcv has none, None without mmcv.

    Looks for them on disk, so that no stand-in is taken for them. Raises BackendError if they do not load.
    """
    mmcv = importlib.util.find_spec("mmcv")
    if mmcv is None:
        return None
    if importlib.machinery.PathFinder.find_spec("mmcv._ext", mmcv.submodule_search_locations) is None:
        return False
    try:
        importlib.import_module("torch")  # the extension links to its libraries
        importlib.import_module("mmcv._ext")
    except Exception as error:
        remedy = "install an mmcv that fits this torch, or one without ops"
        raise BackendError(f"mmcv's compiled operators do not load ({first_line_of(error)}); {remedy}") from error
    return True
