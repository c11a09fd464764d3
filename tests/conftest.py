"""Here so that pytest puts this folder on the path: tests in the folders below import `record_samples` too.

Operators come before anything that imports mmdet, as mmseg does: tests import libraries before `benchmarks`.
"""

import pytest

from mlomae.backbones import mmcv_ops as ops

ops.install()

LONG = (
    "test_device",
    "test_suite_command",
    "test_warmup_margin",
    "test_signals",
    "test_exact_resume",
    "test_cls_ranks",
)
"""Files of few and long tests: first, so that none of them is left to run alone at the end (`make test`)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)
