"""Here so that pytest puts this folder on the path: tests in the folders below import `record_samples` too.

Operators come before anything that imports mmdet, as mmseg does: tests import libraries before `benchmarks`.
"""

from mlomae.backbones import mmcv_ops as ops

ops.install()
