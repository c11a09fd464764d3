"""`mlomae data check`: is a data set complete, can its images be decoded, does an image occur in two of its splits."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlomae.common.errors import BackendError, ConfigError, DataError, MlomaeError
from mlomae.data.detections import Detections
from mlomae.data.formats.coco_masks import FORMS
from mlomae.data.images import Images, Source
from mlomae.data.paths import existing_folder, first_names
from mlomae.data.reader import in_threads
from mlomae.data.registry import PUBLISHED, build_dataset, find_dataset
from mlomae.data.scenes import Scenes
from mlomae.data.splits import TOLERATED_SHARE, most_compared, repeated_images

SAMPLE = 200
"""Images decoded and measured per split, evenly spaced, unless all are."""

SMALL, MEDIUM = 32**2, 96**2
"""Pixels below which COCO's evaluation calls an object small, and medium; the others are large."""


def check_data(name: str, root: str | None, subset: bool = False, decode: bool = False) -> tuple[str, int]:
    """The report on a data set as text, and the exit status: 0 if it ends in "ok", 1 if it lists problems.

    Args:
        name: of the data set.
        root: its folder; None for embedded data.
        subset: a consistent part of a published data set is no problem.
        decode: decode all images and compare all evaluation images with the training images, not only a sample.

    Raises ConfigError or DataError if there is nothing to check: an unknown name, a folder that does not exist;
    BackendError if all masks are to be decoded and pycocotools is missing.
    """
    splits = find_splits(name, root)
    if subset and name not in PUBLISHED:
        raise ConfigError(f"--subset is for published data sets ({', '.join(PUBLISHED)}); leave it out for {name}")
    lines = [f"{name} at {Path(root).expanduser().resolve()}" if root is not None else f"{name} (embedded)"]
    possible = {"root": root, "subset": subset, "partial": subset}
    options = {key: possible[key] for key in inspect.signature(find_dataset(name)).parameters if key in possible}
    problems: list[str] = []
    opened: list[Images] = []
    for split in splits:
        try:
            images = build_dataset({"type": name, "split": split, **options}, Images)
        except DataError as error:
            if str(error) not in problems:  # what is wrong with the whole data set is wrong with every split
                problems.append(str(error))
            continue
        lines += _check_split(images, decode, problems)
        lines += _check_counts(images, subset, problems)
        opened.append(images)
    for training, evaluation in itertools.combinations(opened, 2):
        try:
            lines.append(_check_pair(training, evaluation, decode, problems))
        except (DataError, OSError) as error:
            problems.append(f"{training.split} and {evaluation.split} cannot be compared: {error}")
    if name in PUBLISHED and not problems:
        lines.append(f"usual: train on {PUBLISHED[name].training}, evaluate on {PUBLISHED[name].evaluation}")
    lines += [f"problem: {problem}" for problem in problems] or ["ok"]
    return "\n".join(lines), int(bool(problems))


def find_splits(name: str, root: str | None) -> list[str]:
    """The splits of a data set: the published ones, or those its folder has (``imagefolder``, ``scene_folder``, ...).

    Raises ConfigError for an unknown name, or a root that is missing or too much, DataError if the root does not exist.
    """
    dataset = find_dataset(name)
    if "root" not in inspect.signature(dataset).parameters:
        if root is not None:
            raise ConfigError(f"{name} is embedded in the package and has no folder; leave ROOT out")
        return dataset.find_splits(Path())
    if root is None:
        raise ConfigError(f"{name} needs ROOT, the folder that holds it")
    base = existing_folder(root, name)
    return list(PUBLISHED[name].counts) if name in PUBLISHED else dataset.find_splits(base)


