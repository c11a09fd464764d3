"""Data sets of every task by one list of names, for the commands that take any of them."""

from __future__ import annotations

from typing import Any

from mlomae.data.images import Images
from mlomae.data.scenes import build_scenes, list_scenes
from mlomae.data.sources import build_source, list_sources


def list_data() -> list[str]:
    """Names of the sources of all tasks."""
    return sorted([*list_sources(), *list_scenes()])


def build_data(cfg: dict[str, Any]) -> Images:
    """What ``cfg`` describes, as ``build_source`` or ``build_scenes`` builds it, whichever knows its ``type``."""
    return build_scenes(cfg) if cfg.get("type") in list_scenes() else build_source(cfg)
