"""Whatever is found in a data folder is skipped and counted, or refused in one line that names it; nothing waits."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import bad_data as bad
import coco_layouts
import pytest

from mlomae.common.errors import DataError
from mlomae.data.reader import decode, header_size
from mlomae.data.tools import check_data

SAMPLE = 15  # of the cases of a COCO file; `make stress` has all


@pytest.fixture(autouse=True)
def never_waiting() -> Iterator[None]:
    def late(*given: object) -> None:
        raise TimeoutError("it waits for a file that nothing is written to")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def problems(kind: str, folder: Path) -> list[str]:
    return [line for line in check_data(kind, str(folder))[0].splitlines() if line.startswith("problem: ")]


def test_what_has_the_name_of_an_image_is_skipped_or_named(tmp_path: Path) -> None:
    skipped = {"pipe", "socket", "folder", "loop of links"}  # and a device, if it is not behind a link
    for name, make in bad.bad_images():
        folder = tmp_path / name
        folder.mkdir()
        make(folder)
        report, status = check_data("imagefolder", str(folder))
        assert status == (name not in skipped), name
        assert "odd.png" in report or name in skipped, name
        assert ("left out: 1 no regular file" in report) == (name in ("pipe", "socket")), name


def test_annotations_at_fault_are_named(tmp_path: Path) -> None:
    for name, make in bad.bad_scenes():
        folder = tmp_path / name
        folder.mkdir()
        make(folder)
        found = problems("scene_folder", folder)
        if name not in ("annotation: nothing", "annotation: palette"):  # which are no faults
            assert found, name
            assert "scene_0" in found[0] or "classes" in found[0], (name, found)


def test_a_field_at_fault_in_a_coco_file_is_named(tmp_path: Path) -> None:
    good, found = coco_layouts.coco(tmp_path / "good"), 0
    for name, make in random.Random(1).sample(list(bad.bad_coco(good)), SAMPLE):
        folder = tmp_path / name.replace("/", " ")
        folder.mkdir()
        make(folder)
        lines = problems("coco_folder", folder)
        found += bool(lines)
        assert all("instances_train.json" in line or "images" in line for line in lines), (name, lines)
    assert found > SAMPLE / 2


@pytest.mark.parametrize("kind", bad.bombs())
def test_a_small_file_cannot_ask_for_all_memory(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bad.bombs()[kind])
    with pytest.raises(DataError, match=r"cannot decode .*bomb.png"):
        decode(str(path))
    if kind != "png text":
        assert header_size(str(path)) is None or kind == "webp"
