"""All data sets by name, whatever their task: how to build one, where to fetch it, how to check it against its
published numbers; and `PublishedSource`, the base class of sets published as lists of labelled images."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlomae.common.errors import ConfigError, DataError, counted, first_names, reason_of
from mlomae.common.registry import Registry
from mlomae.data.images import FileSource, Images, Source
from mlomae.data.paths import LabelledFiles, data_folder, existing_file, find_listed

Lists: TypeAlias = tuple[Mapping[int, str], Mapping[str, LabelledFiles]]
D = TypeVar("D", bound=Images)


@dataclass(frozen=True)
class Published:
    """A data set that was published with a fixed list of images.

    Attributes:
        counts: images of each split that has public labels.
        classes: number of classes.
        training, evaluation: the splits that are usually trained on, and that results are reported on.
        near_copies: share of the evaluation images that are known to have near copies in training.
    """

    counts: Mapping[str, int]
    classes: int
    training: str = "train"
    evaluation: str = "test"
    near_copies: float = 0.0


@dataclass(frozen=True)
class Download:
    """What `mlomae data prepare` fetches: files by URL, with their MD5 sums, into a folder below ROOT.

    Attributes:
        folder: below ROOT, what the data set is in afterwards.
        files: MD5 sums by URL; archives are unpacked.
        inside: whether files and archives go into ``folder``; by default the archives contain it.
    """

    folder: str
    files: Mapping[str, str]
    inside: bool = False


PUBLISHED: dict[str, Published] = {}
"""By name of the data set."""

DOWNLOADS: dict[str, Download | str] = {}
"""By name of the data set; a text says how to fetch it by hand, with ``{root}`` for the folder."""

_DATASETS = Registry[Images]("data set")
registered_dataset = _DATASETS.registered


def register_dataset(
    name: str, published: Published | None = None, download: Download | str | None = None
) -> Callable[[type[D]], type[D]]:
    """Decorator: let configs name a class of data sets by ``type=name``, which becomes its ``name``.

    The class derives from `Source` (one label per image), `Scenes` (a class for every pixel) or `Detections` (boxes and
    masks of objects). The arguments of its constructor are the keys of the config; most have ``root`` and ``split``.

    Args:
        published: the published numbers, if there are any: what `mlomae data check` compares the data set with.
        download: where `mlomae data prepare` fetches it, or how to fetch it by hand.
    """

    def register(dataset: type[D]) -> type[D]:
        if not (isinstance(dataset, type) and issubclass(dataset, Images)):
            raise TypeError(f"data set '{name}' is not a class derived from Source, Scenes or Detections: {dataset!r}")
        _DATASETS.register(name)(dataset).name = name
        if published is not None:
            PUBLISHED[name] = published
        if download is not None:
            DOWNLOADS[name] = download
        return dataset

    return register


def find_dataset(name: object) -> type[Images]:
    """The class registered under ``name``. Raises ConfigError, listing the names, if there is none."""
    dataset = _DATASETS.get(name)
    assert isinstance(dataset, type)
    return dataset


def list_datasets(kind: type[Images] = Images) -> list[str]:
    """The values ``type`` can take: names of all data sets, or of those of one kind, e.g. `Scenes`."""
    return [name for name in _DATASETS.names() if issubclass(find_dataset(name), kind)]


def build_dataset(cfg: dict[str, Any], kind: type[D]) -> D:
    """Build the data set that ``cfg`` describes: ``type`` names it, ``title``, if given, is what headings call it, and
    every other key is an argument of its constructor.

    Raises ConfigError for an unknown type or one of another kind, an unknown key or a missing key, a title that is no
    name, and DataError if the data cannot be read.
    """
    name = cfg.get("type")
    if name not in _DATASETS or not issubclass(find_dataset(name), kind):
        said = f"unknown data set '{name}'" if name is not None else "data set without a type"
        if name in _DATASETS:
            said = f"data set '{name}' does not have {kind.provides}"
        raise ConfigError(f"{said}; choose one of {', '.join(list_datasets(kind))}")
    title = cfg.get("title", "")
    if not isinstance(title, str) or not title.isprintable() or title != PurePath(title).name:
        raise ConfigError(f"title={title!r} of data set '{name}' must be a name without slashes, for headings")
    built = _DATASETS.build(name, {key: value for key, value in cfg.items() if key not in ("type", "title")})
    assert isinstance(built, kind)
    built.given_title = title
    return built


build_source = partial(build_dataset, kind=Source)


def build_inner(name: str, key: str, source: Any) -> Source:
    """`build_source` of the argument ``key``, of which the data set ``name`` is made. Raises ConfigError, besides what
    that raises, if it is no description."""
    if not isinstance(source, dict):
        raise ConfigError(f"{name}: {key} must be a dict that describes a data set, e.g. dict(type='cifar10', ...)")
    return build_source(source)


# --- published data sets ----------------------------------------------------------------------------------------------


def check_split(name: str, split: str, more: Sequence[str] = ()) -> None:
    """Raise ConfigError, naming the valid ones, unless ``split`` is a published one of ``name`` or one of ``more``."""
    valid = [*PUBLISHED[name].counts, *more]
    if split not in valid:
        raise ConfigError(f"{name}: split {split!r} is unknown or unlabelled; valid splits: {', '.join(valid)}")


def check_counts(name: str, base: Path, images: Mapping[str, int], classes: int, subset: bool) -> None:
    """Raise DataError unless each split has as many images as published, and as many classes; ``subset``: or fewer.

    Accepts any numbers if none were published.
    """
    published = PUBLISHED.get(name, Published(images, classes))
    pairs = [(found, published.counts[part], f"{part} images") for part, found in images.items()]
    pairs.append((classes, published.classes, "classes"))
    for found, expected, what in pairs:
        if found > expected:
            remedy = "these lists are not the published ones; download them again"
            raise DataError(f"{name} at {base}: {found:,} {what}, published are only {expected:,}; {remedy}")
    fewer = [f"{found:,} of {expected:,} {what}" for found, expected, what in pairs if found != expected]
    if fewer and not subset:
        remedy = "unpack the whole data set"
        if "subset" in _DATASETS.options(name):
            remedy += ", or accept a part of it with subset=True (--subset)"
        raise DataError(f"{name} at {base}: there are {', '.join(fewer)}; {remedy}")


def subset_remark(name: str, split: str, images: int) -> str:
    """`` (subset: 3 of 20 images)``, or nothing if all that were published are there or nothing was published."""
    published = PUBLISHED[name].counts[split] if name in PUBLISHED else images
    return f" (subset: {images:,} of {counted(published, 'image')})" if images < published else ""


class PublishedSource(FileSource):
    """A published data set, decoded on each access. A subclass sets the attributes and implements ``read_lists``.

    Args:
        root: the folder of the data set, or one that holds it under one of the names ``inner``.
        split: a published split with labels, or one of ``combined``.
        subset: accept a consistent part of the published images or classes.

    Attributes:
        inner, markers: where the data set may be below ROOT, and files or folders by which it is recognised.
        combined: splits made of several published ones that share a folder: the names of these by that of the split.

    Raises ConfigError for an unknown split, and DataError, one line, if a file or folder is missing or damaged, a split
    is empty, an image is listed twice or in two splits, a label is not that of a class, the splits differ in classes,
    counts are not the published ones (with ``subset``: exceed them), or a listed image of ``split`` is missing.
    """

    inner: Sequence[str] = ()
    markers: Sequence[str] = ()
    combined: ClassVar[Mapping[str, Sequence[str]]] = {}

    def __init__(self, root: str, split: str = "train", subset: bool = False) -> None:
        name = self.name
        check_split(name, split, list(self.combined))
        base = data_folder(root, name, self.inner, self.markers)
        names, parts = self.read_lists(base, split)
        labels = {part: np.asarray(listed.labels, dtype=np.int64) for part, listed in parts.items()}
        used = np.unique(np.concatenate(list(labels.values())))  # classes without an image are dropped
        if unknown := [label for label in used.tolist() if label not in names]:
            raise self.fault(f"the lists in {base} have images of class {first_names(unknown)}, which they do not name")
        self._check_listed_once(base, parts)
        check_counts(name, base, {part: len(listed.files) for part, listed in parts.items()}, len(used), subset)
        self._check_classes(base, names, labels)
        wanted, files = self.combined.get(split, [split]), []
        for part in wanted:
            listed = parts[part]
            spelt, missing, _ = find_listed(listed.folder, listed.files)
            if missing:
                lack = f"{len(missing):,} of {len(spelt):,} listed {part} images are not in {listed.folder}"
                raise self.fault(f"{lack} ({first_names(missing)})")
            files += spelt
        numbers = np.searchsorted(used, np.concatenate([labels[part] for part in wanted]))
        left_out = sum((Counter(parts[part].left_out) for part in wanted), Counter[str]())
        listed = LabelledFiles(parts[wanted[0]].folder, files, numbers, left_out)
        super().__init__(name, split, base, [names[i] for i in used.tolist()], listed)
        folders = {part: listed.folder for part, listed in parts.items()}
        shared = len(set(folders.values())) < len(folders)  # pseudo-paths then: the splits share no image
        self.locations = frozenset(str(folders[p] / f"<{name} {p}>" if shared else folders[p]) for p in wanted)

    def read_lists(self, base: Path, split: str) -> Lists:
        """Class names by label, and files and labels of each published split, from the lists in ``base``.

        Of ``split`` alone where listing the others is too slow. Raises DataError for lists that contradict each other.
        """
        raise NotImplementedError

    def read_mat(self, path: Path, variable: str) -> NDArray[Any]:
        """A variable of the MATLAB file at ``path``, without axes of length one, as an array of at least one axis.

        Reading such a file runs no code. Raises DataError if the file is missing or damaged, or lacks the variable.
        """
        from scipy.io import loadmat

        existing_file(path, self.name, self.remedy)
        try:
            content = loadmat(path, squeeze_me=True)
        except Exception as error:  # a damaged file can raise anything
            raise self.fault(f"cannot read {path} ({reason_of(error)})") from error
        if variable not in content:
            raise self.fault(f"{path} holds no variable '{variable}'")
        return np.atleast_1d(content[variable])

    def integers(self, values: Any, path: Path) -> NDArray[np.int64]:
        """``values``, which are from ``path``, as (N,) int64. Raises DataError if they are not whole numbers."""
        try:
            array = np.asarray(values).astype(np.float64)
            if array.ndim == 1 and np.array_equal(array, array.round()):
                return array.astype(np.int64)
        except (TypeError, ValueError):
            pass
        raise self.fault(f"{path} holds values that are not whole numbers")

    def describe(self) -> str:
        published, found = PUBLISHED[self.name], (len(self), len(self.classes))
        images = sum(published.counts[part] for part in self.combined.get(self.split, [self.split]))
        subset = f" (subset: {found[0]:,} of {images:,} images, {found[1]:,} of {published.classes:,} classes)"
        return super().describe() + (subset if found != (images, published.classes) else "")

    def _check_listed_once(self, base: Path, parts: Mapping[str, LabelledFiles]) -> None:
        seen: dict[tuple[str, str], str] = {}
        for part, listed in parts.items():
            if not len(listed.files):
                raise self.fault(f"in {base} {part} lists no image", "download the lists again")
            for file in listed.files:
                if first := seen.get((str(listed.folder), file)):
                    where = f"in both {first} and {part}" if first != part else f"twice in {part}"
                    raise self.fault(f"in {base} {file} is listed {where}", "download the lists again")
                seen[str(listed.folder), file] = part

    def _check_classes(self, base: Path, classes: Mapping[int, str], labels: Mapping[str, NDArray[np.int64]]) -> None:
        (first, reference), *others = ((part, set(found.tolist())) for part, found in labels.items())
        for part, found in others:
            for only, missing in ((reference - found, part), (found - reference, first)):
                if only:
                    odd = first_names(classes[i] for i in sorted(only))
                    raise self.fault(f"in {base} {missing} has no image of class {odd}", "unpack the data set again")
