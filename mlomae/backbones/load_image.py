"""Images for the transforms of mmseg and mmdet, read as everywhere else here (`mlomae.data.reader`).

Once this file is imported (``custom_imports``), a pipeline of either takes ``dict(type="mlomae.LoadImage")`` in the
place of mmcv's ``LoadImageFromFile``: the backbone then sees the pixels that it was pretrained on, also of photos that
are annotated as they are stored, and of 16 bits.

Shape suffixes: C channels, H height, W width.
"""

from typing import Any

import numpy as np
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry
from torch import Tensor

from mlomae.data.reader import decode, header_size

TRANSFORMS = Registry("transform", parent=ROOT_TRANSFORMS, scope="mlomae")


def as_loaded(image_CHW: Tensor, path: str) -> dict[str, Any]:
    """What mmcv gives for an image (3, H, W) uint8 RGB: ``img`` (H, W, 3) uint8 BGR, its sizes and ``img_path``."""
    image_HWC = np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy()[:, :, ::-1])
    size = image_HWC.shape[:2]
    return {"img_path": path, "img": image_HWC, "img_shape": size, "ori_shape": size}


@TRANSFORMS.register_module()
class LoadImage:
    """Adds ``img``, ``img_shape`` and ``ori_shape`` to the results of a data set of mmseg or mmdet.

    ``height`` and ``width`` of the results, or the size of the PNG at ``seg_map_path``, decide whether a photo is
    turned as its EXIF tag says. Raises DataError naming a file that cannot be decoded.
    """

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        stated = (results["height"], results["width"]) if {"height", "width"} <= results.keys() else None
        if stated is None and results.get("seg_map_path"):
            stated = header_size(results["seg_map_path"])
        return {**results, **as_loaded(decode(results["img_path"], stated), results["img_path"])}
