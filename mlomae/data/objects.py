"""Masks of objects as files of their own, for images in any folder.

Shape suffixes: H height, W width.
"""

import os
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mlomae.common.errors import DataError, first_names
from mlomae.data.images import ImageFiles
from mlomae.data.paths import existing_folder, find_listed
from mlomae.data.reader import decode_values, in_threads, read_bytes
from mlomae.data.scenes import HEADER, png_size


class MaskFiles:
    """PNG files of one channel, one for each of ``images``, which lie in ``folder`` as the images do in theirs:
    ``cat/a.png``, or ``cat/a.jpg.png``, for ``cat/a.jpg``.

    ``values``: of the pixels that are objects, e.g. [1] of a trimap; by default all but 0. Raises DataError if an image
    has no mask of its own, or one of another size.
    """

    def __init__(self, folder: str, images: ImageFiles, values: Sequence[int] | None = None) -> None:
        self.folder, self.values = existing_folder(folder, f"{images.name}: masks of objects"), values
        names = [images.relative_path(i) for i in range(len(images))]
        unused = set(find_listed(self.folder, [f"{name}.png" for name in names])[1])
        files = [f"{os.path.splitext(name)[0] if f'{name}.png' in unused else name}.png" for name in names]
        spelt, missing, _ = find_listed(self.folder, files)
        if missing:
            lack = f"{len(missing):,} of {len(files):,} images have no mask in {self.folder} ({first_names(missing)})"
            raise images.fault(lack, "put there a PNG of its name for every image, or leave objects_folder out")
        if len(set(spelt)) < len(spelt):
            twice = first_names(name for name, count in Counter(spelt).items() if count > 1)
            raise images.fault(f"two images share a mask in {self.folder} ({twice})", "name masks cat/a.jpg.png")
        self._files = [os.path.join(self.folder, file) for file in spelt]
        fits = lambda i: png_size(read_bytes(self._files[i], HEADER)) == images.image_size(i)  # noqa: E731
        if odd := [spelt[i] for i, right in enumerate(in_threads(fits, range(len(names)))) if not right]:
            said = f"{len(odd):,} of {len(names):,} masks in {self.folder} are no PNG of their image's size"
            raise images.fault(f"{said} ({first_names(odd)})", "make them like the images, turned as these are shown")

    def read(self, i: int) -> Tensor:
        """(H, W) bool, True on objects. Raises DataError for a file that cannot be decoded, or of several channels."""
        values_HW = decode_values(self._files[i])
        if values_HW.ndim != 2:
            raise DataError(f"{self._files[i]} has several channels; save the mask as a PNG of one")
        found = values_HW != 0 if self.values is None else np.isin(values_HW, self.values)
        return torch.from_numpy(found)
