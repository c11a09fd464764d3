"""A data set that uses `mmcv.ops`, in a module as they should be: the stand-in is installed before the import."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mlomae.backbones.mmcv_ops import install

install()
from mmcv.ops import RoIAlign  # noqa: E402


class Pooled(Dataset[Tensor]):
    """Item i is a box pooled from an image of value i."""

    def __init__(self) -> None:
        self.layer = RoIAlign(2)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> Tensor:
        pooled: Tensor = self.layer(torch.full((1, 1, 8, 8), float(i)), torch.tensor([[0.0, 0, 0, 4, 4]]))
        return pooled.flatten()
