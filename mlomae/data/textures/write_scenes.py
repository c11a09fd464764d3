"""The embedded textures written to disk in the layouts of real data sets, so that the real loaders run everywhere."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from mlomae.common.errors import ConfigError, DataError
from mlomae.data.textures.source import Textures


@contextmanager
def new_folder(root: str | os.PathLike[str]) -> Iterator[Path]:
    """A hidden folder beside ``root`` to write into; it is renamed at the end, or removed if anything fails.

    Raises ConfigError if ``root`` exists, DataError if it cannot be written.
    """
    place = Path(root).expanduser().absolute()
    if place.exists() or place.is_symlink():
        raise ConfigError(f"{place} exists; name a new folder or remove this one")
    outer = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        outer = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent))
        inner = outer / place.name  # mkdtemp lets nobody else read its folder: that must not be the one that stays
        inner.mkdir()
        yield inner
        os.replace(inner, place)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{place} cannot be written ({reason}); free space or name another folder") from error
    finally:
        if outer is not None:
            shutil.rmtree(outer, ignore_errors=True)


def common_classes(splits: Mapping[str, Textures]) -> list[str]:
    """The classes of all ``splits``. Raises ConfigError if they differ, if there is no split, or for a bad name."""
    if not splits:
        raise ConfigError("no split of textures to write; give at least one, e.g. training")
    for name in splits:
        if not name or name.startswith(".") or name != Path(name).name:
            raise ConfigError(f"'{name}' cannot be the name of a split, which is a folder; try training")
    (first, reference), *others = splits.items()
    for name, textures in others:
        if textures.classes != reference.classes:
            counts = f"{len(textures.classes)} against {len(reference.classes)} classes"
            raise ConfigError(f"textures of {name} and {first} differ ({counts}); give both the same `classes`")
    return reference.classes


def write_scenes(root: str | os.PathLike[str], splits: Mapping[str, Textures]) -> Path:
    """Write ``splits`` as a folder of scenes, to be read as ``scene_folder``; returns its resolved path.

    Value 1 of the annotations is the background, which is a class of its own, and value k + 2 the texture of class k.
    The same arguments give the same bytes.

    Raises ConfigError if ``root`` exists, or the splits are none or differ in classes.
    """
    classes = ["background", *common_classes(splits)]
    with new_folder(root) as folder:
        (folder / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
        for split, textures in splits.items():
            images, annotations = folder / "images" / split, folder / "annotations" / split
            images.mkdir(parents=True)
            annotations.mkdir(parents=True)
            for i in range(len(textures)):
                name = f"{i:06d}.png"
                Image.fromarray(textures.image(i).permute(1, 2, 0).numpy()).save(images / name)
                Image.fromarray((textures.annotation(i).semantic + 1).numpy()).save(annotations / name)
    return Path(root).expanduser().resolve()
