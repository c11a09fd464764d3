"""Reads an instance annotation file in COCO's format and verifies everything that needs no image.

Objects that COCO's tools leave out are left out and counted, as in mmdet: those flagged ``ignore``, less than a pixel
wide or high, wholly outside their image, or without area (COCO's own train2017 has two of height 0). So are those
without a mask, whose polygons all have less than three corners, or whose image is not listed. Whole floats and texts of
digits are numbers, numbers are names; a category that is the parent of others and has no object is dropped, as
Roboflow exports one. Any other irregularity is an error.

Source: the format at cocodataset.org/#format-data. Shape suffixes: I images, N objects.
"""

import gc
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlomae.common.errors import ConfigError, DataError
from mlomae.data.formats.coco_masks import Masks, are_numbers, has_outline, mask_fault
from mlomae.data.paths import ListedFiles, find_listed

REMEDY = "correct the file or download it again"

MOST_ID = 2**62
MOST_AREA = 1e12


@dataclass(frozen=True)
class Objects:
    """N objects in the order of their images.

    Attributes:
        ids: (N,) int64, of the annotations. labels: (N,) int64, indices into the categories.
        image: (N,) int64, ascending indices into the ``images`` images.
        boxes: (N, 4) float64: x, y, width, height in pixels. areas: (N,) float64, pixels, as annotated.
        crowds: (N,) bool.
        masks: as in the file.
    """

    images: int
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    image: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowds: NDArray[np.bool_]
    masks: Masks

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """(I + 1,) int64: the objects of image i are those from ``first[i]`` to ``first[i + 1] - 1``."""
        return np.searchsorted(self.image, np.arange(self.images + 1))


@dataclass(frozen=True)
class CocoFile:
    """Images in the order of the file, (I,) ids, files in their folder and (I, 2) height and width; category names by
    their ids, ascending; objects, how many were left out, by reason, and the entries of those whose image is listed."""

    image_ids: NDArray[np.int64]
    files: ListedFiles
    sizes: NDArray[np.int64]
    categories: dict[int, str]
    objects: Objects
    dropped: dict[str, int]
    left_out: list[dict[str, Any]]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pause the garbage collector, which would walk the millions of lists of a large file again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@_no_garbage_collection()
def read_coco(path: Path, where: str, folder: Path) -> CocoFile:
    """Read and verify the annotation file at ``path``, which messages call ``where``, of images in ``folder``.

    Raises DataError, one line that names the image, category or annotation, if the file cannot be read, is not JSON or
    is of another kind; an entry lacks a value or has one of the wrong kind; an id, file or category occurs twice; an
    annotation refers to an unlisted category, or its box or mask is malformed; no object is left.
    """
    images, categories, annotations = read_tables(path, where)
    files = file_names(images, folder)
    sizes = np.stack([images.integers(key, least=1) for key in ("height", "width")], axis=1)
    names = [str(name) for name in categories.column("name", {str, int}, _are_names, ", which is no text to print")]
    parents = set(categories.column("supercategory", {str, type(None)})) & set(names)
    used = set(annotations.integers("category_id").tolist())
    named = zip(categories.ids.tolist(), names, strict=True)
    by_id = dict(sorted((id_, name) for id_, name in named if id_ in used or name not in parents))
    categories.refuse_repeated("name", list(by_id.values()))
    objects, dropped, left_out = _objects(annotations, images.ids.tolist(), sizes, list(by_id))
    return CocoFile(images.ids, files, sizes, by_id, objects, dropped, left_out)


