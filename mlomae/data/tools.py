"""`mlomae data check`: is a data set complete, can its images be decoded, is an image in two of its splits?

`mlomae data prepare`: download a data set from its public address, or say which files to download from where. It is
downloaded and unpacked into a hidden folder, checked as on loading, and only then renamed.
"""

import inspect
import itertools
import shutil
import socket
import warnings
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError
from types import MappingProxyType
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets.utils import download_url

from mlomae.common.atomic import new_folder
from mlomae.common.errors import BackendError, ConfigError, DataError, MlomaeError, counted, first_names, reason_of
from mlomae.data.copies import compare_images, describe_copies, digests_of, refuse_copies
from mlomae.data.detections import Detections
from mlomae.data.formats.coco_masks import FORMS
from mlomae.data.images import EMBEDDED, Images, Source, evenly_spaced
from mlomae.data.paths import existing_folder
from mlomae.data.reader import in_threads
from mlomae.data.registry import DOWNLOADS, PUBLISHED, Download, build_dataset, check_counts, find_dataset
from mlomae.data.scenes import Scenes
from mlomae.data.splits import check_classes

SAMPLE = 200
"""Images decoded and measured per split, evenly spaced, unless all are."""

TIMEOUT = 60.0
"""Seconds without an answer after which a connection is given up."""

# raised by connections, by torchvision for a wrong checksum, by archives, by loaders for another data set
_DOWNLOAD_ERRORS = (OSError, HTTPException, RuntimeError, TarError, BadZipFile, DataError)

INDENT, PROBLEM = " " * 9, "problem: "
SMALL, MEDIUM = 32**2, 96**2
"""Pixels below which COCO's evaluation calls an object small, and medium; the others are large."""


