"""What is found in the folders that a user names, what is left out, and how it is said."""

import os
import unicodedata
from pathlib import Path

import pytest

from mlomae.common.errors import first_names
from mlomae.data.paths import find_listed, left_out_phrase, list_images, text_of


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def test_missing_files_come_in_order_and_each_folder_is_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/1.jpg", "0.jpg")
    listed, real = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (listed.append(folder), real(folder))[1])
    wanted = ["a/1.jpg", "gone/2.jpg", "0.jpg", "a/0.jpg", "gone/1.jpg"]
    assert find_listed(tmp_path, wanted).missing == ["gone/2.jpg", "a/0.jpg", "gone/1.jpg"]
    assert len(listed) == 3


def test_listed_files_are_found_in_other_spellings_and_never_outside_the_folder(tmp_path: Path) -> None:
    root = touch(tmp_path / "train", "a/1.jpg", "2.jpg", unicodedata.normalize("NFD", "é/ü.jpg"), "train/3.jpg")
    touch(tmp_path, "out.jpg")
    for spelt, there in {
        "a\\1.jpg": "a/1.jpg",
        "train/a/1.jpg": "a/1.jpg",
        "train\\2.jpg": "2.jpg",
        "train/3.jpg": "train/3.jpg",
        str(root / "2.jpg"): "2.jpg",
        "/home/other/train/a/1.jpg": "a/1.jpg",
        "C:\\data\\train\\2.jpg": "2.jpg",
        "é/ü.jpg": unicodedata.normalize("NFD", "é/ü.jpg"),
        "/x/train/é/ü.jpg": unicodedata.normalize("NFD", "é/ü.jpg"),
    }.items():
        assert find_listed(root, [spelt])[:2] == ([there], []), spelt
    for spelt in ("../out.jpg", str(tmp_path / "out.jpg"), "train/4.jpg", "/elsewhere/2.jpg", "a/2.jpg", ""):
        assert find_listed(root, [spelt])[:2] == ([spelt], [spelt]), spelt


def test_what_is_left_out_is_counted_by_ending(tmp_path: Path) -> None:
    files = ["a.jpg", "a.TXT", "b.txt", "README", "._a.jpg", ".ipynb_checkpoints/a.jpg", "@eaDir/a.jpg", "in/b.PNG"]
    touch(tmp_path, *files, "in/c.mp4")
    flat, deep = list_images(tmp_path), list_images(tmp_path, below=True)
    assert (flat.files, deep.files) == (["a.jpg"], ["a.jpg", "in/b.PNG"])
    assert left_out_phrase(flat.left_out) == "3 hidden, 2 .txt, 1 folders, 1 without ending"
    assert left_out_phrase(deep.left_out) == "3 hidden, 2 .txt, 1 .mp4, 1 without ending"
    assert list_images(tmp_path / "in", (".mp4",)) == (["c.mp4"], {".png": 1})
    assert find_listed(tmp_path, ["a.jpg"]).left_out == {"hidden": 1, ".txt": 2, "without ending": 1}
    assert find_listed(tmp_path, ["in/b.PNG"]).left_out == {".mp4": 1}
    assert find_listed(touch(tmp_path, "in/d.jpg"), ["in/b.PNG"]).left_out == {".mp4": 1, "not listed": 1}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_are_read_as_windows_writes_them(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("1 größe\r\n2 b\r\n".encode(encoding))
    assert text_of(tmp_path / "list.txt").splitlines() == ["1 größe", "2 b"]


def test_first_names_says_how_many_more() -> None:
    assert first_names("abc") == "a, b, c"
    assert first_names(range(7)) == "0, 1, 2 and 4 more"
