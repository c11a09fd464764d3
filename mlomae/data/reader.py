"""The one way from a file to pixels: images to uint8 RGB, label maps to their values, and which files count as images.

How an image of any kind becomes (3, H, W) uint8:

- JPEG is decoded by simplejpeg, three times as fast as Pillow and to the same bits, since both use libjpeg-turbo;
  everything else by Pillow, as is a JPEG that simplejpeg refuses (CMYK, say).
- It is turned as its EXIF orientation says, unless an annotation states the size of the stored pixels (``stated``).
- 16 bits per channel: the high byte. 1 bit: black and white. Floating point: [0, 1] becomes 0 to 255; other values are
  refused. Grey is repeated in all channels, a palette is looked up, CMYK is converted without a colour profile.
- Transparency is dropped: the colours below it are used. Of an animation or a multi-page file, the first picture.
- A large JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, in a fraction of the time (``factor``).

Shape suffixes: N images, C channels, H height, W width.
"""

import errno
import functools
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from simplejpeg import decode_jpeg, decode_jpeg_header
from torch import Tensor

from mlomae.common.errors import DataError, reason_of
from mlomae.common.files import is_hidden
from mlomae.common.system import usable_cores

IMAGE_ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
"""Of an image; a small file can claim more than memory holds. Pillow refuses more than this many by itself."""

Size = tuple[int, int]
"""(H, W) in pixels."""

T = TypeVar("T")

_JPEG = b"\xff\xd8\xff"  # the first bytes of a file decide, not its ending
_MISNAMED = (".avif", ".jp2")  # what web sites send under the name of a JPEG, if Pillow can read it
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_FLIPPED = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}  # dimensions to flip, after transposing


@functools.cache
def _formats() -> list[str]:
    """Pillow's names of the formats that are read; it knows others, some of which start programs (PostScript)."""
    known = Image.registered_extensions()
    return sorted({known[ending] for ending in (*IMAGE_ENDINGS, *_MISNAMED) if ending in known})


def is_image(name: str, endings: tuple[str, ...] = IMAGE_ENDINGS) -> bool:
    """Whether a file of this name is read: it has one of ``endings`` in any case and is not hidden."""
    return name.lower().endswith(endings) and not is_hidden(name)


def decode(path: str, stated: Size | None = None, factor: int = 1) -> Tensor:
    """The image at ``path`` as (3, H, W) uint8 RGB, channels last in memory, by the rules of the module docstring.

    ``stated`` is the size that its annotation gives: an image that has this size only as it is stored is not turned.
    With ``factor`` 2, 4 or 8 the sides of a JPEG are divided by it, rounded up; other formats keep their size.

    Raises DataError naming the file if it cannot be decoded.
    """
    return decode_bytes(read_bytes(path), path, stated, factor)


def decode_bytes(data: bytes, name: str, stated: Size | None = None, factor: int = 1) -> Tensor:
    """As `decode`, of the bytes of a file; ``name`` is for messages."""
    image_CHW, orientation, stored = _stored(data, name, factor)
    if orientation in _TRANSPOSED and stored == stated:
        orientation = 1
    if orientation in _TRANSPOSED:
        image_CHW = image_CHW.transpose(1, 2)
    if orientation in _FLIPPED:
        image_CHW = image_CHW.flip(_FLIPPED[orientation])
    return image_CHW


def rgb(image: Image.Image) -> Tensor:
    """A PIL image as (3, H, W) uint8 RGB, not turned; ValueError for pixels without a rule."""
    if image.mode.startswith(("I", "F")):
        values_HW = np.array(image)
        least, most = values_HW.min(), values_HW.max()
        if image.mode == "F" and least >= 0 and most <= 1:
            image = Image.fromarray(np.rint(255 * values_HW).astype(np.uint8))
        elif image.mode != "F" and least >= 0 and most < 2**16:
            image = Image.fromarray((values_HW >> 8).astype(np.uint8))
        else:
            raise ValueError(
                f"its pixels lie in {least:g} to {most:g}, whose brightness is unknown; save it with 8 bits"
            )
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _stored(data: bytes, name: str, factor: int) -> tuple[Tensor, int, Size]:
    """The pixels of a file as they are stored, its EXIF orientation, and its stored size before any reduction."""
    if data.startswith(_JPEG):
        try:
            size = decode_jpeg_header(data)[:2]
            if size[0] * size[1] > MOST_PIXELS:
                said = f"its header claims {size[0]:,}x{size[1]:,} pixels, more than {MOST_PIXELS:,}"
                raise DataError(f"cannot decode {name} ({said}); replace or delete this file")
            if factor == 1:
                image_HWC = decode_jpeg(data)
            else:
                image_HWC = decode_jpeg(data, min_height=-(-size[0] // factor), min_width=-(-size[1] // factor))
        except ValueError:  # a variant that simplejpeg does not know, or a damaged file, which Pillow explains
            pass
        else:
            has_exif = data.find(b"Exif\0\0", 0, 2**17) >= 0
            orientation = _with_pillow(data, name, _orientation) if has_exif else 1
            return torch.from_numpy(image_HWC).permute(2, 0, 1), orientation, size
    image_CHW, orientation = _with_pillow(data, name, lambda image: (rgb(image), _orientation(image)))
    _, height, width = image_CHW.shape
    return image_CHW, orientation, (height, width)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 for TIFF, which Pillow turns by itself."""
    return 1 if image.format == "TIFF" else int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _with_pillow(data: bytes, name: str, convert: Callable[[Image.Image], T], formats: list[str] | None = None) -> T:
    try:
        with Image.open(io.BytesIO(data), formats=formats or _formats()) as image:
            return convert(image)
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        unknown = isinstance(error, UnidentifiedImageError)  # Pillow's own message names an object in memory
        reason = "not an image of a known format" if unknown else reason_of(error)
        raise DataError(f"cannot decode {name} ({reason}); replace or delete this file") from error


def decode_values(path: str) -> NDArray[Any]:
    """(H, W) values of a single-channel PNG as they are stored, in 8 or 16 bits; of a palette the indices.

    Raises DataError naming the file if it cannot be decoded.
    """
    return _with_pillow(read_bytes(path), path, np.array, formats=["PNG"])


def header_size(file: str | bytes, stated: Size | None = None) -> Size | None:
    """Size of what `decode` gives, of a path or of the bytes of a file, by its header; None if that cannot be read."""
    try:
        content = io.BytesIO(file) if isinstance(file, bytes) else open_file(file)
        with content, Image.open(content, formats=_formats()) as image:
            stored, orientation = (image.height, image.width), _orientation(image)
    except Exception:  # decode explains the error
        return None
    return stored[::-1] if orientation in _TRANSPOSED and stored != stated else stored


def read_bytes(path: str, count: int = -1, start: int = 0) -> bytes:
    """``count`` bytes of a file, by default all, from ``start`` on. Raises DataError naming it if it cannot be read."""
    try:
        with open_file(path) as file:
            if start:
                file.seek(start)
            return file.read(count)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); check the file and its permissions") from error


def open_file(path: str | os.PathLike[str]) -> io.FileIO:
    """Open a file for reading. Raises OSError for a pipe, a socket or a device, where reading could wait for ever."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return io.FileIO(descriptor)


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