@_no_garbage_collection()
def read_tables(path: Path, where: str) -> "tuple[Rows, Rows, Rows]":
    """Images, categories and annotations of the file at ``path``, their ids verified; errors as in `read_coco`."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{where} cannot be read ({error.strerror}); check the path and its permissions") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON ({str(error)[:80]}); download the file again") from error
    if not isinstance(content, dict):
        kind = "a list, as files of results are" if isinstance(content, list) else "a single value"
        raise DataError(f"{where} is {kind}, not COCO annotations; name a file like instances_train2017.json")
    images, categories, annotations = (Rows(where, content, kind) for kind in ("images", "categories", "annotations"))
    return images, categories, annotations


def file_names(images: "Rows", folder: Path) -> ListedFiles:
    """The files of the images, different ones below ``folder``, as they are spelt there; errors as in `read_coco`."""
    listed = find_listed(folder, [os.path.normpath(file) for file in images.column("file_name", {str})])
    for at, file in enumerate(listed.files):
        if file == "." or os.path.isabs(file) or file.split(os.sep)[0] == "..":
            raise images.fault(at, f"has file_name {file!r:.60}, which is not a path inside the folder of images")
    images.refuse_repeated("file_name", listed.files)
    return listed


def _objects(
    rows: "Rows", image_ids: Sequence[int], sizes: NDArray[np.int64], categories: list[int]
) -> tuple[Objects, dict[str, int], list[dict[str, Any]]]:
    image = rows.indices("image_id", image_ids, None)
    listed = np.flatnonzero(image >= 0)
    dropped = {"of an image that is not listed": len(image) - len(listed)}
    rows.choose(listed)
    image = image[listed]
    label = rows.indices("category_id", categories, "categories")
    boxes = np.array(rows.column("bbox", {list}, _are_boxes, ", not x, y, width, height in pixels"), dtype=np.float64)
    areas = np.array(rows.column("area", {int, float}, lambda areas: are_numbers(areas, MOST_AREA)), dtype=np.float64)
    crowds = rows.column("iscrowd", {int, bool}, lambda flags: set(flags) <= {0, 1}, ", neither 0 nor 1", default=0)
    ignored = np.array([bool(flag) for flag in rows.column("ignore", {int, bool, type(None)})])
    used, reasons = _used(boxes, areas, ignored, sizes[image])
    masks = rows.column("segmentation", {list, dict, type(None)})
    outlined = []
    for at in np.flatnonzero(used).tolist():
        fault = mask_fault(masks[at], *sizes[image[at]].tolist()) if masks[at] else None
        if fault is not None:
            raise rows.fault(at, f"has a mask that {fault}")
        outlined.append(bool(masks[at]) and has_outline(masks[at]))
    bare = sum(not masks[at] for at in np.flatnonzero(used).tolist())
    dropped |= {**reasons, "without a mask": bare}
    dropped["without a polygon of three corners"] = len(outlined) - sum(outlined) - bare
    used[used] = outlined
    if not used.any():
        reasons_found = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
        raise DataError(f"{rows.where}: no object is left ({reasons_found}); objects need masks, and boxes with area")
    order = np.flatnonzero(used)[np.argsort(image[used], kind="stable")]
    left_out = rows.entries(np.flatnonzero(~used))
    objects = Objects(
        images=len(sizes),
        ids=rows.ids[order],
        labels=label[order],
        image=image[order],
        boxes=boxes[order],
        areas=areas[order],
        crowds=np.array(crowds, dtype=bool)[order],
        masks=Masks(masks[at] for at in order.tolist()),
    )
    return objects, dropped, left_out


def _used(
    boxes: NDArray[np.float64], areas: NDArray[np.float64], ignored: NDArray[np.bool_], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """(N,) which objects COCO's tools use, and how many they do not, by the first reason that holds."""
    (x, y, width, height), (image_height, image_width) = boxes.T, sizes.T
    across = np.minimum(x + width, image_width) - np.maximum(x, 0)
    down = np.minimum(y + height, image_height) - np.maximum(y, 0)
    reasons = {
        "flagged ignore": ignored,
        "under a pixel wide or high": (width < 1) | (height < 1),
        "outside the image": (across <= 0) | (down <= 0),
        "without area": areas <= 0,
    }
    used, dropped = np.ones(len(boxes), dtype=bool), {}
    for reason, holds in reasons.items():
        dropped[reason] = int((holds & used).sum())
        used &= ~holds
    return used, dropped


def _are_boxes(values: list[Any]) -> bool:
    return set(map(len, values)) == {4} and are_numbers(list(chain.from_iterable(values)))


def choose_classes(found: CocoFile, classes: Sequence[str], where: str) -> CocoFile:
    """The file with the objects of ``classes`` only, as COCO's tools choose them by ``catIds``; all images stay.

    Categories are ascending by id. Raises ConfigError for a choice that is empty, repeats a class, or names one that
    the file does not have, DataError if no object is left.
    """
    names = list(found.categories.values())
    if isinstance(classes, str) or not classes or len(set(classes)) < len(classes):
        raise ConfigError(f"{where}: `classes` must be a list of different class names; got {classes!r}")
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise ConfigError(f"{where} has no class {unknown[0]!r}; choose from {', '.join(names)}")
    chosen = [at for at, name in enumerate(names) if name in classes]
    objects = found.objects
    kept = np.flatnonzero(np.isin(objects.labels, chosen))
    if not len(kept):
        raise DataError(f"{where} has no object of {', '.join(classes)}; choose other classes")
    remaining = replace(
        objects,
        **{name: getattr(objects, name)[kept] for name in ("ids", "image", "boxes", "areas", "crowds")},
        labels=np.searchsorted(chosen, objects.labels[kept]),
        masks=Masks(objects.masks[n] for n in kept.tolist()),
    )
    categories = {id_: name for id_, name in found.categories.items() if name in classes}
    return replace(found, categories=categories, objects=remaining)


