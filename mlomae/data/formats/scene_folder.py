"""Any folder of scenes with a list of its classes, ``ROOT/classes.txt``."""

from __future__ import annotations

from pathlib import Path

from mlomae.common.errors import DataError
from mlomae.data.paths import existing_file, existing_folder
from mlomae.data.scenes import Scenes, register_scenes


def read_classes(path: Path, what: str) -> tuple[str, ...]:
    """The class names of a text file, one a line, in the order of the values 1 to C.

    Lines may begin with their value, ``1 sky``, and with value 0 there may be one for what is not labelled.

    Raises DataError, opening with ``what``, for a file that is missing, empty, not text, names a class twice or does
    not count from 1.
    """
    existing_file(path, what, "write the class names into it, one a line, in the order of the values 1, 2, ...")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{what}: {path} is not text in UTF-8; save it as such") from error
    rows = [line.partition(" ") for line in lines]
    names = lines
    if rows and all(number.isdecimal() and name.strip() for number, _, name in rows):
        rows = rows[1:] if int(rows[0][0]) == 0 else rows
        if [int(number) for number, _, _ in rows] != list(range(1, len(rows) + 1)):
            raise DataError(f"{what}: {path} does not count from 1; write its classes in the order of their values")
        names = [name.strip() for _, _, name in rows]
    if not names:
        raise DataError(f"{what}: {path} names no class; write one a line, in the order of the values 1, 2, ...")
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise DataError(f"{what}: {path} names the class '{twice[0]}' twice; every value needs a name of its own")
    return tuple(names)


@register_scenes("scene_folder")
class SceneFolder(Scenes):
    """``ROOT/{images,annotations}/SPLIT`` and ``ROOT/classes.txt``; raises DataError as Scenes and read_classes."""

    value_remedy = "0 means not labelled, 1 is the first line of classes.txt; correct the annotations or that list"

    def __init__(self, root: str, split: str = "training") -> None:
        base = existing_folder(root, "scene_folder")
        super().__init__("scene_folder", split, base, read_classes(base / "classes.txt", "scene_folder"))
