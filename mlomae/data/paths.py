"""Finds a data set in the folders and files that a user names, with messages that say what to do."""

import codecs
import functools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mlomae.common.errors import DataError
from mlomae.common.files import is_hidden
from mlomae.data.reader import IMAGE_ENDINGS, is_image, read_bytes


def existing_folder(path: str | os.PathLike[str], what: str) -> Path:
    """``path`` with ``~`` and symlinks resolved. Raises DataError, beginning with ``what``, unless it is a folder."""
    folder = Path(path).expanduser()
    if not folder.exists():
        raise DataError(f"{what}: {folder} does not exist; give the folder that holds the data as `root`")
    if not folder.is_dir():
        raise DataError(f"{what}: {folder} is a file, not a folder; give the unpacked folder as `root`")
    return folder.resolve()


def data_folder(root: str | os.PathLike[str], what: str, inner: Sequence[str], markers: Sequence[str]) -> Path:
    """The folder of a data set, resolved: ``root`` or one of its folders ``inner``, whichever holds one of ``markers``.

    If none has a marker: the first of ``inner`` that exists, else ``root``; the caller reports what is missing there.
    Raises DataError as ``existing_folder``.
    """
    base = existing_folder(root, what)
    folders = [base, *(base / name for name in inner if (base / name).is_dir())]
    for folder in folders:
        if any((folder / marker).exists() for marker in markers):
            return folder.resolve()
    return folders[min(1, len(folders) - 1)].resolve()


def existing_file(path: Path, what: str, remedy: str) -> Path:
    """``path``. Raises DataError, which begins with ``what``, unless it is a file."""
    if not path.is_file():
        raise DataError(f"{what}: {path} is missing; {remedy}")
    return path


def inner_folder(path: Path, what: str, remedy: str) -> Path:
    """``path``, resolved. Raises DataError, which begins with ``what``, unless it is a folder."""
    if not path.is_dir():
        raise DataError(f"{what}: {path} is missing; {remedy}")
    return path.resolve()


def split_folder(root: Path, split: str, what: str) -> Path:
    """``root/split``, resolved. Raises DataError listing the folders that exist if it is not one of them."""
    folder = root / split
    if not split or not folder.is_dir():
        inner = subfolders(root)
        remedy = f"set `split` to one that exists ({', '.join(inner)}), or to '.' for {root.name} itself"
        if not inner and what == "imagefolder":
            remedy = "it holds no folders: take its images without labels as type='pictures', without `split`"
        elif inner and all(list_images(root / name).files for name in inner):
            remedy = f"its folders ({', '.join(inner[:3])}{', ...' * (len(inner) > 3)}) hold images themselves: if they"
            remedy += " are classes, set `split` to '.'"
        raise DataError(f"{what}: no folder {split!r} in {root}; {remedy}")
    return folder.resolve()


_OF_A_SPLIT = re.compile(r"(train(ing|val)?|val(id(ation)?)?|test|images)\d*", re.IGNORECASE)


