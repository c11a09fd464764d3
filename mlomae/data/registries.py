"""Data sets of every task by one list of names, for the commands that take any of them."""

from __future__ import annotations

from typing import Any

from mlomae.data.detections import build_detections, list_detections
from mlomae.data.images import Images
from mlomae.data.scenes import build_scenes, list_scenes
from mlomae.data.sources import build_source, list_sources


def list_data() -> list[str]:
    """Names of the sources of all tasks."""
    return sorted([*list_sources(), *list_scenes(), *list_detections()])


def build_data(cfg: dict[str, Any]) -> Images:
    """What ``cfg`` describes, as the registry that knows its ``type`` builds it; `build_source` if none does."""
    if cfg.get("type") in list_detections():
        return build_detections(cfg)
    return build_scenes(cfg) if cfg.get("type") in list_scenes() else build_source(cfg)
