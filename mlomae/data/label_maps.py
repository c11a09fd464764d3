"""Annotation files of semantic segmentation: a PNG with one value a pixel, 0 = not labelled, 1 to C = the classes.

The layout of the ADE20K scene parsing challenge (Zhou et al., CVPR 2017), which most data sets are distributed in.

Shape suffixes: H height, W width.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mlomae.common.errors import DataError, reason_of

IGNORE = 255
"""Label of pixels that are not labelled: they count neither in the loss nor in the score."""

MOST_CLASSES = 255
"""What fits into one byte beside IGNORE."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 4, 6  # colour types of the PNG header; the remaining one, 3, is a palette


class Fault(NamedTuple):
    """What is wrong with annotations, the remedy, and how to name one of them; made to be counted."""

    what: str
    remedy: str
    example: str


def header_fault(path: str, name: str, image_size: tuple[int, int]) -> Fault | None:
    """What the first bytes of an annotation tell against it, if anything; ``name`` is what it is called.

    ``image_size`` is the (H, W) of its image in pixels. The header is read here and not by Pillow, which does not tell
    the bits of a pixel: it multiplies grey values of 1, 2 or 4 bits, so that class 1 would be read as 255, 85 or 17.

    Raises DataError if the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(26)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); check the file and its permissions") from error
    if len(header) < 26 or not header.startswith(_SIGNATURE):
        return Fault("are no PNG files", "save annotations as single-channel PNG", name)
    width, height, bits, colour = struct.unpack(">IIBB", header[16:26])
    if colour in (_RGB, _RGB_ALPHA):
        numbers = "convert the colours to class numbers (0 = not labelled, then 1, 2, ...)"
        return Fault("are RGB pictures", f"{numbers} and save them as single-channel PNG", name)
    if colour == _GREY_ALPHA:
        return Fault("have an alpha channel", "save them as single-channel PNG", name)
    if colour == _GREY and bits < 8:
        return Fault(f"are grey with {bits} bits a pixel, which readers scale", "save them with 8 bits a pixel", name)
    if (height, width) != image_size:
        sizes = f"{name}: {height}x{width} against {image_size[0]}x{image_size[1]} pixels"
        return Fault("differ in size from their images", "resize both alike, annotations to nearest neighbours", sizes)
    return None


def read_labels(path: str, classes: int, remedy: str) -> Tensor:
    """The labels in an annotation: (H, W) uint8, the file's value less one, and IGNORE where that is 0.

    Raises DataError if the file cannot be decoded, or if it has a value above ``classes``; ``remedy`` is for that.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            values_HW = np.array(image)
    except Exception as error:  # as in files.decode
        raise DataError(f"cannot decode {path} ({reason_of(error)}); replace this file") from error
    largest = int(values_HW.max())
    if largest > classes:
        raise DataError(f"{path} has the value {largest}, above its {classes} classes; {remedy}")
    return torch.from_numpy(values_HW.astype(np.uint8) - np.uint8(1))  # 0 wraps around to 255, which is IGNORE
