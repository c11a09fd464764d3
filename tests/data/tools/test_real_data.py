"""The check on real parts of published sets, where the environment variable MLOMAE_DATA names a folder with them."""

import os
from pathlib import Path

import pytest

from mlomae.data.tools import check_data


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("cub200", "cub10"),
        ("stanford_cars", "stanford_cars50"),
        ("tiny_imagenet", "tiny-imagenet-200"),
        ("ade20k", "ade20k_sample"),
        ("camvid", "camvid"),
        ("coco", "coco_subset"),
    ],
)
def test_real_data(name: str, folder: str) -> None:
    root = Path(os.environ.get("MLOMAE_DATA", ""), folder)
    if "MLOMAE_DATA" not in os.environ or not root.is_dir():
        pytest.skip(f"needs {folder} below the folder that MLOMAE_DATA names")
    text, status = check_data(name, str(root), subset=True)
    assert status == 0, text
    assert "repeated 0 of " in text
