"""Plug-ins: modules of other packages that register strategies, feedbacks, auxiliary losses, data sets and tasks.

A configuration names them as MMEngine's do: ``custom_imports = dict(imports=["my_package.my_masks"])``. Reading the
file imports them. A checkpoint or a record can come from anybody, so nothing that it names is imported: building its
configuration is an error until the user has imported the modules. Installed packages can list their modules under the
entry point group ``mlomae.plugins`` instead (`mlomae.common.registry`).
"""

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mlomae.common.errors import ConfigError, reason_of
from mlomae.common.installing import installed, pip_command
from mlomae.common.registry import modules_registering

OWN = ("mlomae", "benchmarks")
LIBRARIES = {"datasets", "timm", "torch", "torchvision", "transformers"}
"""Packages that their release identifies: to read what torch imports of itself takes half a minute."""
UNKNOWN = "unknown"  # the digest of a module whose source is not found


def imports_of(section: Any) -> list[str]:
    """The modules of a section ``custom_imports``, [] for None. Raises ConfigError for a section that is not usable."""
    if section is None:
        return []
    if not isinstance(section, dict) or not set(section) <= {"imports", "allow_failed_imports"}:
        raise ConfigError(f"config section 'custom_imports' must be dict(imports=[MODULE, ...]); got {section!r}")
    if section.get("allow_failed_imports"):
        raise ConfigError("config key 'custom_imports.allow_failed_imports' is not supported; remove it")
    given = section.get("imports") or []
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple):
        raise ConfigError(f"config key 'custom_imports.imports' must be a list of modules; got {given!r}")
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(
                f"config key 'custom_imports.imports' takes modules, as in my_package.masks; got {name!r}"
            )
    return list(names)


def import_plugins(modules: Iterable[str]) -> None:
    """Import modules that the user has named. Raises ConfigError for one that is not found or fails."""
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # a foreign module can raise anything
            if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
                raise ConfigError(
                    f"custom_imports: module '{module}' cannot be found (there is no '{error.name}'); add the folder "
                    f"that holds '{str(error.name).partition('.')[0]}' to PYTHONPATH, or install its package with "
                    f"{pip_command()} -e FOLDER"
                ) from error
            raise ConfigError(
                f"custom_imports: module '{module}' cannot be imported ({type(error).__name__}: {reason_of(error)}); "
                "fix it"
            ) from error


def check_imported(modules: Iterable[str]) -> None:
    """Raise ConfigError, naming them, for modules that have not been imported yet."""
    if waiting := [module for module in modules if module not in sys.modules]:
        names = " ".join(waiting)
        raise ConfigError(
            f"this run uses code outside mlomae ({names}), which is not imported just because a checkpoint or a record "
            f"names it; if you trust it, add --custom-imports {names} (in Python: import it first)"
        )


def _types_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value["type"]
        for part in value.values():
            yield from _types_in(part)


def plugin_digest(modules: Iterable[str]) -> dict[str, str]:
    """{module: 16 hexadecimal digits of the SHA-256 of its source}, "unknown" for one whose source is not found.

    Source is the module's file, all files if it is a package, and what these import from the folder that holds the
    top-level package, or of an installed package from this package; of the `LIBRARIES` it is the release. Nothing is
    imported to find that out.
    """
    return {module: _digest(module) for module in sorted(set(modules))}


def recorded_plugins(values: dict[str, Any], *modules: str) -> dict[str, Any]:
    """The field ``plugins`` of the record of a run with this configuration and of these modules, {} if all are ours.

    It has the modules outside mlomae that the configuration imports, and those that have registered a ``type`` in it.
    """
    used = {*modules, *(module for name in _types_in(values) for module in modules_registering(name))}
    outside = [module for module in used if module.partition(".")[0] not in OWN]
    digests = plugin_digest([*imports_of(values.get("custom_imports")), *outside])
    return {"plugins": digests} if digests else {}


def changed_plugins(record: dict[str, Any]) -> list[str]:
    """The modules outside mlomae that ``record`` depends on and whose source is no longer what it was, sorted."""
    then: dict[str, str] = record.get("plugins", {})
    now = plugin_digest([*then, *imports_of(record["config"].get("custom_imports"))])
    return [module for module, digest in now.items() if digest == UNKNOWN or digest != then.get(module)]


def _digest(module: str) -> str:
    top = module.partition(".")[0]
    if top in LIBRARIES and (release := installed(top)):
        return hashlib.sha256(f"{top} {release}".encode()).hexdigest()[:16]
    try:
        spec = None if top == "__main__" else importlib.util.find_spec(top)
    except ValueError:  # a module that a program has made, not read from a file
        spec = None
    if spec is None:
        return UNKNOWN
    inside = [*(spec.submodule_search_locations or []), spec.origin or ""][0]
    root = Path(inside).parent
    files = {file.relative_to(root).as_posix(): file.read_bytes() for file in _sources(module, root)}
    total = hashlib.sha256()
    for name, content in sorted(files.items()):
        total.update(f"{name} {len(content)}\n".encode() + content)
    return total.hexdigest()[:16] if files else UNKNOWN


def _sources(module: str, root: Path) -> set[Path]:
    """The files below ``root`` that make up ``module``; those of mlomae, which have versions of their own, left out."""
    installed, top = root.name in ("site-packages", "dist-packages"), module.partition(".")[0]
    waiting = [*_files_of(module, root), *root.joinpath(*module.split(".")).rglob("*.py")]
    found: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for name in _imports_in(file, root):
            first = name.partition(".")[0]
            if first == top or not (installed or first in OWN):
                waiting += _files_of(name, root)
    return found


def _files_of(module: str, root: Path) -> list[Path]:
    """The file of a module below ``root`` and the ``__init__.py`` of the packages around it, those that exist."""
    parts = module.split(".")
    packages = [root.joinpath(*parts[: i + 1], "__init__.py") for i in range(len(parts))]
    return [file for file in (*packages, root.joinpath(*parts[:-1], f"{parts[-1]}.py")) if file.is_file()]


def _imports_in(file: Path, root: Path) -> Iterator[str]:
    """The modules that a file imports, and the names that it takes from them, which may be modules too."""
    package = file.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from (source, *(f"{source}.{alias.name}" for alias in node.names))