def folder_title(folder: Path) -> str:
    """The name of ``folder``, or of the one around it if that is the name of a split."""
    place = folder.absolute()
    return place.parent.name if _OF_A_SPLIT.fullmatch(place.name) and place.parent.name else place.name


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in ``folder``, sorted, without hidden ones."""
    return sorted(entry.name for entry in os.scandir(folder) if _is(entry, "dir") and not is_hidden(entry.name))


def text_of(path: Path, errors: str = "surrogateescape") -> str:
    """The text of a list, in UTF-8 or, as Windows writes it, with a byte order mark or in UTF-16; ``errors`` as in
    ``bytes.decode``."""
    content = read_bytes(str(path))
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig", errors)


def _is(entry: "os.DirEntry[str]", kind: str) -> bool:
    """Whether it is a "dir" or a "file", followed where it is a link; a link to itself is neither."""
    try:
        return entry.is_dir() if kind == "dir" else entry.is_file()
    except OSError:
        return False


@dataclass(frozen=True)
class LabelledFiles:
    """``files`` (N) relative to ``folder``, which is resolved, and their labels (N); ``left_out`` as in `ImageList`."""

    folder: Path
    files: Sequence[str]
    labels: ArrayLike
    left_out: Mapping[str, int] = field(default_factory=dict)


class ImageList(NamedTuple):
    """Image files relative to a folder, and how much else is there by kind: an ending, hidden, folders, not listed."""

    files: list[str]
    left_out: Counter[str]


def list_images(folder: Path, endings: tuple[str, ...] = IMAGE_ENDINGS, below: bool = False) -> ImageList:
    """The image files in ``folder``, sorted, and with ``below`` those in the folders below it, each symlinked one once,
    so that loops end."""
    files, left_out, seen = [], Counter[str](), set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        if (real := os.path.realpath(here)) in seen:
            continue
        seen.add(real)
        try:
            entries = list(os.scandir(here))
        except OSError as error:
            raise DataError(f"cannot list {here} ({error.strerror}); check the folder and its permissions") from error
        for entry in entries:
            if _is(entry, "dir"):
                left_out["hidden"] += is_hidden(entry.name)
                left_out["folders"] += not below and not is_hidden(entry.name)
                if below and not is_hidden(entry.name):
                    waiting.append(Path(entry.path))
            elif not is_image(entry.name, endings):
                left_out[kind_of(entry.name)] += 1
            elif _is(entry, "file") or entry.is_symlink():
                files.append(os.path.relpath(entry.path, folder))
            else:  # a pipe, a socket, a device
                left_out["no regular file"] += 1
    return ImageList(sorted(files), +left_out)


def kind_of(name: str) -> str:
    """How ``left_out`` counts a file that is no image."""
    return "hidden" if is_hidden(name) else os.path.splitext(name)[1].lower() or "without ending"


def left_out_phrase(left_out: Mapping[str, int]) -> str:
    """E.g. ``3 .txt, 1 hidden``."""
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items(), key=lambda kc: (-kc[1], kc[0])))


def scan_classes(folder: Path) -> tuple[list[str], LabelledFiles]:
    """Class folders of ``folder``, sorted, and their image files, sorted within a class.

    Raises DataError if there is no class folder, or one holds no image.
    """
    classes = subfolders(folder)
    if not classes:
        raise DataError(f"{folder} has no class folders; expected {folder}{os.sep}<class>{os.sep}*.jpg")
    found = {name: list_images(folder / name, below=True) for name in classes}
    if empty := [name for name in classes if not found[name].files]:
        raise DataError(f"class folder {folder / empty[0]} holds no image; fill it or delete it")
    files = [os.path.join(name, file) for name in classes for file in found[name].files]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(found[name].files) for name in classes])
    beside = Counter(kind_of(entry.name) for entry in os.scandir(folder) if entry.name not in found)
    return classes, LabelledFiles(folder, files, labels, sum((found[name].left_out for name in classes), beside))


class ListedFiles(NamedTuple):
    """``files`` as they are spelt in a folder, those ``missing`` there, and what else is there, as in `ImageList`."""

    files: list[str]
    missing: list[str]
    left_out: Counter[str]


def find_listed(folder: Path, files: Iterable[str]) -> ListedFiles:
    """Look for ``files`` below ``folder``; a folder is listed once, as asking for each file takes minutes on a network
    disk.

    Other spellings of one that is missing are tried: slashes for backslashes, letters with their accents in Unicode's
    other form, and what follows the name of ``folder`` in a path from a folder above it, or from another computer.
    """

    @functools.cache
    def names(inner: str) -> dict[str, bool]:
        """What is in a folder, and whether it is one itself. A dangling symlink counts as a file."""
        try:
            return {entry.name: _is(entry, "dir") for entry in os.scandir(folder / inner)}
        except OSError:
            return {}

    def is_there(file: str) -> bool:
        inside = not os.path.isabs(file) and os.pardir not in file.split(os.sep)
        return inside and os.path.basename(file) in names(os.path.dirname(file))

    def spelling(file: str) -> str | None:
        if is_there(file):
            return file
        plain = os.path.normpath(file.replace("\\", "/"))
        if Path(plain).is_relative_to(folder):
            plain = os.path.relpath(plain, folder)
        after = f"/{plain}".rpartition(f"/{folder.name}/")[2]
        forms = (unicodedata.normalize(form, path) for path in (plain, after) for form in ("NFC", "NFD"))
        return next(filter(is_there, (plain, after, *forms)), None)

    wanted = list(files)
    spelt = [spelling(file) for file in wanted]
    there = {file for file in spelt if file is not None}
    others = (
        name
        for inner in {os.path.dirname(file) for file in there}
        for name, is_folder in names(inner).items()
        if not is_folder and os.path.join(inner, name) not in there
    )
    left_out = Counter("not listed" if is_image(name) else kind_of(name) for name in others)
    named = [file if as_there is None else as_there for file, as_there in zip(wanted, spelt, strict=True)]
    missing = [file for file, as_there in zip(wanted, spelt, strict=True) if as_there is None]
    return ListedFiles(named, missing, left_out)