def check_data(
    name: str,
    root: str | None,
    subset: bool = False,
    decode: bool = False,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[str, int]:
    """The report on a data set as text, and the exit status: 0 if it ends in "ok", 1 if it lists problems.

    What is a problem here ends a run on the same data before training, by the same functions.

    Args:
        name: of the data set.
        root: its folder; None for embedded data.
        subset: a consistent part of a published data set is no problem.
        decode: measure all images, labels and masks of a split, not only a sample. For copies all images are compared.
        options: of the data set, as in a config; ``split`` may name several, "train,val", and ``{split}`` in another
            one stands for it.

    Raises ConfigError or DataError if there is nothing to check: an unknown name, a folder that does not exist;
    BackendError if all masks are to be decoded and pycocotools is missing.
    """
    splits = find_splits(name, root, options)
    if subset and name not in PUBLISHED:
        raise ConfigError(f"--subset is for published data sets ({', '.join(PUBLISHED)}); leave it out for {name}")
    title = f"{name} at {Path(root).expanduser().resolve()}" if root is not None else f"{name} (embedded)"
    known = inspect.signature(find_dataset(name)).parameters
    lines: list[str] = []
    opened: list[Images] = []
    for split in splits:
        values = {"root": root, "split": split, **({"subset": True, "partial": True} if subset else {})}
        values = {key: value for key, value in values.items() if key in known}
        given = {k: v.replace("{split}", split) if isinstance(v, str) else v for k, v in options.items()}
        try:
            images = build_dataset({"type": name, **given, **values}, Images)
        except DataError as error:
            lines.append(f"{PROBLEM}{error}")
            continue
        found = [*_check_split(images, decode), *_note_counts(images)]
        try:
            if images.root != EMBEDDED:
                digests_of(images)  # as a run does: of all images
            opened.append(images)
        except (DataError, OSError) as error:
            if not any(line.startswith(PROBLEM) for line in found):  # otherwise it has been named already
                found.append(f"{PROBLEM}{images.split}: {error}")
        lines += found
    for training, evaluation in itertools.combinations(opened, 2):
        lines += _check_pair(training, evaluation)
    problems = list(dict.fromkeys(line for line in lines if line.startswith(PROBLEM)))  # once, if of several splits
    if name in PUBLISHED and not problems:
        lines.append(f"usual: train on {PUBLISHED[name].training}, evaluate on {PUBLISHED[name].evaluation}")
    report = [title, *(line for line in lines if line not in problems), *(problems or ["ok"])]
    return "\n".join(report), int(bool(problems))


def find_splits(name: str, root: str | None, options: Mapping[str, Any] = MappingProxyType({})) -> list[str]:
    """The splits of a data set: those that ``options`` name, the published ones, or those that its folder has.

    Raises ConfigError for an unknown name, a missing root or one that is not needed, DataError if it does not exist.
    """
    dataset = find_dataset(name)
    known = inspect.signature(dataset).parameters
    named = [split for split in str(options.get("split", "")).split(",") if split]
    if dataset.made_of:
        raise ConfigError(f"{name} is made of other data sets ({', '.join(dataset.made_of)}); name these, one by one")
    if "root" not in known:
        if root is not None:
            raise ConfigError(f"{name} is embedded in the package and has no folder; leave ROOT out")
        return named or dataset.find_splits(Path())
    if root is None:
        raise ConfigError(f"{name} needs ROOT, the folder that holds it")
    base = existing_folder(root, name)
    if "split" not in known:
        return [base.name]
    if not named and any("{split}" not in str(options.get(key, "{split}")) for key in dataset.of_one_split):
        named = [known["split"].default]
    return named or (list(PUBLISHED[name].counts) if name in PUBLISHED else dataset.find_splits(base))


def _check_split(images: Images, decode: bool) -> Iterator[str]:
    """Lines on one split. Raises BackendError if all masks are to be decoded and pycocotools is missing."""
    what = "pair" if isinstance(images, Scenes) else "image"
    line = f"{images.split:<8} {counted(len(images), what)}, {counted(len(images.classes), 'class')}"
    if isinstance(images, Source):
        line += f", {_spread(np.bincount(images.labels, minlength=len(images.classes)))} images per class"
    yield line
    chosen = evenly_spaced(len(images), None if decode else SAMPLE)

    def size_of(i: int) -> tuple[int, int] | str:
        """Height and width in pixels of an image that can be decoded, else what is wrong with it."""
        try:
            _, height, width = images.image(i).shape
            return height, width
        except MlomaeError as error:
            return str(error).removeprefix("cannot decode ").partition("; ")[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd EXIF data, common in published data sets
        seen = list(in_threads(size_of, chosen))
    sizes, broken = [s for s in seen if not isinstance(s, str)], [s for s in seen if isinstance(s, str)]
    if sizes:
        sides = zip(("height", "width"), np.min(sizes, axis=0), np.max(sizes, axis=0), strict=True)
        ranges = ", ".join(f"{side} {low}" if low == high else f"{side} {low}-{high}" for side, low, high in sides)
        yield f"{INDENT}{ranges} pixels ({_decoded(len(chosen), len(images))})"
    if broken:
        said = f"{len(broken):,} of {counted(len(seen), 'image')} cannot be decoded ({first_names(broken)})"
        yield f"{PROBLEM}{images.split}: {said}; download these files again"
    yield from (f"{INDENT}{note}" for note in images.notes())
    if isinstance(images, Scenes):
        yield from _check_labels(images, decode)
    if isinstance(images, Detections):
        yield from _check_objects(images, decode)


def _spread(counts: NDArray[np.int64]) -> str:
    """Minimum, median and maximum of ``counts``."""
    return f"{counts.min():,}/{np.median(counts):,g}/{counts.max():,}"


def _decoded(count: int, total: int) -> str:
    return "all decoded" if count == total else f"{count:,} decoded, evenly spaced"


def _check_labels(scenes: Scenes, decode: bool) -> Iterator[str]:
    """The line on the annotations of one split, all of them or a sample."""
    try:
        found = scenes.check_labels(decode)
    except DataError as error:
        yield f"{PROBLEM}{error}"
        return
    present, share = int((found.pixels > 0).sum()), found.ignored / (found.ignored + found.pixels.sum())
    every = found.annotations == len(scenes)
    scanned = "all annotations" if every else f"{counted(found.annotations, 'annotation')}, evenly spaced"
    line = f"{present:,} of {counted(len(scenes.classes), 'class')} present, {share:.1%} of the pixels have no label"
    yield f"{INDENT}{line} ({scanned})"


def _check_objects(detections: Detections, decode: bool) -> Iterator[str]:
    """Lines on the objects of one split."""
    objects = detections.objects
    present, crowds = len(np.unique(objects.labels)), int(objects.crowds.sum())
    yield (
        f"{INDENT}{counted(len(objects.ids), 'object')}, {_spread(np.diff(objects.first))} per image, "
        f"{present:,} of {counted(len(detections.classes), 'category')} present, {counted(crowds, 'crowd')}"
    )
    sizes = np.bincount(np.digitize(objects.areas[~objects.crowds], [SMALL, MEDIUM]), minlength=3)
    shares = zip(sizes / max(sizes.sum(), 1), ("small", "medium", "large"), strict=True)
    areas = f"areas: {', '.join(f'{share:.1%} {size}' for share, size in shares)}"
    areas += " (under 32², under 96² pixels, others; without crowds)"
    yield f"{INDENT}{areas if sizes.any() else 'no object that is not a crowd'}"
    counts = np.bincount(objects.masks.forms, minlength=len(FORMS))
    forms = ", ".join(f"{count:,} {form}" for form, count in zip(FORMS, counts.tolist(), strict=True) if count)
    try:
        found = detections.check_annotations(decode)
        masks = f"median IoU {found.median_iou:.3f} with the boxes, "
        masks += f"annotated areas are {found.median_area:.2f} of the pixels"
        masks += f", {found.empty:,} empty" if found.empty else ""
        masks += f" ({_decoded(found.objects, len(objects.ids))})"
    except DataError as error:
        yield f"{PROBLEM}{error}"
        masks = "not as annotated"
    except BackendError as error:
        if decode:
            raise
        masks = f"none decoded ({error})"
    yield f"{INDENT}masks: {forms}; {masks}"


def _note_counts(images: Images) -> Iterator[str]:
    """A note on fewer images than published, where the data set has accepted them."""
    counts = {images.split: len(images)}
    try:
        check_counts(images.name, Path(images.root), counts, len(images.classes), subset=False)
    except DataError as error:
        yield f"note: {str(error).partition('; ')[0]}; this is a subset"


def _check_pair(training: Images, evaluation: Images) -> Iterator[str]:
    """Lines on the images of ``evaluation`` that ``training`` has too, judged as a run judges them."""
    try:
        check_classes(training, evaluation)
    except DataError as error:
        yield f"{PROBLEM}{error}"
    try:
        found = compare_images(training, evaluation)
    except DataError as error:
        yield f"{PROBLEM}{error}"
        return
    for kind, copies in (("repeated", found.equal), ("near    ", found.near)):
        which = f" ({describe_copies(copies, evaluation, training)})" if copies else ""
        yield f"{kind} {len(copies):,} of {found.compared:,} {evaluation.split} images are in {training.split}{which}"
    try:
        refuse_copies(found, evaluation, training)
    except DataError as error:
        yield f"{PROBLEM}{error}"


# --- prepare ----------------------------------------------------------------------------------------------------------


def prepare_data(name: str, root: str) -> tuple[str, int]:
    """Make sure that the data set ``name`` is below ``root``: what was done as text, and the exit status.

    Status 0: it is there and complete, downloaded if necessary. Status 2: the text says what to download by hand.

    Raises ConfigError for a name without a published data set, DataError if it cannot be downloaded, is not the
    published one, or is there already but not complete.
    """
    find_dataset(name)
    if name not in PUBLISHED or name not in DOWNLOADS:
        what = "embedded in the package" if name == "textures" else "a layout, not a data set"
        raise ConfigError(f"{name} is {what}: nothing to prepare; choose one of {', '.join(sorted(DOWNLOADS))}")
    download, base = DOWNLOADS[name], Path(root).expanduser().absolute()
    if base.exists() and not base.is_dir():
        raise ConfigError(f"{base} is a file; name a folder")
    if isinstance(download, str):
        try:
            return "\n".join([f"{name} is complete at {base}", *_verify(name, base)]), 0
        except DataError as error:
            check = f"then run: mlomae data check {name} {base}"
            return "\n".join([f"now: {error}", download.format(root=base), check]), 2
    place = base / download.folder
    for folder in (base, place):
        try:
            return "\n".join([f"{name} was there already, complete, at {folder}", *_verify(name, folder)]), 0
        except DataError as error:
            if folder == place and place.exists():
                raise DataError(f"{error} (remove {place} to have it downloaded again)") from error
    return "\n".join([f"{name} is complete at {place}", *_download(name, download, base)]), 0


def _verify(name: str, root: Path) -> list[str]:
    """One line per split. Raises DataError if a split is not as published."""
    lines = []
    for split in PUBLISHED[name].counts:
        images = build_dataset({"type": name, "root": str(root), "split": split}, Images)
        check_counts(name, root, {split: len(images)}, len(images.classes), subset=False)
        lines.append(f"{split:<8} {counted(len(images), 'image')}, {counted(len(images.classes), 'class')}")
    return lines


def _download(name: str, download: Download, root: Path) -> list[str]:
    """Download into ``root``; one line per split. Raises DataError, and leaves nothing, if that fails in any way."""
    before, url = socket.getdefaulttimeout(), ""
    socket.setdefaulttimeout(TIMEOUT)
    with new_folder(root / download.folder) as folder:
        try:
            for url, md5 in download.files.items():
                target = folder if download.inside else folder.parent
                download_url(url, str(target), md5=md5)
                if url.endswith((".tgz", ".tar.gz", ".zip")):
                    archive = target / url.rpartition("/")[2]
                    # no file outside the target; of zip archives such files are left out anyway
                    shutil.unpack_archive(archive, target, filter=None if archive.suffix == ".zip" else "data")
                    archive.unlink()
            return _verify(name, folder)
        except _DOWNLOAD_ERRORS as error:
            by_hand = f"download and unpack it by hand to {root / download.folder}"
            raise DataError(
                f"cannot download {name} from {url} ({reason_of(error)}); try again, or {by_hand}"
            ) from error
        finally:
            socket.setdefaulttimeout(before)
