"""One line that makes mmdet's and mmseg's own tools work with this package: ``import mlomae.mm``.

In a script it comes before mmdet and mmseg. Their command lines are run by it, as in

    python -m mlomae.mm tools/test.py CONFIG CHECKPOINT    # or torchrun ... -m mlomae.mm tools/train.py CONFIG

and their configs have ``custom_imports = dict(imports=["mlomae.mm"])``, which alone is enough for ``tools/train.py``.

It registers the backbone ``mlomae.FeatureViT``, the transform ``mlomae.LoadImage`` and the optimizer constructor
``TimmLayerDecay``, and puts torchvision's kernels in the place of mmcv's operators where those were not compiled.

Raises BackendError if mmcv is not installed, or if a module of mmdet that looks for operators was imported before.
"""

import runpy
import sys
from pathlib import Path

from mlomae.backbones.feature_vit import FeatureViT
from mlomae.backbones.layer_decay import TimmLayerDecay
from mlomae.backbones.load_image import LoadImage
from mlomae.backbones.mmcv_ops import install

OPERATORS = install()
"""What runs mmcv's operators: "compiled" or "torchvision stand-in"."""

if __name__ == "__main__":
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        sys.exit("error: name a script, as in python -m mlomae.mm tools/test.py CONFIG CHECKPOINT")
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")

__all__ = ["OPERATORS", "FeatureViT", "LoadImage", "TimmLayerDecay"]
