"""The one way from a file to pixels: images to uint8 RGB, label maps to their values, and which files count as images.

Shape suffixes: N images, C channels, H height, W width.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mlomae.common.errors import DataError, reason_of
from mlomae.common.system import usable_cores

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

T = TypeVar("T")


def is_image(name: str, endings: tuple[str, ...] = IMAGE_ENDINGS) -> bool:
    """Whether a file of this name is read: it has one of ``endings`` in any case and is not hidden."""
    return name.lower().endswith(endings) and not name.startswith(".")


def rgb(image: Image.Image) -> Tensor:
    """A PIL image as (3, H, W) uint8 RGB."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def decode(path: str) -> Tensor:
    """The image at ``path`` as (3, H, W) uint8 RGB. Raises DataError naming the file if it cannot be decoded."""
    return _open(path, rgb, "replace or delete this file")


def decode_values(path: str) -> NDArray[Any]:
    """(H, W) values of a single-channel PNG as they are stored, in 8 or 16 bits; of a palette the indices.

    Raises DataError naming the file if it cannot be decoded.
    """
    return _open(path, np.array, "replace this file", formats=["PNG"])


def _open(path: str, convert: Callable[[Image.Image], T], remedy: str, formats: list[str] | None = None) -> T:
    try:
        with Image.open(path, formats=formats) as image:
            return convert(image)
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        raise DataError(f"cannot decode {path} ({reason_of(error)}); {remedy}") from error


def header_size(path: str) -> tuple[int, int] | None:
    """(H, W) in pixels of the image at ``path`` by its header, without decoding it; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception:  # decode explains the error
        return None


def read_bytes(path: str, count: int = -1) -> bytes:
    """The first ``count`` bytes of a file, by default all. Raises DataError naming the file if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); check the file and its permissions") from error


def decode_all(folder: Path, files: Sequence[str]) -> Tensor:
    """All ``files`` of ``folder`` decoded: (N, 3, H, W) uint8. Raises DataError naming the first of another size."""
    first = decode(str(folder / files[0]))
    images_NCHW = torch.empty((len(files), *first.shape), dtype=torch.uint8)
    for i, file in enumerate(files):
        image_CHW = first if i == 0 else decode(str(folder / file))
        if image_CHW.shape != first.shape:
            sizes = f"{tuple(image_CHW.shape[1:])} against {tuple(first.shape[1:])}"
            remedy = "resize it, or open the folder as type='imagefolder' with cache=False"
            raise DataError(f"{folder / file} differs in size from the first image ({sizes}); {remedy}")
        images_NCHW[i] = image_CHW
    return images_NCHW


def in_threads(call: Callable[[int], T], indices: Sequence[int]) -> Iterator[T]:
    """``call(i)`` of all ``indices``, in order, in threads: reading waits for the disk, and Pillow frees the GIL."""
    with ThreadPoolExecutor(min(8, 2 * usable_cores())) as pool:
        yield from pool.map(call, indices)
