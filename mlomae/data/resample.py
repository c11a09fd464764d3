"""Antialiased bicubic resampling of uint8 crops: one image at a time, or a batch by two matrix products on any device.

Both give the same bits. PyTorch's kernel for uint8 images rounds its weights to 16-bit integers, and the result of the
horizontal pass to 8 bits before the vertical one; sums of such products stay below 2²⁴, where float32 is exact, so that
a product of matrices that hold the integers is the same arithmetic.

Source of the weights: Pillow's Resample.c, which PyTorch follows (Keys' cubic with a = −1/2, widened for reduction).
Shape suffixes: B crops, N images in memory, H and W their sides, S side of the result, n length of a crop.
"""

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_BITS = 15  # of a weight, without its sign
_CHUNK = 64  # images at a time on a CPU: malloc keeps temporaries of that size, and maps larger ones anew each time


class Crops(NamedTuple):
    """The part of its image that each output shows, in pixels: (B,) int64 boxes and (B,) bool horizontal flips."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor


def resize_crop(image_CHW: Tensor, top: int, left: int, height: int, width: int, side: int) -> Tensor:
    """A box that overlaps the uint8 image, at ``side`` x ``side`` pixels; black where it reaches outside."""
    _, rows, columns = image_CHW.shape
    bottom, right = top + height, left + width
    part = image_CHW[:, max(top, 0) : min(bottom, rows), max(left, 0) : min(right, columns)]
    if top < 0 or left < 0 or bottom > rows or right > columns:
        part = F.pad(part, (max(-left, 0), max(right - columns, 0), max(-top, 0), max(bottom - rows, 0)))
    if (height, width) == (side, side):
        return part
    return F.interpolate(part[None], (side, side), mode="bicubic", antialias=True)[0]


def resize_crops(images_BCHW: Tensor, crops: Crops, out_BCSS: Tensor) -> Tensor:
    """`resize_crop` of every image of a batch, mirrored where the crop is, into ``out``, uint8 or float32, on the
    batch's device."""
    count = _CHUNK if images_BCHW.device.type == "cpu" else len(images_BCHW)
    for out, images, *crop in zip(*(t.split(count) for t in (out_BCSS, images_BCHW, *crops)), strict=True):
        _resize(images, Crops._make(crop), out)
    return out_BCSS


def _resize(images_BCHW: Tensor, crops: Crops, out_BCSS: Tensor) -> None:
    batch, channels, rows, columns = images_BCHW.shape
    side, longest = out_BCSS.shape[-1], max(rows, columns)
    across_BWS = _matrices(crops.left, crops.width, columns, side, longest, crops.flip)
    down_BHS = _matrices(crops.top, crops.height, rows, side, longest)
    lines_BHCW = images_BCHW.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    narrow = _rounded(lines_BHCW.view(batch, rows * channels, columns) @ across_BWS)
    small = _rounded(down_BHS.transpose(1, 2) @ narrow.view(batch, rows, channels * side))
    out_BCSS.copy_(small.view(batch, side, channels, side).transpose(1, 2))


def _rounded(sums: Tensor) -> Tensor:
    return sums.add_(0.5).floor_().clamp_(0, 255)


def _matrices(
    start: Tensor, length: Tensor, pixels: int, side: int, longest: int, flip: Tensor | None = None
) -> Tensor:
    """(B, pixels, S) weights of the pixels of a line in each output."""
    at = torch.arange(pixels, device=start.device) - start[:, None]
    rows = length[:, None] * (longest + 1) + at.clamp(max=longest).where(at >= 0, longest)
    table = _table(side, longest, start.device)
    if flip is not None:
        rows = rows + flip[:, None] * (len(table) // 2)
    return table.index_select(0, rows.flatten()).view(len(start), pixels, side)


@functools.lru_cache(maxsize=8)
def _table(side: int, longest: int, device: torch.device) -> Tensor:
    """Weights of the n pixels of crops of every length n up to ``longest``, float32: multiples of a power of two.

    Row n (longest + 1) + i, (S,), is that of pixel i of a crop of n; zero if i is outside, as ``longest`` always is.
    The second half of the rows is the first one mirrored.
    """
    table = torch.zeros(longest + 1, longest + 1, side)
    for n in range(1, longest + 1):
        weights_Sn = _weights(n, side)
        most, bits = weights_Sn.max(), 0
        while bits < 22 and int(0.5 + most * 2 ** (bits + 1)) < 2**_BITS:
            bits += 1
        scaled = weights_Sn * 2**bits
        rounded = np.trunc(scaled + np.where(scaled < 0, -0.5, 0.5)) / 2**bits
        table[n, :n] = torch.from_numpy(rounded.T.copy())
    return torch.cat([table, table.flip(-1)]).view(-1, side).to(device)


def _weights(n: int, side: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(S, n) how much of each of n pixels is in each of S outputs; rows sum to 1."""
    scale = n / side
    widened = max(scale, 1.0)
    centre_S1 = (scale * (np.arange(side) + 0.5))[:, None]
    first_S1 = np.maximum(np.trunc(centre_S1 - 2 * widened + 0.5), 0)
    last_S1 = np.minimum(np.trunc(centre_S1 + 2 * widened + 0.5), n)
    pixel_n = np.arange(n)
    x_Sn = np.abs((pixel_n - centre_S1 + 0.5) / widened)
    near_Sn, far_Sn = (1.5 * x_Sn - 2.5) * x_Sn * x_Sn + 1, (((x_Sn - 5) * x_Sn + 8) * x_Sn - 4) * -0.5
    weights_Sn = np.where(x_Sn < 1, near_Sn, np.where(x_Sn < 2, far_Sn, 0.0))
    weights_Sn = np.where((pixel_n >= first_S1) & (pixel_n < last_S1), weights_Sn, 0.0)
    return weights_Sn / weights_Sn.sum(axis=1, keepdims=True)
