"""The embedded textures as the files of a data set, for the defaults that go through the loaders of real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlomae.data import Textures
from mlomae.records import config_hash


def write_textures(
    out: Path, splits: dict[str, dict[str, Any]], write: Callable[[Path, dict[str, Textures]], Path]
) -> dict[str, Any]:
    """``write`` (`write_scenes`, `write_coco`) the images once, into a folder that is named by what they are.

    ``splits``: name of a split -> options of `Textures`. Returns the options by which recipes find the folder.
    """
    root = out / "data" / f"textures_{config_hash(splits)[:8]}"
    if not root.is_dir():
        write(root, {split: Textures(**options) for split, options in splits.items()})
    return {"data.train.root": str(root.absolute()), "data.test.root": str(root.absolute())}
