"""Images with boxes and masks of their objects, as detection needs them.

The objects are those of one annotation file in COCO's format, verified when the data set is opened, before any
training.

Shape suffixes: n objects of an image, H height, W width.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlomae.common.errors import BackendError, DataError, first_names
from mlomae.data.formats.coco import choose_classes, read_coco
from mlomae.data.formats.coco_masks import LEAST_CORNERS, encode, mask_tools
from mlomae.data.images import ImageFiles, evenly_spaced
from mlomae.data.reader import in_threads
from mlomae.data.registry import build_dataset, check_counts, subset_remark

SCANNED = 5000
"""Images whose headers are read when a data set is opened, and objects whose masks a check draws, evenly spaced."""
LEAST = 3
"""Objects of which a median says whether boxes and masks belong together."""


@dataclass(frozen=True)
class MaskCheck:
    """How the masks of ``objects`` objects compare with their boxes and areas.

    Attributes:
        median_iou: of the annotated box and the box around the mask.
        median_area: annotated area, as a multiple of the mask's pixels.
        empty: masks without a pixel.
    """

    objects: int
    median_iou: float
    median_area: float
    empty: int


class Detections(ImageFiles):
    """Image files and the objects in them, in the order of the annotation file.

    Args:
        split: as in Images.
        base: resolved folder of the data set.
        annotation_file: in COCO's format.
        images: resolved folder that the file names of the annotation file are relative to.
        categories: names by id that the annotation file must have.
        subset: accept fewer images than published.
        classes: if given, keep the objects of these classes only (`choose_classes`).
        shares_folder: whether ``images`` may hold images of other data sets, so that it does not identify this one.

    Attributes, besides those of Images:
        annotation_file: as given; COCO's tools compute the scores from it.
        image_ids: (I,) int64.
        categories: ids of the categories, ascending, in the order of ``classes``.
        objects: ids, boxes, categories, areas and masks of all objects.
        dropped: how many objects were left out, by reason, as COCO's tools do it (see formats/coco.py).

    Raises what ``choose_classes`` does, and DataError, one line, if the annotation file is not what ``read_coco``
    accepts; the categories or the number of images are not the published ones; a listed image is missing; every object
    is a crowd; for SCANNED images, the annotated size is that of the image file neither as displayed nor as stored; or,
    for SCANNED objects, boxes and masks have nothing to do with each other.
    """

    provides = "boxes and masks of objects"
    stated_sizes: NDArray[np.int64]
    classes: tuple[str, ...]
    remedy = "correct the annotation file, or put the images it lists into that folder"

    def __init__(
        self,
        split: str,
        base: Path,
        annotation_file: Path,
        images: Path,
        categories: Mapping[int, str] | None = None,
        subset: bool = False,
        classes: Sequence[str] | None = None,
        shares_folder: bool = False,
    ) -> None:
        name, where = self.name, f"{self.name}: {annotation_file}"
        found = read_coco(annotation_file, where, images)
        published = found.categories if categories is None else categories
        if odd := sorted(dict(found.categories.items() ^ published.items())):
            has, wants = found.categories.get(odd[0], "no category"), published.get(odd[0], "none")
            differ = f"differs from the published categories in {len(odd):,}"
            raise DataError(f"{where} {differ}: id {odd[0]} is '{has}', published is '{wants}'; {self.remedy}")
        files, missing, left_out = found.files
        check_counts(name, base, {split: len(files)}, len(found.categories), subset)
        if classes is not None:
            found = choose_classes(found, classes, where)
        self._alone = "" if classes is None else f" ({', '.join(found.categories.values())} alone)"
        if missing:
            lack = f"{len(missing):,} of {len(files):,} images of {annotation_file.name} are not in {images}"
            raise self.fault(f"{lack} ({first_names(missing)})")
        super().__init__(name, split, base, images, tuple(found.categories.values()), files)
        self.left_out = left_out
        if shares_folder:
            self.locations = frozenset([str(images / f"<{annotation_file.name}>")])
        self.annotation_file, self.image_ids, self.stated_sizes = annotation_file, found.image_ids, found.sizes
        self.categories, self.objects, self.dropped = tuple(found.categories), found.objects, found.dropped
        self._unused = found.left_out
        if self.objects.crowds.all():
            raise DataError(f"every object of {self.describe()} is a crowd; annotate objects one by one")
        self._check_sizes(SCANNED)
        with suppress(BackendError):  # without pycocotools only the boxes can be read
            self.check_annotations()

    def annotations(self, i: int) -> list[dict[str, Any]]:
        """The objects of image ``i``, each with the keys

        - id: of the annotation. category: index into ``classes`` (COCO's id is ``categories[category]``).
        - bbox: x, y, width, height in pixels. area: in pixels, as annotated. iscrowd: 1 for a group as one object.
        - segmentation: as in the file, in one of the forms of coco_masks, without polygons of under three corners.
        """
        objects = self.objects
        return [
            {
                "id": int(objects.ids[n]),
                "category": int(objects.labels[n]),
                "bbox": objects.boxes[n].tolist(),
                "area": float(objects.areas[n]),
                "iscrowd": int(objects.crowds[n]),
                "segmentation": objects.masks[n],
            }
            for n in range(*self._objects_of(i).indices(len(objects.ids)))
        ]

    def to_coco(self) -> dict[str, Any]:
        """The images, categories and objects as an annotation file has them, for COCO's tools.

        Ids of annotations count from 1: COCO's evaluation takes an object with the id 0 for unmatched. Objects that
        were left out are among them, because it counts them as missed; those without an outline have an empty mask.
        """
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i, (height, width) in enumerate(self.stated_sizes.tolist()):
            image = int(self.image_ids[i])
            images.append({"id": image, "file_name": self.relative_path(i), "height": height, "width": width})
            for known in self.annotations(i):
                numbers = {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": self.categories[known.pop("category")],
                }
                annotations.append(known | numbers)
        shapes = {image["id"]: [image["height"], image["width"]] for image in images}
        for entry in self._unused:
            image, category = int(entry["image_id"]), int(entry["category_id"])
            if category not in self.categories:
                continue
            mask, (height, width) = entry.get("segmentation"), shapes[image]
            if isinstance(mask, list):
                mask = [corners for corners in mask if len(corners) >= LEAST_CORNERS]
            if not mask:
                mask = {"size": [height, width], "counts": [height * width]}
            known = {
                "image_id": image,
                "category_id": category,
                "segmentation": mask,
                "iscrowd": entry.get("iscrowd", 0),
            }
            annotations.append({**known, "id": len(annotations) + 1, "bbox": entry["bbox"], "area": entry["area"]})
        categories = [{"id": id_, "name": name} for id_, name in zip(self.categories, self.classes, strict=True)]
        return {"images": images, "categories": categories, "annotations": annotations}

    def describe(self) -> str:
        return super().describe() + subset_remark(self.name, self.split, len(self)) + self._alone

    def notes(self) -> list[str]:
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items() if count)
        return [*super().notes(), *([f"objects left out: {dropped}"] if dropped else [])]

    def check_annotations(self, decode_all: bool = False) -> MaskCheck:
        """Draw the masks of all objects, or of SCANNED, evenly spaced, and compare them with boxes and areas.

        With ``decode_all`` the headers of all images are read as well.

        Raises BackendError without pycocotools, DataError if boxes and masks have nothing to do with each other
        (median IoU below 0.5) or an image does not have the annotated size.
        """
        if decode_all:
            self._check_sizes(None)
        tools, objects = mask_tools(), self.objects
        chosen = evenly_spaced(len(objects.ids), None if decode_all else SCANNED)
        sizes = self.stated_sizes[objects.image[chosen]].tolist()
        encoded = [encode(objects.masks[n], *size) for n, size in zip(chosen, sizes, strict=True)]
        # One at a time: with numpy 2, pycocotools 2.0.11 counts the masks of a list in 8 bits and fails above 255.
        pixels = np.array([tools.area(mask) for mask in encoded], dtype=np.float64)
        iou = float(np.median(_iou(objects.boxes[chosen], tools.toBbox(encoded))))
        if iou < 0.5 and len(chosen) >= LEAST:
            odd = f"the annotated boxes and the boxes around the masks have a median IoU of {iou:.2f}"
            remedy = "boxes are x, y, width, height in pixels of the image, as masks are; correct the annotation file"
            raise DataError(f"{self.name}: {self.annotation_file}: {odd}; {remedy}")
        seen = pixels > 0
        area = float(np.median(objects.areas[chosen][seen] / pixels[seen]))
        return MaskCheck(len(chosen), iou, area, int((~seen).sum()))

    def _objects_of(self, i: int) -> slice:
        i = range(len(self))[i]
        return slice(int(self.objects.first[i]), int(self.objects.first[i + 1]))

    def _check_sizes(self, most: int | None) -> None:
        chosen = evenly_spaced(len(self), most)
        found = zip(chosen, in_threads(self.image_size, chosen), strict=True)
        if odd := [(i, size) for i, size in found if size != tuple(self.stated_sizes[i].tolist())]:
            (i, (height, width)), (stated_height, stated_width) = odd[0], self.stated_sizes[odd[0][0]].tolist()
            sizes = f"{self.relative_path(i)} has {height}x{width} pixels, annotated {stated_height}x{stated_width}"
            read = f"{len(odd):,} of {len(chosen):,} images read"
            which = f"{read} do not have the annotated height and width (first: {sizes})"
            remedy = "correct height and width in the annotation file"
            raise DataError(f"{self.name}: {self.annotation_file}: {which}; {remedy}")

    def _fingerprint_label(self, i: int) -> bytes:
        objects, these = self.objects, self._objects_of(i)
        categories = np.array(self.categories, dtype="<i8")[objects.labels[these]]
        content = hashlib.blake2b(categories.tobytes(), digest_size=16)
        for values in (objects.boxes[these], objects.areas[these], objects.crowds[these].astype(np.float64)):
            content.update(values.astype("<f8").tobytes())
        content.update(objects.masks.content(these.start, these.stop))
        return content.hexdigest().encode() + b" "


def _iou(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,) intersection over union of (K, 4) and (K, 4) boxes x, y, width, height; those of ``ours`` are not empty."""
    low = np.maximum(ours[:, :2], theirs[:, :2])
    high = np.minimum(ours[:, :2] + ours[:, 2:], theirs[:, :2] + theirs[:, 2:])
    both = np.clip(high - low, 0, None).prod(axis=1)
    return both / (ours[:, 2:].prod(axis=1) + theirs[:, 2:].prod(axis=1) - both)


build_detections = partial(build_dataset, kind=Detections)
