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


def resize_crops(images_BCHW: Tensor, crops: Crops, side: int) -> Tensor:
    """`resize_crop` of every image of a batch, (B, 3, S, S) uint8 on the batch's device."""
    batch, channels, rows, columns = images_BCHW.shape
    longest = max(rows, columns)
    across_BWS, bits_across_B = _matrices(crops.left, crops.width, columns, side, longest)
    down_BHS, bits_down_B = _matrices(crops.top, crops.height, rows, side, longest)
    narrow = _rounded(images_BCHW.float().view(batch, channels * rows, columns) @ across_BWS, bits_across_B)
    narrow_BCHS = narrow.view(batch, channels, rows, side)
    return _rounded(down_BHS.transpose(1, 2)[:, None] @ narrow_BCHS, bits_down_B[:, None]).to(torch.uint8)


def _matrices(start: Tensor, length: Tensor, pixels: int, side: int, longest: int) -> tuple[Tensor, Tensor]:
    """(B, pixels, S) weights of the pixels of a line in each output, as integers, and (B,) how many bits they have."""
    table, bits = (t.to(start.device) for t in _tables(side, longest))
    at = torch.arange(pixels, device=start.device) - start[:, None]
    inside = (at >= 0) & (at < length[:, None])
    return table[length[:, None], at.clamp(0, longest - 1)] * inside[:, :, None], bits[length]


def _rounded(sums: Tensor, bits_B: Tensor) -> Tensor:
    unit = torch.exp2(bits_B)[(...,) + (None,) * (sums.ndim - bits_B.ndim)]
    return sums.add_(unit / 2).div_(unit).floor_().clamp_(0, 255)


@functools.lru_cache(maxsize=8)
def _tables(side: int, longest: int) -> tuple[Tensor, Tensor]:
    """Weights (longest + 1, longest, S) of the n pixels of crops of every length n, and the bits of each, float32."""
    table, bits = torch.zeros(longest + 1, longest, side), torch.zeros(longest + 1)
    for n in range(1, longest + 1):
        weights_Sn = _weights(n, side)
        most, used = weights_Sn.max(), 0
        while used < 22 and int(0.5 + most * 2 ** (used + 1)) < 2**_BITS:
            used += 1
        scaled = weights_Sn * 2**used
        table[n, :n] = torch.from_numpy(np.trunc(scaled + np.where(scaled < 0, -0.5, 0.5)).T.copy())
        bits[n] = used
    return table, bits


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
