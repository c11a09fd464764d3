"""Tar files as WebDataset writes them: the same samples and batches as from folders, and every way to be wrong."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mlomae.common.errors import DataError
from mlomae.data import OuterBatches, Stream, build_source
from mlomae.data.augment import RandomResizedCropFlip
from mlomae.data.tools import check_data

CLASSES = ["ant", "bee", "cat"]


def picture(i: int) -> bytes:
    noise = np.random.default_rng(i).integers(0, 256, (20 + i, 30, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG" if i % 2 else "PNG")
    return buffer.getvalue()


def write(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def sample(i: int) -> dict[str, bytes]:
    """Members of sample i: of class i % 3, with the label in one way or the other."""
    label = {f"{i:04d}.cls": b"%d" % (i % 3)} if i % 4 else {f"{i:04d}.json": json.dumps({"label": i % 3}).encode()}
    return {f"{i:04d}.{'jpg' if i % 2 else 'png'}": picture(i), **label, f"{i:04d}.mask.png": b"a mask"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for shard in range(3):
        members = {k: v for i in range(4 * shard, 4 * shard + 4) for k, v in sample(i).items()}
        write(tmp_path / "train" / f"{shard:03d}.tar", {**members, "._0001.jpg": b"of another system"})
    write(tmp_path / "val" / "0.tar", {k: v for i in range(12, 15) for k, v in sample(i).items()})
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return tmp_path


def opened(root: Path, split: str = "train") -> Any:
    return build_source({"type": "webdataset", "root": str(root), "split": split})


def test_samples_are_those_of_a_folder_and_so_are_batches_in_any_process(root: Path, tmp_path: Path) -> None:
    source = opened(root)
    for i in range(12):
        folder = tmp_path / "folder" / "train" / CLASSES[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:04d}.png").write_bytes(picture(i))
    files = build_source({"type": "imagefolder", "root": str(tmp_path / "folder"), "split": "train"})
    order = sorted(range(12), key=lambda i: (i % 3, i))  # a folder is sorted by class
    assert source.classes == files.classes == CLASSES
    assert source.labels.tolist() == [i % 3 for i in range(12)]
    assert all(torch.equal(source.image(i), files.image(k)) for k, i in enumerate(order))
    assert all(source.image_size(i) == tuple(source.image(i).shape[1:]) for i in range(12))
    assert source.relative_path(5) == "001.tar/0005.jpg"
    stream = Stream(source, None, RandomResizedCropFlip(8), 0, "s")
    outer = OuterBatches(stream, batch_size=5)
    for t, item in enumerate(outer.load(2, 5, workers=2), 2):  # a resumed run
        assert torch.equal(item["lower"][0]["image"], stream.batch(5 * t, 5)["image"])
        assert torch.equal(item["lower"][0]["index"], stream.locate(5 * t, 5)[1])


def test_the_check_of_a_data_set_ends_in_ok_and_finds_copies(root: Path) -> None:
    text, status = check_data("webdataset", str(root))
    assert (text.splitlines()[-1], status) == ("ok", 0)
    assert "left out: 12 .png, 3 hidden" in text
    assert opened(root).fingerprint() != opened(root, "val").fingerprint()
    write(root / "val" / "0.tar", {k: v for i in range(3) for k, v in sample(i).items()})
    text, status = check_data("webdataset", str(root))
    assert status == 1, text


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": picture(1)}, r"a\.jpg has no label"),
        ({"a.jpg": picture(1), "a.cls": b"ant"}, r"a\.cls does not give the number"),
        ({"a.jpg": picture(1), "a.json": b'{"caption": "an ant"}'}, r"a\.json does not give the number"),
        ({"a.jpg": picture(1), "a.cls": b"3"}, r"label 3 .* none of the 3 classes; mend .*classes\.txt"),
        ({"a.jpg": picture(1), "a.cls": b"-1"}, r"label -1 "),
        ({"a.txt": b"no image"}, "holds no image"),
    ],
)
def test_what_is_wrong_in_a_tar_file_is_named(members: dict[str, bytes], message: str, root: Path) -> None:
    write(root / "odd" / "0.tar", members)
    with pytest.raises(DataError, match=message):
        opened(root, "odd")


def test_damaged_and_missing_tar_files_are_named(root: Path) -> None:
    whole = (root / "train" / "001.tar").read_bytes()
    for content in (whole[:3000], b"\x1f\x8b" + whole[2:]):
        (root / "train" / "001.tar").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot read .*001\.tar"):
            opened(root)
    (root / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.tar file"):
        opened(root, "empty")
    with pytest.raises(DataError, match="set `split` to one that exists"):
        opened(root, "test")
