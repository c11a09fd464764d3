"""The doctor's report on a sound installation and with faults planted one at a time."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from mlomae import doctor as doctor_module
from mlomae.doctor import doctor


@pytest.fixture(autouse=True)
def sound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Independent of the machine's data and of which faults it really has."""
    monkeypatch.delenv("MLOMAE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    installed = dict.fromkeys(("torch", "torchvision", "timm", "numpy", "onedl-mmengine"), "3.0.0")
    monkeypatch.setattr(doctor_module, "installed", installed.get)
    monkeypatch.setattr(doctor_module, "PYTHON", (3, 11))
    monkeypatch.setattr(doctor_module, "run_torchvision_ops", lambda: None)
    monkeypatch.setattr(doctor_module, "load_mmcv_ops", lambda: False)


def problems(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("problem: ")]


def test_sound_installation() -> None:
    text, status = doctor()
    assert status == 0
    assert text.splitlines()[-1] == "ok"
    assert not problems(text)
    for word in ("python", "torch ", "torchvision", "timm", "mmengine", "mmcv", "mmdet", "mmseg", "numpy", "cores"):
        assert word in text
    assert "textures     embedded" in text
    assert "mmcv ops     torchvision stand-in" in text


def test_missing_benchmarks_are_a_note() -> None:
    text, status = doctor()
    assert "mmdet        not installed (note" in text
    assert status == 0


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({"torch": "2.5.1+cu121"}, "torch 2.5.1+cu121 is older than 2.6; "),
        ({"timm": "1.0.25"}, "timm 1.0.25 is older than 1.0.26; "),
        ({"mmengine": "0.10.7"}, "mmengine and onedl-mmengine are both installed"),
        ({"onedl-mmdetection": "3.5.1", "mmdet": "3.3.0"}, "mmdet and onedl-mmdetection are both installed"),
        ({"timm": None}, "timm is not installed"),
    ],
)
def test_version_faults(monkeypatch: pytest.MonkeyPatch, versions: dict, message: str) -> None:
    base = {"torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.1", "numpy": "2.1", "onedl-mmengine": "0.10.12"}
    monkeypatch.setattr(doctor_module, "installed", {**base, **versions}.get)
    text, status = doctor()
    assert status == 1
    assert len(problems(text)) == 1
    assert message in problems(text)[0]
    assert text.splitlines()[-1] != "ok"


def test_torch_2_10_is_newer_than_2_6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "installed", lambda name: "2.10.0" if not name.startswith("mm") else None)
    assert doctor()[1] == 0


@pytest.mark.parametrize(("version", "status"), [((3, 9), 1), ((3, 10), 0), ((3, 14), 0), ((3, 15), 0), ((4, 0), 0)])
def test_python_range(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], status: int) -> None:
    monkeypatch.setattr(doctor_module, "PYTHON", version)
    text, got = doctor()
    assert got == status
    assert ("is not supported; use 3.10 to 3.14" in text) == bool(status)
    assert ("(note: newer than 3.14, not tried)" in text) == (version > (3, 14))


def test_what_it_takes_for_too_old_is_what_an_install_asks_for() -> None:
    asked = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    for package, oldest in doctor_module.OLDEST.items():
        assert f'"{package}>={".".join(map(str, oldest))}"' in asked
    assert f'requires-python = ">={".".join(map(str, doctor_module.PYTHON_RANGE[0]))}"' in asked
    assert f'Python :: {".".join(map(str, doctor_module.PYTHON_RANGE[1]))}"' in asked


@pytest.mark.parametrize("needed", [True, False])
def test_an_opencv_without_its_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, needed: bool) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    versions = {"torch": "2.6", "torchvision": "0.21", "timm": "1.1", "numpy": "2.1", "onedl-mmengine": "0.10.12"}
    if needed:
        versions["onedl-mmcv"] = "2.3.6"
    monkeypatch.setattr(doctor_module, "installed", {**versions, "opencv-python": "4.12"}.get)
    text, status = doctor()
    assert "opencv       4.12, does not import (note: only the benchmarks need it)" in text
    assert status == needed
    assert ("apt-get install libgl1 libglib2.0-0" in text) == needed


def test_ops_that_do_not_register(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nsecond line")

    monkeypatch.setattr(doctor_module, "run_torchvision_ops", fail)
    text, status = doctor()
    assert status == 1
    assert "mmcv ops     none" in text
    assert len(problems(text)) == 1
    assert "torchvision::nms does not exist" in problems(text)[0]
    assert "second line" not in text


def test_torch_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    text, status = doctor()
    assert status == 1
    assert "torch does not import" in text


def test_real_torchvision_ops_and_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    doctor_module.run_torchvision_ops()
    monkeypatch.setattr("torchvision.ops.nms", lambda boxes, scores, threshold: scores.argsort())
    with pytest.raises(RuntimeError, match="nms gives a wrong answer"):
        doctor_module.run_torchvision_ops()


@pytest.mark.parametrize(("compiled", "state"), [(True, "compiled"), (None, "mmcv not installed")])
def test_what_runs_the_operators_of_mmcv(
    monkeypatch: pytest.MonkeyPatch, compiled: bool | None, state: str
) -> None:  # with real files: tests/benchmarks/test_ops.py
    monkeypatch.setattr(doctor_module, "load_mmcv_ops", lambda: compiled)
    text, status = doctor()
    assert f"mmcv ops     {state}" in text.splitlines()
    assert status == 0


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_data_sets_are_found_by_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "sets"
    touch(root / "cifar-10-batches-py" / "data_batch_1")
    touch(root / "cifar100" / "cifar-100-python" / "train")
    for split in ("train", "val"):
        (root / "imagenet" / split).mkdir(parents=True)
    for text in (doctor(root)[0], (monkeypatch.setenv("MLOMAE_DATA", str(root)), doctor()[0])[1]):
        assert "cifar10      cifar-10-batches-py (pickled" in text
        assert f"cifar100     {Path('cifar100', 'cifar-100-python')} (pickled" in text
        assert "imagenet     imagenet (image folders train, val)" in text

    trees = tmp_path / "trees"
    for split in ("train", "test"):
        (trees / "cifar10_jpg" / split).mkdir(parents=True)
    (trees / "imagenet" / "train").mkdir(parents=True)  # half a data set is not found
    text, status = doctor(trees)
    assert "cifar10      cifar10_jpg (image folders train, test)" in text
    assert "imagenet     not found" in text
    assert status == 0


def test_default_root_may_be_absent_a_named_one_may_not(tmp_path: Path) -> None:
    assert doctor()[1] == 0
    text, status = doctor(tmp_path / "nowhere")
    assert status == 1
    assert "is not a folder" in problems(text)[0]


def test_unwritable_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    text, status = doctor()
    assert status == 1
    assert "current folder is not writable (Permission denied)" in problems(text)[0]


def test_names_neither_host_nor_user() -> None:
    text, _ = doctor()
    assert os.path.expanduser("~") + os.sep not in text or os.path.expanduser("~") == "/"
