"""Data sets that were published with a fixed list of images: what their numbers are, and a source that checks them.

A split is named as its publishers name it: ``train`` everywhere, then ``test``, or ``val`` where the labels of the
test part are not public (COCO, ImageNet, iNaturalist 2019, Tiny-ImageNet); in sets of scenes ``training`` and
``validation``. ``PUBLISHED[name].evaluation`` is the part that accuracies are reported on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlomae.common.errors import ConfigError, DataError
from mlomae.data.files import FileSource
from mlomae.data.paths import first_names, missing_files


@dataclass(frozen=True)
class Published:
    """Images of each part and number of classes; the parts that are usually trained on and evaluated on."""

    counts: Mapping[str, int]
    classes: int
    training: str = "train"
    evaluation: str = "test"


PUBLISHED = {
    "ade20k": Published({"training": 20_210, "validation": 2_000}, 150, training="training", evaluation="validation"),
    "camvid": Published({"training": 367, "validation": 101, "test": 233}, 11, training="training"),
    "cifar10": Published({"train": 50_000, "test": 10_000}, 10),
    "cifar100": Published({"train": 50_000, "test": 10_000}, 100),
    "coco": Published({"train": 118_287, "val": 5_000}, 80, evaluation="val"),
    "cub200": Published({"train": 5_994, "test": 5_794}, 200),
    "flowers102": Published({"train": 1_020, "val": 1_020, "test": 6_149}, 102, training="trainval"),
    "imagenet": Published({"train": 1_281_167, "val": 50_000}, 1000, evaluation="val"),
    "inat2019": Published({"train": 265_213, "val": 3_030}, 1010, evaluation="val"),
    "stanford_cars": Published({"train": 8_144, "test": 8_041}, 196),
    "tiny_imagenet": Published({"train": 100_000, "val": 10_000}, 200, evaluation="val"),
}
"""By name of the source. The sum for iNaturalist 2019, 268,243, is the one its publishers state; its val has three
images a class."""


@dataclass(frozen=True)
class Part:
    """A published part as its lists give it: ``files`` (N) relative to ``folder`` and their labels (N)."""

    folder: Path
    files: Sequence[str]
    labels: ArrayLike


def check_split(name: str, split: str, more: Sequence[str] = ()) -> None:
    """Raise ConfigError, naming the valid ones, unless ``split`` is a published part of ``name`` or one of ``more``."""
    valid = [*PUBLISHED[name].counts, *more]
    if split not in valid:
        raise ConfigError(f"{name}: split {split!r} is unknown or unlabelled; valid splits: {', '.join(valid)}")


class PublishedSource(FileSource):
    """One or more parts of a published set, checked against the published numbers.

    Args:
        name: key of PUBLISHED.
        split: what the source is called, e.g. ``trainval``.
        use: the parts it consists of, e.g. ``("train", "val")``; they lie in one folder.
        base: resolved folder of the set.
        classes: class names in label order; those without an image are dropped and the labels renumbered.
        parts: by name. All published ones, unless listing one is too slow.
        subset: accept fewer images or classes than published.
        remedy: what to do about a file that is missing, e.g. ``unpack CUB_200_2011.tgz again``.

    Attributes:
        is_subset: whether there is less than was published.

    Raises DataError, one line, if a part is empty, an image is listed twice or in two parts, the parts differ in
    classes, counts are not the published ones (with ``subset``: exceed them), or a listed file of ``use`` is missing.
    """

    def __init__(
        self,
        name: str,
        split: str,
        use: Sequence[str],
        base: Path,
        classes: Sequence[str],
        parts: Mapping[str, Part],
        subset: bool,
        remedy: str,
    ) -> None:
        labels = {part: np.asarray(listed.labels, dtype=np.int64) for part, listed in parts.items()}
        used = np.unique(np.concatenate(list(labels.values())))
        _check_listed_once(name, base, parts)
        check_counts(name, base, {part: len(listed.files) for part, listed in parts.items()}, len(used), subset)
        _check_classes(name, base, classes, labels)
        for part in use:
            listed = parts[part]
            missing = missing_files(listed.folder, listed.files)
            if missing:
                found = f"{len(missing):,} of {len(listed.files):,} listed {part} images are not in {listed.folder}"
                raise DataError(f"{name}: {found} ({first_names(missing)}); {remedy}")
        super().__init__(
            name,
            split,
            base,
            parts[use[0]].folder,
            [classes[i] for i in used],
            [file for part in use for file in parts[part].files],
            np.searchsorted(used, np.concatenate([labels[part] for part in use])),
            [_location(name, part, parts) for part in use],
        )
        published = PUBLISHED[name]
        self._of = sum(published.counts[part] for part in use), published.classes
        self.is_subset = (len(self.labels), len(self.classes)) != self._of

    def describe(self) -> str:
        if not self.is_subset:
            return super().describe()
        images, classes = self._of
        part = f"{len(self):,} of {images:,} images, {len(self.classes):,} of {classes:,} classes"
        return f"{super().describe()} (subset: {part})"


def _location(name: str, part: str, parts: Mapping[str, Part]) -> str:
    """The part's folder; a pseudo-path inside it where several parts lie in one folder, which share no image."""
    folder = parts[part].folder
    alone = sum(other.folder == folder for other in parts.values()) == 1
    return str(folder if alone else folder / f"<{name} {part}>")


