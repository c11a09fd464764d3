"""A stand-in for mmcv's compiled extension `mmcv._ext`: what Mask R-CNN calls, on torchvision's kernels.

`mmcv_ops.install` registers this module. Functions have the names and arguments that the wrappers in `mmcv.ops` use
(onedl-mmcv 2.3.6, mmcv 2.2.0). float16 and bfloat16 are computed in float32: on a CPU torchvision needs it, and on a
GPU it keeps half precision's rounding out of the gradient, a sum over many boxes.

Shape suffixes: B images, C channels, H x W feature map, R boxes (of any image, in feature pixels times 1 /
spatial_scale), N boxes of an NMS, P x Q bins of a box.
"""

from collections.abc import Callable
from typing import NoReturn

import torch
import torchvision
from torch import Tensor

from mlomae.common.errors import BackendError

_INSTALL = "install an mmcv with compiled ops: a wheel for this torch, or onedl-mmcv from source with a compiler"
_AVERAGE = 1  # mmcv's number for the mean of a bin's samples; 0 is their maximum


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy non-maximum suppression: in order of falling score, a box is kept unless a kept one overlaps it too much.

    Args:
        boxes: (N, 4) x1, y1, x2, y2. scores: (N,), of any floating type, not only that of the boxes.
        iou_threshold: a box is dropped if its intersection over union with a kept one is greater than this.
        offset: 1 if x2 and y2 are the last pixels inside, so that widths are x2 - x1 + 1; 0 if they are edges.

    Returns:
        (kept,) int64, indices into ``boxes`` in order of falling score, the first of equal scores first.
    """
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    edges_N4 = boxes.to(dtype) + boxes.new_tensor([0, 0, offset, offset], dtype=dtype)
    return torchvision.ops.nms(edges_N4, scores.to(dtype), iou_threshold)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign (He et al., Mask R-CNN, ICCV 2017, section 3): a bin is the mean of bilinear samples, unrounded.

    A bin has sampling_ratio² samples; with 0, as many as it covers pixels, rounded up. A box without area has none, and
    its bins are 0. So are those of an inverted box (x2 < x1), for which mmcv's own CPU kernel fails.

    Args:
        input: (B, C, H, W). rois: (R, 5) image, x1, y1, x2, y2.
        output: (R, C, P, Q), overwritten. argmax_y, argmax_x: not used by the mean.
        aligned_height, aligned_width: P, Q.
        aligned: whether pixel i has its centre at i + 0.5; if not, at i, and no box is smaller than one pixel.

    Raises BackendError for the maximum (``pool_mode`` 0), which torchvision has no kernel for.
    """
    wide, boxes_R5 = _prepare(input, rois, sampling_ratio, pool_mode, aligned)
    bins = spatial_scale, aligned_height, aligned_width
    output.copy_(torch.ops.torchvision.roi_align(wide, boxes_R5, *bins, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Overwrites ``grad_input`` (B, C, H, W), given ``grad_output`` (R, C, P, Q); the rest is as in the forward."""
    wide, boxes_R5 = _prepare(grad_output, rois, sampling_ratio, pool_mode, aligned)
    bins = spatial_scale, aligned_height, aligned_width
    backward = torch.ops.torchvision._roi_align_backward
    grad_input.copy_(backward(wide, boxes_R5, *bins, *grad_input.shape, sampling_ratio, aligned))


def get_compiler_version() -> str:
    """For the list of versions that mmcv and mmdet print."""
    return "none (torchvision's kernels)"


get_compiling_cuda_version = get_compiler_version


def _prepare(values: Tensor, rois: Tensor, sampling_ratio: int, pool_mode: int, aligned: bool) -> tuple[Tensor, Tensor]:
    """``values`` and ``rois`` (R, 5) in at least float32, boxes with x2 >= x1 and y2 >= y1 where torchvision's CPU
    kernel would fail to allocate a negative number of samples."""
    if pool_mode != _AVERAGE:
        raise BackendError(f"RoIAlign with pool_mode='max' is not in torchvision; use pool_mode='avg' or {_INSTALL}")
    dtype = torch.promote_types(values.dtype, torch.float32)
    boxes_R5 = rois.to(dtype)
    if sampling_ratio <= 0 and aligned:
        boxes_R5 = torch.cat([boxes_R5[:, :3], torch.maximum(boxes_R5[:, 1:3], boxes_R5[:, 3:])], dim=1)
    return values.to(dtype), boxes_R5


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """Any other operator, since mmcv looks all of them up when it is imported; calling one raises BackendError."""
    if name.startswith("_"):
        raise AttributeError(name)

    def missing(*args: object, **kwargs: object) -> NoReturn:
        raise BackendError(f"mmcv's operator '{name}' is not in torchvision; {_INSTALL}")

    return missing
