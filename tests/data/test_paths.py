"""What is said of files and folders that a user names."""

import os
from pathlib import Path

import pytest

from mlomae.common.errors import first_names
from mlomae.data.paths import missing_files


def test_missing_files_come_in_order_and_each_folder_is_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    (tmp_path / "0.jpg").touch()
    listed = []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: (listed.append(folder), real(folder))[1])
    wanted = ["a/1.jpg", "gone/2.jpg", "0.jpg", "a/0.jpg", "gone/1.jpg"]
    assert missing_files(tmp_path, wanted) == ["gone/2.jpg", "a/0.jpg", "gone/1.jpg"]
    assert len(listed) == 3


def test_first_names_says_how_many_more() -> None:
    assert first_names("abc") == "a, b, c"
    assert first_names(range(7)) == "0, 1, 2 and 4 more"
