"""`mlomae data prepare`: download a data set from its public address, or say which files to download from where.

A data set is downloaded and unpacked into a hidden folder, checked as on loading, and only then renamed.
"""

import socket
from pathlib import Path

from torchvision.datasets.utils import download_and_extract_archive, download_url

from mlomae.common.atomic import new_folder
from mlomae.common.errors import ConfigError, DataError, reason_of
from mlomae.data.images import Images
from mlomae.data.registry import DOWNLOADS, PUBLISHED, Download, build_dataset, find_dataset

TIMEOUT = 60.0
"""Seconds without an answer after which a connection is given up."""


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
    for split, count in PUBLISHED[name].counts.items():
        images = build_dataset({"type": name, "root": str(root), "split": split}, Images)
        if len(images) != count:
            found = f"{images.describe()} has {len(images):,} images, published are {count:,}"
            raise DataError(f"{found}; download it again")
        lines.append(f"{split:<8} {len(images):,} images, {len(images.classes):,} classes")
    return lines


def _download(name: str, download: Download, root: Path) -> list[str]:
    """Download into ``root``; one line per split. Raises DataError, and leaves nothing, if that fails in any way."""
    before, url = socket.getdefaulttimeout(), ""
    socket.setdefaulttimeout(TIMEOUT)
    with new_folder(root / download.folder) as folder:
        try:
            for url, md5 in download.files.items():
                target = str(folder if download.inside else folder.parent)
                if url.endswith((".tgz", ".tar.gz", ".zip")):
                    download_and_extract_archive(url, target, md5=md5, remove_finished=True)
                else:
                    download_url(url, target, md5=md5)
            return _verify(name, folder)
        except Exception as error:  # connections, checksums and damaged archives share no base class
            by_hand = f"download and unpack it by hand to {root / download.folder}"
            raise DataError(
                f"cannot download {name} from {url} ({reason_of(error)}); try again, or {by_hand}"
            ) from error
        finally:
            socket.setdefaulttimeout(before)
