"""The images that a user names on the command line: files, and folders with all images in and below them."""

import os
from collections.abc import Sequence
from pathlib import Path

from mlomae.common.errors import DataError, counted, first_names
from mlomae.data.images import FileSource
from mlomae.data.paths import LabelledFiles, list_images
from mlomae.data.reader import IMAGE_ENDINGS, header_size, in_threads


def given_images(paths: Sequence[str | os.PathLike[str]]) -> FileSource:
    """The images of ``paths`` in their order, those of a folder sorted, each named once, as it was given.

    ``relative_path`` of one is its path as given, or the folder as given and the path below it. All have the label 0.
    Raises DataError for a path that does not exist, a folder without images, and files that are no images, by their
    headers.
    """
    files: dict[str, None] = {}
    for given in map(Path, paths):
        path = given.expanduser()
        if path.is_dir():
            found = list_images(path, below=True).files
            if not found:
                raise DataError(f"folder '{given}' holds no image ({', '.join(IMAGE_ENDINGS)}); give one that does")
            files |= dict.fromkeys(os.path.join(path, name) for name in found)
        elif path.exists():
            files[str(path)] = None
        else:
            raise DataError(f"'{given}' does not exist; give image files, or folders that hold some")
    if not files:
        raise DataError("no image was named; give image files, or folders that hold some")
    names = list(files)
    sizes = list(in_threads(lambda i: header_size(names[i]), range(len(names))))
    if damaged := [name for name, size in zip(names, sizes, strict=True) if size is None]:
        raise DataError(
            f"no image, or damaged: {len(damaged):,} of {counted(len(names), 'file')} ({first_names(damaged)}); leave "
            "them out, or replace them"
        )
    here = Path.cwd()
    return FileSource("pictures", "given", here, ["picture"], LabelledFiles(here, names, [0] * len(names)))
