"""A run goes on with the data that it began with, or not at all: pretrainings and transfers, killed and finished."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cls_runs
import numpy as np
import pytest
import seg_runs
import tiny
from PIL import Image
from run_samples import one_line

from mlomae.common.checkpoint import list_checkpoints
from mlomae.common.errors import CheckpointError
from mlomae.pretraining import continuing
from mlomae.pretraining.run import run_pretraining

CLASSES = ("ant", "bee")


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for split, start in (("train", 0), ("test", 100)):
        for i in range(start, start + 24):
            picture(tmp_path / "pets" / split / CLASSES[i % 2] / f"{i}.bmp", i)
    return tmp_path / "pets"


def source(root: Path, split: str) -> dict[str, Any]:
    return {"type": "imagefolder", "root": str(root), "split": split}


def pretrain(root: Path, work: Path, resume: bool = False, **changes: Any) -> None:
    data = {"train": source(root, "train"), "eval": source(root, "test"), "batch_size": 4, "feedback_batch_size": 4}
    steps = {"train__outer_iterations": 4, "train__log_interval": 2, "train__checkpoint_interval": 2}
    run_pretraining(tiny.config(data=data, **steps, **changes), work, resume=resume)


def fine_tune(root: Path, work: Path, resume: bool = False, **changes: Any) -> None:
    changes = {"data__train": source(root, "train"), "data__test": source(root, "test"), **changes}
    cls_runs.run_transfer(
        cls_runs.config(data__batch_size=8, train__checkpoint_interval=2, **changes), work, resume=resume
    )


def vote(root: Path, work: Path, resume: bool = False) -> None:
    fine_tune(root, work, resume, protocol="knn")


RUNS: dict[str, Callable[..., None]] = {"pretraining": pretrain, "fine-tuning": fine_tune, "k-NN": vote}


def swap(a: Path, b: Path) -> None:
    aside = a.with_name("aside")
    for start, end in ((a, aside), (b, a), (aside, b)):
        start.rename(end)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "added": (lambda r: picture(r / "train" / "ant" / "99.bmp", 99), "data.train had 24 images and has 25"),
    "removed": (lambda r: (r / "train" / "bee" / "1.bmp").unlink(), "data.train had 24 images and has 23"),
    "replaced": (lambda r: picture(r / "train" / "ant" / "0.bmp", 99), "data.train has other images, as many as"),
    "test replaced": (lambda r: picture(r / "test" / "ant" / "100.bmp", 99), " has other images, as many as before"),
    "classes": (lambda r: [swap(r / s / "ant", r / s / "bee") for s in ("train", "test")], "with other labels or in"),
}


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", RUNS)
def test_changed_data_are_refused_by_name_and_nothing_is_lost(kind: str, pets: Path, tmp_path: Path) -> None:
    run, killed, finished = RUNS[kind], tmp_path / "killed", tmp_path / "finished"
    run(pets, finished)
    if found := list_checkpoints(finished):
        shutil.copytree(finished, killed)
        (killed / "record.json").unlink()
        (killed / "checkpoints" / found[-1].name).unlink()
    for change, words in CHANGES.values():
        changed = tmp_path / "changed" / "pets"
        shutil.copytree(pets, changed)
        change(changed)
        for work in (finished, killed) if found else (finished,):
            before = content_of(work)
            with pytest.raises(CheckpointError, match=r"was made with other data: ") as error:
                run(changed, work, resume=True)
            assert words in one_line(error.value)
            assert "put back the data" in str(error.value)
            assert content_of(work) == before
        shutil.rmtree(changed)
    pets.rename(tmp_path / "moved")  # the same data elsewhere
    for work in (finished, killed) if found else (finished,):
        run(tmp_path / "moved", work, resume=True)
    assert not found or len(list_checkpoints(killed)) == len(list_checkpoints(finished))


def test_without_the_check_such_a_run_would_go_on(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain(pets, tmp_path / "run")
    picture(pets / "train" / "ant" / "0.bmp", 99)
    monkeypatch.setattr(continuing, "check_same_data", lambda *args: None)
    pretrain(pets, tmp_path / "run", resume=True)


def test_another_protocol_does_not_take_over_a_folder(pets: Path, tmp_path: Path) -> None:
    fine_tune(pets, tmp_path / "run")
    (tmp_path / "run" / "record.json").unlink()
    with pytest.raises(CheckpointError, match=r"another configuration: .*protocol \('finetune' -> 'knn'\)"):
        vote(pets, tmp_path / "run", resume=True)


def test_other_masks_of_the_same_pictures_are_other_data(tmp_path: Path) -> None:
    scenes = seg_runs.write_data(tmp_path / "scenes")
    config = seg_runs.config(scenes)
    seg_runs.run_transfer(config, tmp_path / "run")
    path = scenes / "annotations" / "validation" / "000000.png"
    values = np.asarray(Image.open(path)).copy()
    values[:] = np.roll(values, 4, axis=0)
    Image.fromarray(values).save(path)
    with pytest.raises(CheckpointError, match=r"data\.test has the same images with other labels"):
        seg_runs.run_transfer(config, tmp_path / "run", resume=True)
