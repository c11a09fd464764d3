"""The tasks that backbones are transferred to, one folder each. Importing this package registers all of them, and the
one of the core, `mlomae.classification`.

Import `all_tasks` and `get_task` from here, so that the registry is filled.
"""

import importlib
import pkgutil

import mlomae.classification  # noqa: F401
from mlomae.backbones.task import all_tasks, get_task

__all__ = ["all_tasks", "get_task"]

for _folder in pkgutil.iter_modules(__path__):
    if _folder.ispkg:
        importlib.import_module(f"{__name__}.{_folder.name}")