def part_folder(name: str, base: Path, part: str, remedy: str) -> Path:
    """``base/part``, resolved. Raises DataError if it is missing."""
    if not (base / part).is_dir():
        raise DataError(f"{name}: {base / part} is missing; {remedy}")
    return (base / part).resolve()


def _check_listed_once(name: str, base: Path, parts: Mapping[str, Part]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for part, listed in parts.items():
        if not len(listed.files):
            raise DataError(f"{name} at {base}: {part} lists no image; fetch the set's lists again")
        folder = str(listed.folder)
        for file in listed.files:
            if (folder, file) in seen:
                first = seen[folder, file]
                where = f"in both {first} and {part}" if first != part else f"twice in {part}"
                raise DataError(f"{name} at {base}: {file} is listed {where}; fetch the set's lists again")
            seen[folder, file] = part


def check_counts(name: str, base: Path, images: Mapping[str, int], classes: int, subset: bool) -> None:
    """Raise DataError unless each part has as many images as published, and as many classes; ``subset``: or fewer."""
    published = PUBLISHED[name]
    pairs = [(found, published.counts[part], f"{part} images") for part, found in images.items()]
    pairs.append((classes, published.classes, "classes"))
    for found, expected, what in pairs:
        if found > expected:
            remedy = "these lists are not the published ones; fetch them again"
            raise DataError(f"{name} at {base}: {found:,} {what}, published are only {expected:,}; {remedy}")
    fewer = [f"{found:,} of {expected:,} {what}" for found, expected, what in pairs if found != expected]
    if fewer and not subset:
        remedy = "unpack the whole set, or accept a part of it with subset=True (--subset)"
        raise DataError(f"{name} at {base}: there are {', '.join(fewer)}; {remedy}")


def subset_remark(name: str, split: str, images: int) -> str:
    """`` (subset: 3 of 20 images)``, or nothing if all that were published are there or nothing was published."""
    published = PUBLISHED[name].counts[split] if name in PUBLISHED else images
    return f" (subset: {images:,} of {published:,} images)" if images < published else ""


def _check_classes(name: str, base: Path, classes: Sequence[str], labels: Mapping[str, NDArray[np.int64]]) -> None:
    (first, reference), *others = ((part, set(found.tolist())) for part, found in labels.items())
    for part, found in others:
        for only, missing in ((reference - found, part), (found - reference, first)):
            if only:
                odd = first_names(classes[i] for i in sorted(only))
                raise DataError(f"{name} at {base}: {missing} has no image of class {odd}; unpack the whole set again")