class Rows:
    """A list of the file, ``images``, ``categories`` or ``annotations``, by columns; errors name the entry at fault."""

    def __init__(self, where: str, content: Mapping[str, Any], kind: str) -> None:
        rows = content.get(kind)
        if not isinstance(rows, list) or not set(map(type, rows)) <= {dict}:
            keys = "images, annotations and categories, each a list of objects"
            raise DataError(f"{where} has no '{kind}'; a file in COCO's format has {keys}")
        self.where, self.kind = where, kind.removesuffix("s") if kind != "categories" else "category"
        if not rows:
            raise DataError(f"{where} lists no {self.kind}; {REMEDY}")
        self._rows: list[dict[str, Any]] = rows
        self.ids: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.ids = self.integers("id")
        self.refuse_repeated("id", self.ids.tolist())

    def choose(self, order: NDArray[np.int64]) -> None:
        """Keep these rows only."""
        self._rows, self.ids = self.entries(order), self.ids[order]

    def entries(self, order: NDArray[np.int64]) -> list[dict[str, Any]]:
        """These rows as they are in the file."""
        return [self._rows[i] for i in order.tolist()]

    def fault(self, at: int, what: str) -> DataError:
        """The error for row ``at``; ``what`` follows its name."""
        row = f"{self.kind} {self.ids[at]}" if len(self.ids) else f"{self.kind} number {at + 1} in its list"
        return DataError(f"{self.where}: {row} {what}; {REMEDY}")

    def column(
        self,
        key: str,
        kinds: set[type],
        valid: Callable[[list[Any]], bool] = lambda values: True,
        said: str = "",
        default: Any = None,
    ) -> list[Any]:
        """The values under ``key``, all of one of ``kinds`` and ``valid``; ``said`` follows a value that is not."""
        values = [row.get(key, default) for row in self._rows]
        if not set(map(type, values)) <= kinds:
            at = next(i for i, value in enumerate(values) if type(value) not in kinds)
            raise self.fault(at, f"has {key} {values[at]!r:.60}" if key in self._rows[at] else f"has no {key}")
        if not valid(values):
            at = next(i for i, value in enumerate(values) if not valid([value]))
            raise self.fault(at, f"has {key} {values[at]!r:.60}{said}")
        return values

    def integers(self, key: str, least: int = 0) -> NDArray[np.int64]:
        """(rows,) integers, at least ``least``; whole floats and texts of digits are integers, too."""
        valid = lambda values: least <= min(map(_whole, values)) <= max(map(_whole, values)) < MOST_ID  # noqa: E731
        values = self.column(key, {int, float, str}, valid)
        return np.array([_whole(value) for value in values], dtype=np.int64)

    def indices(self, key: str, ids: Sequence[int], what: str | None) -> NDArray[np.int64]:
        """(rows,) index into ``ids`` of the id under ``key``; of one that is not there -1, or an error that says not
        among ``what``."""
        index = {id_: i for i, id_ in enumerate(ids)}
        wanted = self.integers(key).tolist()
        found = np.array([index.get(id_, -1) for id_ in wanted], dtype=np.int64)
        if what is not None and found.min(initial=0) < 0:
            at = int((found < 0).argmax())
            raise self.fault(at, f"has {key} {wanted[at]}, which is not among the {what}")
        return found

    def refuse_repeated(self, key: str, values: Sequence[object]) -> None:
        """Raise DataError if one of ``values``, which are one per row, occurs twice."""
        repeated = [value for value, times in Counter(values).items() if times > 1]
        if repeated:
            raise DataError(f"{self.where}: two entries have the {self.kind} {key} {repeated[0]!r:.60}; {REMEDY}")


def _are_names(values: list[str | int]) -> bool:
    return all(name and str(name).encode("utf-8", "replace").decode() == name for name in map(str, values))


def _whole(value: float | str) -> int:
    """The integer that a number or text stands for, -1 for another value; none that a file may hold is negative."""
    if isinstance(value, str):
        return int(value) if value.isdecimal() else -1
    return int(value) if value == value // 1 else -1