def _check_split(images: Images, decode: bool, problems: list[str]) -> list[str]:
    """Lines on one split; appends to ``problems``."""
    what = "pairs" if isinstance(images, Scenes) else "images"
    lines = [f"{images.split:<8} {len(images):,} {what}, {len(images.classes):,} classes"]
    if isinstance(images, Source):
        per_class = np.bincount(images.labels, minlength=len(images.classes))
        lines[0] += f", {_spread(per_class)} images per class"
    count = len(images) if decode else min(SAMPLE, len(images))
    sizes, broken = _decode(images, [i * len(images) // count for i in range(count)])
    if sizes:
        heights, widths = np.array(sizes).T
        which = "all decoded" if count == len(images) else f"{count:,} decoded, evenly spaced"
        lines.append(f"{'':8} height {_range(heights)}, width {_range(widths)} pixels ({which})")
    if broken:
        found = f"{len(broken):,} of {count:,} images cannot be decoded"
        problems.append(f"{images.split}: {found} ({first_names(broken)}); download these files again")
    if isinstance(images, Scenes):
        lines += _check_labels(images, decode, problems)
    if isinstance(images, Detections):
        lines += _check_objects(images, decode, problems)
    return lines


def _decode(images: Images, indices: list[int]) -> tuple[list[tuple[int, int]], list[str]]:
    """Sizes (height, width) in pixels of those of the images that can be decoded, and what is wrong with the others."""

    def look(i: int) -> tuple[int, int] | str:
        try:
            _, height, width = images.image(i).shape
            return height, width
        except MlomaeError as error:
            return str(error).removeprefix("cannot decode ").partition("; ")[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd EXIF data, of which published data sets are full
        seen = list(in_threads(look, indices))
    return [s for s in seen if not isinstance(s, str)], [s for s in seen if isinstance(s, str)]


def _range(values: NDArray[np.int64]) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low}-{high}"


def _spread(counts: NDArray[np.int64]) -> str:
    """Least, median and most of ``counts``."""
    return f"{counts.min():,}/{np.median(counts):,g}/{counts.max():,}"


def _check_labels(scenes: Scenes, decode: bool, problems: list[str]) -> list[str]:
    """The line on the annotations of one split, all of them or a sample; appends to ``problems``."""
    try:
        found = scenes.check_labels(decode)
    except DataError as error:
        problems.append(str(error))
        return []
    present, share = int((found.pixels > 0).sum()), found.ignored / (found.ignored + found.pixels.sum())
    scanned = "all" if found.annotations == len(scenes) else f"{found.annotations:,} evenly spaced"
    line = f"{present:,} of {len(scenes.classes):,} classes present, {share:.1%} of the pixels have no label"
    return [f"{'':8} {line} ({scanned} annotations)"]


def _check_objects(detections: Detections, decode: bool, problems: list[str]) -> list[str]:
    """Lines on the objects of one split; appends to ``problems``. Raises BackendError if all masks are to be decoded
    and pycocotools is missing."""
    objects = detections.objects
    present = len(np.unique(objects.labels))
    left_out = [f"{count:,} {reason}" for reason, count in detections.dropped.items() if count]
    counts = np.bincount(objects.masks.forms, minlength=len(FORMS))
    forms = ", ".join(f"{count:,} {form}" for form, count in zip(FORMS, counts.tolist(), strict=True) if count)
    lines = [
        f"{len(objects.ids):,} objects, {_spread(np.diff(objects.first))} per image, "
        f"{present:,} of {len(detections.classes):,} categories present, {int(objects.crowds.sum()):,} crowds",
        _size_line(objects.areas[~objects.crowds]),
        f"objects left out: {', '.join(left_out) or 'none'}",
        f"masks: {forms}; {_mask_line(detections, decode, problems)}",
    ]
    lines = [f"{'':8} {line}" for line in lines]
    if (objects.ids == 0).any():
        lines.append("note: an annotation has the id 0, which COCO's evaluation takes for no match; count them from 1")
    return lines


def _size_line(areas: NDArray[np.float64]) -> str:
    if not len(areas):
        return "no object that is not a crowd"
    counts = np.bincount(np.digitize(areas, [SMALL, MEDIUM]), minlength=3)
    shares = ", ".join(
        f"{n / len(areas):.1%} {size}" for n, size in zip(counts, ("small", "medium", "large"), strict=True)
    )
    return f"areas: {shares} (under 32², under 96² pixels, others; without crowds)"


def _mask_line(detections: Detections, decode: bool, problems: list[str]) -> str:
    try:
        found = detections.check_annotations(decode)
    except DataError as error:
        problems.append(str(error))
        return "not as annotated"
    except BackendError as error:
        if decode:
            raise
        return f"none decoded ({error})"
    everything = found.objects == len(detections.objects.ids)
    which = "all decoded" if everything else f"{found.objects:,} decoded, evenly spaced"
    empty = f", {found.empty:,} empty" if found.empty else ""
    areas = f"annotated areas are {found.median_area:.2f} of the pixels"
    return f"median IoU {found.median_iou:.3f} with the boxes, {areas}{empty} ({which})"


def _check_counts(images: Images, subset: bool, problems: list[str]) -> Iterator[str]:
    """Fewer images than published are a problem, or a line if ``subset``; most data sets refuse them themselves."""
    published = PUBLISHED.get(images.name)
    if published is None:
        return
    expected = published.counts[images.split], published.classes
    if (len(images), len(images.classes)) != expected:
        said = f"{images.split}: published are {expected[0]:,} images of {expected[1]:,} classes"
        if subset:
            yield f"note: {said}; this is a subset"
        else:
            here = f"here are {len(images):,} of {len(images.classes):,}"
            problems.append(f"{said}, {here}; download it again or use --subset")


def _check_pair(training: Images, evaluation: Images, decode: bool, problems: list[str]) -> str:
    """The line on images of ``evaluation`` that ``training`` has too; up to 1 % are a note, as published sets have."""
    if training.classes != evaluation.classes:
        odd = sorted(set(training.classes) ^ set(evaluation.classes)) or ["their order"]
        pair = f"{training.split} and {evaluation.split}"
        problems.append(f"{pair} differ in class {first_names(odd)}; download the data set again")
    most = None if decode else most_compared(training, evaluation)
    compared, found = repeated_images(training, evaluation, most)
    pairs = (f"{_image_name(evaluation, i)} = {_image_name(training, j)}" for i, j in found.items())
    which = f" ({first_names(pairs)})" if found else ""
    line = f"{len(found):,} of {compared:,} {evaluation.split} images are in {training.split}{which}"
    if len(found) > TOLERATED_SHARE * compared:
        problems.append(f"{line}; results on them would be meaningless, download the data set again")
    return f"repeated {line}"


def _image_name(images: Images, i: int) -> str:
    relative = getattr(images, "relative_path", None)
    return str(relative(i)) if relative else f"image {i}"
