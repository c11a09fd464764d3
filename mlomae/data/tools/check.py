"""`mlomae data check`: is a data set complete, can its images be decoded, does an image occur in two of its parts."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mlomae.common.errors import ConfigError, DataError, MlomaeError
from mlomae.common.system import usable_cores
from mlomae.data.detections import Detections
from mlomae.data.images import Images
from mlomae.data.paths import existing_folder, first_names
from mlomae.data.published import PUBLISHED
from mlomae.data.registries import build_data, list_data
from mlomae.data.scenes import Scenes
from mlomae.data.sources import Source
from mlomae.data.splits import TOLERATED_SHARE, most_compared, repeated_images
from mlomae.data.textures.source import DEFAULT_COUNTS
from mlomae.data.tools.check_objects import check_objects, find_object_splits
from mlomae.data.tools.check_scenes import check_labels, find_scene_splits

SAMPLE = 200
"""Images decoded and measured of each part, evenly spaced, where not all are."""


def find_splits(name: str, root: str | None) -> list[str]:
    """The parts of a data set: the published ones, or those a folder has (``imagefolder``, ``scene_folder``, ...).

    Raises ConfigError for an unknown name, or a root that is missing or too much, DataError if the root is not there.
    """
    if name not in list_data():
        raise ConfigError(f"unknown data source '{name}'; choose one of {', '.join(list_data())}")
    if name == "textures":
        if root is not None:
            raise ConfigError("textures are embedded in the package and have no folder; leave ROOT out")
        return list(DEFAULT_COUNTS)
    if root is None:
        raise ConfigError(f"{name} needs ROOT, the folder that holds it")
    base = existing_folder(root, name)
    if name in PUBLISHED:
        return list(PUBLISHED[name].counts)
    if name in ("scene_folder", "coco_folder"):
        return find_scene_splits(base) if name == "scene_folder" else find_object_splits(base)
    folders = [e.name for e in base.iterdir() if not e.name.startswith(".") and e.is_dir() and _has_folders(e)]
    if not folders:
        raise DataError(f"{name}: {base} has no class folders; expected {base / 'train' / '<class>' / '*.jpg'}")
    return sorted(
        folders, key=lambda split: (split != "train", split)
    )  # training first: the others are looked for in it


def _has_folders(folder: Path) -> bool:
    return any(entry.is_dir() for entry in folder.iterdir())


def _options(name: str, root: str | None, split: str, subset: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"type": name, "split": split}
    if root is not None:
        options["root"] = root
    if name in ("cifar10", "cifar100"):
        options["partial"] = subset
    elif name in PUBLISHED and name != "tiny_imagenet":  # which accepts any part of itself
        options["subset"] = subset
    return options


def _decode(source: Images, indices: list[int]) -> tuple[list[tuple[int, int]], list[str]]:
    """Sizes (height, width) in pixels of those of the images that can be decoded, and what is wrong with the others."""

    def look(i: int) -> tuple[int, int] | str:
        try:
            _, height, width = source.image(i).shape
            return height, width
        except MlomaeError as error:
            return str(error).removeprefix("cannot decode ").partition("; ")[0]

    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, usable_cores())) as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks on odd EXIF data, of which published sets are full
        seen = list(pool.map(look, indices))
    return [s for s in seen if not isinstance(s, str)], [s for s in seen if isinstance(s, str)]


def _range(values: np.ndarray[Any, Any]) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low}-{high}"


def _check_part(source: Images, decode: bool, problems: list[str]) -> list[str]:
    """Lines on one part; appends to ``problems``."""
    what = "pairs" if isinstance(source, Scenes) else "images"
    lines = [f"{source.split:<8} {len(source):,} {what}, {len(source.classes):,} classes"]
    if isinstance(source, Source):
        per_class = np.bincount(source.labels, minlength=len(source.classes))
        lines[0] += f", {per_class.min():,}/{np.median(per_class):,g}/{per_class.max():,} images a class"
    count = len(source) if decode else min(SAMPLE, len(source))
    sizes, broken = _decode(source, [i * len(source) // count for i in range(count)])
    if sizes:
        heights, widths = np.array(sizes).T
        which = "all decoded" if count == len(source) else f"{count:,} decoded, evenly spaced"
        lines.append(f"{'':8} height {_range(heights)}, width {_range(widths)} pixels ({which})")
    if broken:
        remedy = "fetch these files again"
        found = f"{len(broken):,} of {count:,} images cannot be decoded"
        problems.append(f"{source.split}: {found} ({first_names(broken)}); {remedy}")
    if isinstance(source, Scenes):
        lines += check_labels(source, decode, problems)
    if isinstance(source, Detections):
        lines += check_objects(source, decode, problems)
    return lines


def _check_counts(source: Images, subset: bool, problems: list[str]) -> Iterator[str]:
    """A part smaller than published is a problem, or a line if ``subset``; most sources refuse it themselves."""
    published = PUBLISHED.get(source.name)
    if published is None:
        return
    expected = published.counts[source.split], published.classes
    if (len(source), len(source.classes)) != expected:
        part = f"{source.split}: published are {expected[0]:,} images of {expected[1]:,} classes"
        if subset:
            yield f"note: {part}; this is a subset"
        else:
            problems.append(f"{part}, here are {len(source):,} of {len(source.classes):,}; fetch it again or --subset")


def _check_pair(training: Images, evaluation: Images, decode: bool, problems: list[str]) -> str:
    """The line on images of ``evaluation`` that ``training`` has too; up to 1 % are a note, as published sets have."""
    if training.classes != evaluation.classes:
        odd = sorted(set(training.classes) ^ set(evaluation.classes)) or ["their order"]
        problems.append(f"{training.split} and {evaluation.split} differ in class {first_names(odd)}; fetch it again")
    most = None if decode else most_compared(training, evaluation)
    compared, found = repeated_images(training, evaluation, most)
    pairs = (f"{_image_name(evaluation, i)} = {_image_name(training, j)}" for i, j in found.items())
    which = f" ({first_names(pairs)})" if found else ""
    line = f"{len(found):,} of {compared:,} {evaluation.split} images are in {training.split}{which}"
    if len(found) > TOLERATED_SHARE * compared:
        problems.append(f"{line}; an evaluation on them would be no evaluation, fetch the set again")
    return f"repeated {line}"


def _image_name(source: Images, i: int) -> str:
    relative = getattr(source, "relative_path", None)
    return str(relative(i)) if relative else f"image {i}"


def check_data(name: str, root: str | None, subset: bool = False, decode: bool = False) -> tuple[str, int]:
    """The report on a data set as text, and the exit status: 0 if it ends in "ok", 1 if it lists problems.

    Args:
        name: of a source.
        root: folder of the set; None for embedded data.
        subset: a consistent part of a published set is no problem.
        decode: decode all images and compare all evaluation images with the training images; a sample else.

    Raises ConfigError or DataError if there is nothing to check: an unknown name, a folder that does not exist;
    BackendError if masks are to be decoded and pycocotools is missing.
    """
    splits = find_splits(name, root)
    if subset and name not in PUBLISHED:
        raise ConfigError(f"--subset is for published sets ({', '.join(PUBLISHED)}); leave it out for {name}")
    lines = [f"{name} at {Path(root).expanduser().resolve()}" if root is not None else f"{name} (embedded)"]
    problems: list[str] = []
    sources: list[Images] = []
    for split in splits:
        try:
            source = build_data(_options(name, root, split, subset))
        except DataError as error:
            if str(error) not in problems:  # what is wrong with the whole set is wrong with every part
                problems.append(str(error))
            continue
        lines += _check_part(source, decode, problems)
        lines += _check_counts(source, subset, problems)
        sources.append(source)
    for training, evaluation in itertools.combinations(sources, 2):
        try:
            lines.append(_check_pair(training, evaluation, decode, problems))
        except (DataError, OSError) as error:
            problems.append(f"{training.split} and {evaluation.split} cannot be compared: {error}")
    if name in PUBLISHED and not problems:
        lines.append(f"usual: train on {PUBLISHED[name].training}, evaluate on {PUBLISHED[name].evaluation}")
    lines += [f"problem: {problem}" for problem in problems] or ["ok"]
    return "\n".join(lines), int(bool(problems))
