"""Label maps of semantic segmentation: a PNG with one value per pixel, 0 for no label, 1 to C for the classes.

The layout of the ADE20K scene parsing challenge (Zhou et al., CVPR 2017), which most data sets are distributed in.

Shape suffixes: H height, W width.
"""

import os
import struct
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlomae.common.errors import DataError
from mlomae.data.reader import decode_values, read_bytes

MOST_CLASSES = 255
"""What fits into one byte beside IGNORE."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 4, 6  # colour types of the PNG header; the remaining one, 3, is a palette


class Fault(NamedTuple):
    """What is wrong with annotations, the remedy, and the name of one that has the fault."""

    what: str
    remedy: str
    example: str


def header_fault(path: str, image_size: tuple[int, int]) -> Fault | None:
    """What is wrong with the header of the annotation at ``path``, or None.

    ``image_size`` is the (H, W) of its image in pixels. Pillow is not used, because it does not tell the bits per
    pixel: it scales grey values of 1, 2 or 4 bits, so that class 1 would be read as 255, 85 or 17.

    Raises DataError if the file cannot be read.
    """
    header, name = read_bytes(path, 26), os.path.basename(path)
    if len(header) < 26 or not header.startswith(_SIGNATURE):
        return Fault("are not PNG files", "save annotations as single-channel PNG", name)
    width, height, bits, colour = struct.unpack(">IIBB", header[16:26])
    if colour in (_RGB, _RGB_ALPHA):
        numbers = "convert the colours to class numbers (0 = no label, then 1, 2, ...)"
        return Fault("are RGB pictures", f"{numbers} and save them as single-channel PNG", name)
    if colour == _GREY_ALPHA:
        return Fault("have an alpha channel", "save them as single-channel PNG", name)
    if colour == _GREY and bits < 8:
        return Fault(f"are grey with {bits} bits per pixel, which readers scale", "save them with 8 bits", name)
    if (height, width) != image_size:
        sizes = f"{name}: {height}x{width} against {image_size[0]}x{image_size[1]} pixels"
        return Fault("differ in size from their images", "resize both alike, annotations to nearest neighbours", sizes)
    return None


def read_labels(path: str, classes: int, remedy: str) -> Tensor:
    """The labels in an annotation: (H, W) uint8, the file's value minus one, and IGNORE where that is 0.

    Raises DataError if the file cannot be decoded, or if it has a value above ``classes``, with ``remedy``.
    """
    values_HW = decode_values(path)
    largest = int(values_HW.max())
    if largest > classes:
        raise DataError(f"{path} has the value {largest}, above its {classes} classes; {remedy}")
    return torch.from_numpy(values_HW.astype(np.uint8) - np.uint8(1))  # 0 wraps around to 255, which is IGNORE
