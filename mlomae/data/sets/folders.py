"""Data sets in a common layout: class folders, folders of scenes with a list of classes, and COCO's format."""

from pathlib import Path

from torch import Tensor

from mlomae.common.errors import DataError
from mlomae.data.detections import Detections
from mlomae.data.images import FileSource
from mlomae.data.paths import LabelledFiles, existing_file, existing_folder, inner_folder, scan_classes, split_folder
from mlomae.data.reader import IMAGE_ENDINGS, decode_all, is_image
from mlomae.data.registry import register_dataset
from mlomae.data.scenes import Scenes


@register_dataset("imagefolder")
class ImageFolder(FileSource):
    """``ROOT/SPLIT/<class>/**/*.jpg`` (or png, bmp, webp, tif), as in torchvision's ImageFolder; decoded on access.

    ``cache=True`` decodes once into memory and needs images of one size; ``digest`` and ``fingerprint`` are still those
    of the files.

    Raises DataError: missing folder, no or empty class folder, file that cannot be decoded, sizes that differ (cache).
    """

    def __init__(self, root: str, split: str = "train", cache: bool = False) -> None:
        base = existing_folder(root, "imagefolder")
        folder = split_folder(base, split, "imagefolder")
        classes, listed = scan_classes(folder)
        super().__init__("imagefolder", split, base, classes, listed)
        self._images_NCHW = decode_all(folder, listed.files) if cache else None

    def image(self, i: int) -> Tensor:
        return super().image(i) if self._images_NCHW is None else self._images_NCHW[i]


@register_dataset("pictures")
class Pictures(FileSource):
    """The pictures in ROOT, or in its folder ``split``, sorted by name, without labels and without folders below.

    All are of one class, so that a strategy that learns from labels has nothing to learn from. Raises DataError for a
    folder that does not exist or holds no picture.
    """

    def __init__(self, root: str, split: str = ".") -> None:
        base = existing_folder(root, "pictures")
        folder = split_folder(base, split, "pictures")
        files = sorted(entry.name for entry in folder.iterdir() if entry.is_file() and is_image(entry.name))
        if not files:
            raise DataError(
                f"pictures: {folder} holds no picture ({', '.join(IMAGE_ENDINGS)}); give a folder that does"
            )
        super().__init__("pictures", folder.name, base, ["picture"], LabelledFiles(folder, files, [0] * len(files)))

    @classmethod
    def find_splits(cls, base: Path) -> list[str]:
        return ["."]


@register_dataset("scene_folder")
class SceneFolder(Scenes):
    """``ROOT/{images,annotations}/SPLIT`` and ``ROOT/classes.txt``; raises DataError as Scenes and read_classes."""

    value_remedy = "0 means no label, 1 is the first line of classes.txt; correct the annotations or that list"

    def __init__(self, root: str, split: str = "training") -> None:
        base = existing_folder(root, "scene_folder")
        super().__init__(split, base, read_classes(base / "classes.txt", "scene_folder"))


def read_classes(path: Path, what: str) -> tuple[str, ...]:
    """The class names of a text file, one per line, in the order of the values 1 to C.

    Lines may begin with their value, ``1 sky``; then there may be a line of value 0, for pixels without a label.

    Raises DataError, opening with ``what``, for a file that is missing, empty, not text, names a class twice or does
    not count from 1.
    """
    existing_file(path, what, "write the class names into it, one per line, in the order of the values 1, 2, ...")
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
        raise DataError(f"{what}: {path} names no class; write one per line, in the order of the values 1, 2, ...")
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise DataError(f"{what}: {path} names the class '{twice[0]}' twice; every value needs a name of its own")
    return tuple(names)


@register_dataset("coco_folder")
class CocoFolder(Detections):
    """Images in ``ROOT/SPLIT`` and objects in ``ROOT/annotations/instances_SPLIT.json``, with that file's categories.

    Args:
        root: folder of the data set.
        split: its name.
        annotations: the annotation file, if it is not ROOT/annotations/instances_<split>.json; relative to ``root``.
        images: the folder of the images, if it is not ROOT/<split>; relative to ``root``. Data sets with the same one
            are considered disjoint if the images they list are.
        classes: names of the classes to use; all by default.

    Raises DataError for a missing file or folder, besides what Detections raises.
    """

    def __init__(
        self,
        root: str,
        split: str = "train",
        annotations: str | None = None,
        images: str | None = None,
        classes: list[str] | None = None,
    ) -> None:
        base = existing_folder(root, "coco_folder")
        have = ", ".join(_annotated_splits(base)) or "none"
        remedy = f"set `split` to one that is annotated ({have}), or `annotations` to the annotation file"
        named = annotations or f"annotations/instances_{split}.json"
        path = existing_file(base / Path(named).expanduser(), "coco_folder", remedy)
        if images is None:
            folder = split_folder(base, split, "coco_folder")
        else:
            remedy = "set `images` to the folder of the images"
            folder = inner_folder(base / Path(images).expanduser(), "coco_folder", remedy)
        self._shown = f" ({path.name})" if annotations else ""
        super().__init__(split, base, path, folder, classes=classes, shares_folder=images is not None)

    @classmethod
    def find_splits(cls, base: Path) -> list[str]:
        """The splits with an annotation file of the usual name, training first. Raises DataError if there is none."""
        found = _annotated_splits(base)
        if not found:
            expected = base / "annotations" / "instances_train.json"
            raise DataError(f"coco_folder: {base} has no annotation files; expected {expected} and the like")
        return found

    def describe(self) -> str:
        return super().describe() + self._shown


def _annotated_splits(base: Path) -> list[str]:
    found = [path.stem.removeprefix("instances_") for path in base.glob("annotations/instances_*.json")]
    return sorted(found, key=lambda split: (not split.startswith("train"), split))
