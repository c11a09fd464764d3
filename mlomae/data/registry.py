"""All data sets by name, whatever their task: how to build one, what was published of it, and where to fetch it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from mlomae.common.errors import ConfigError
from mlomae.common.registry import Registry
from mlomae.data.images import Images, Source

D = TypeVar("D", bound=Images)


@dataclass(frozen=True)
class Published:
    """A data set that was published with a fixed list of images.

    Attributes:
        counts: images of each split that has public labels.
        classes: number of classes.
        training, evaluation: the splits that are usually trained on, and that results are reported on.
    """

    counts: Mapping[str, int]
    classes: int
    training: str = "train"
    evaluation: str = "test"


@dataclass(frozen=True)
class Download:
    """What `mlomae data prepare` fetches: files by URL, with their MD5 sums, into a folder below ROOT.

    Attributes:
        folder: below ROOT, what the data set is in afterwards.
        files: MD5 sums by URL; archives are unpacked.
        inside: whether files and archives belong into ``folder``; by default the archives hold it.
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
    """Decorator: let configs name a class of data sets by ``type=name``; its ``name`` becomes that.

    The class derives from `Source` (one label per image), `Scenes` (a class for every pixel) or `Detections` (boxes and
    masks of objects). The arguments of its constructor are the keys of the config; most have ``root`` and ``split``.

    Args:
        published: the published numbers, if there are any: what `mlomae data check` compares the data set with.
        download: where `mlomae data prepare` fetches it, or how to fetch it by hand.
    """

    def register(dataset: type[D]) -> type[D]:
        if not (isinstance(dataset, type) and issubclass(dataset, Images)):
            raise TypeError(f"data set '{name}' is no class derived from Source, Scenes or Detections: {dataset!r}")
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
    """Build the data set that ``cfg`` describes: ``type`` names it, every other key is an argument of its constructor.

    Raises ConfigError for an unknown type or one of another kind, an unknown key or a missing key, and DataError if
    the data cannot be read.
    """
    name = cfg.get("type")
    if name not in _DATASETS or not issubclass(find_dataset(name), kind):
        said = f"unknown data set '{name}'" if name is not None else "data set without a type"
        if name in _DATASETS:
            said = f"data set '{name}' does not have {kind.provides}"
        raise ConfigError(f"{said}; choose one of {', '.join(list_datasets(kind))}")
    built = _DATASETS.build(name, {key: value for key, value in cfg.items() if key != "type"})
    assert isinstance(built, kind)
    return built


build_source = partial(build_dataset, kind=Source)
