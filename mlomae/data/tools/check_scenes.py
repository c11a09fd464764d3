"""What `mlomae data check` says of sets with a class for every pixel, besides what it says of images."""

from __future__ import annotations

from pathlib import Path

from mlomae.common.errors import DataError
from mlomae.data.scenes import Scenes


def find_scene_splits(base: Path) -> list[str]:
    """The folders in ``base/images``, training first. Raises DataError if there is none."""
    folder = base / "images"
    found = [e.name for e in folder.iterdir() if e.is_dir() and not e.name.startswith(".")] if folder.is_dir() else []
    if not found:
        raise DataError(f"scene_folder: {folder} has no folders; expected {folder / 'training' / '*.jpg'}")
    return sorted(found, key=lambda split: (not split.startswith("train"), split))


def check_labels(source: Scenes, decode: bool, problems: list[str]) -> list[str]:
    """The line on the annotations of one part, all of them or a sample; appends to ``problems``."""
    try:
        found = source.check_labels(decode)
    except DataError as error:
        problems.append(str(error))
        return []
    present, share = int((found.pixels > 0).sum()), found.ignored / (found.ignored + found.pixels.sum())
    scanned = "all" if found.annotations == len(source) else f"{found.annotations:,} evenly spaced"
    line = f"{present:,} of {len(source.classes):,} classes present, {share:.1%} of the pixels not labelled"
    return [f"{'':8} {line} ({scanned} annotations)"]
