"""The smallest runs of each kind, an undisturbed one of each to compare with, and what equal results are."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cls_runs
import det_runs
import numpy as np
import seg_runs
import tiny
import torch
from layouts import write_image
from run_samples import differences

from mlomae.common.checkpoint import list_checkpoints
from mlomae.records import DIGEST
from tests.stress.commands import Command, Ended
from tests.stress.faults import noted

TIMES = ("wall_clock_s", "cpu_s", "finished_at", "git_commit", "git_dirty", DIGEST)  # the digest is of the others, too
_LOGS = ("log.jsonl", "train.log")
_EVENTS = "events.out.tfevents"  # tensorboard's


@dataclass(frozen=True)
class Run:
    """``write`` puts configuration and data into a folder; the command that it returns lacks folders and --resume."""

    name: str
    write: Callable[[Path], list[str]]

    def prepared(self, shared: Path) -> "Prepared":
        """Configuration, data and an undisturbed run in ``shared``, made by the first call."""
        folder = shared / self.name.replace(" ", "_")
        known = folder / "prepared.json"
        if not known.exists():
            folder.mkdir(parents=True)
            argv, place = self.write(folder), folder / "undisturbed"
            place.mkdir()
            ended = Command(*argv, *folders(place), arm=noted(place, folder / "writes.txt")).wait().well()
            known.write_text(json.dumps({"argv": argv, "cpu": ended.cpu}))
        about = json.loads(known.read_text())
        writes = re.sub(r"\.[0-9a-f]{8}-\d+\.", ".PID.", (folder / "writes.txt").read_text()).splitlines()
        return Prepared(self.name, folder, about["argv"], about["cpu"], writes)


@dataclass(frozen=True)
class Prepared:
    """``argv``: the command without folders. ``cpu``: its processor seconds. ``writes``: of the undisturbed run."""

    name: str
    folder: Path
    argv: list[str]
    cpu: float
    writes: list[str]

    @property
    def undisturbed(self) -> Path:
        return self.folder / "undisturbed"

    def start(self, place: Path, arm: Callable[[], None] = lambda: None, resume: bool = True) -> Command:
        return Command(*self.argv, *folders(place), *(["--resume"] if resume else []), arm=arm)

    def ends_as_undisturbed(self, place: Path) -> Ended:
        """Resume the run in ``place`` to its end, and compare all that it leaves."""
        ended = self.start(place).wait().well()
        same_results(self.undisturbed, place)
        return ended


def folders(place: Path) -> list[str]:
    return ["--work-dir", str(place / "work"), "--records", str(place / "records")]


def same_results(expected: Path, found: Path) -> None:
    """The same files below both folders, no temporary ones, and equal contents but for times and logs."""
    names, others = (_files(folder) for folder in (expected, found))
    assert names == others, f"files differ: {sorted(names ^ others)}"
    for name in sorted(names):
        different = _differences(expected / name, found / name)
        assert not different, f"{name} differs in {different[:3]}"


def _files(folder: Path) -> set[str]:
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(_EVENTS)]
    return {path.relative_to(folder).as_posix() for path in paths}


def _differences(a: Path, b: Path) -> list[str]:
    if a.name in _LOGS:
        return []
    if a.suffix == ".pth":
        return differences(
            *({k: v for k, v in torch.load(path).items() if k not in ("clock", "meta")} for path in (a, b))
        )
    if a.suffix == ".npz":
        return differences(*({**np.load(path)} for path in (a, b)))
    if a.suffix == ".json":
        contents = [json.loads(path.read_text()) for path in (a, b)]
        if all(isinstance(content, dict) for content in contents):
            contents = [{k: v for k, v in content.items() if k not in TIMES} for content in contents]
        return differences(*contents)
    return [] if a.read_bytes() == b.read_bytes() else ["bytes"]


def newest(place: Path) -> Path:
    return list_checkpoints(place / "work")[-1]


# --- the runs ---------------------------------------------------------------------------------------------------------


def _pretraining(folder: Path) -> list[str]:
    train = {"outer_iterations": 6, "log_interval": 2, "picture_interval": 3, "checkpoint_interval": 2}
    return ["pretrain", str(tiny.write_config(folder / "tiny.py", train={**train, "keep_checkpoints": 2}))]


def write_classes(root: Path, splits: dict[str, int], classes: tuple[str, ...] = ("auk", "owl")) -> Path:
    """``split/class/i.png``, images of 16 pixels."""
    for split, count in splits.items():
        for name in classes:
            for i in range(count):
                write_image(root / split / name / f"{i}.jpg", (16, 16))
    return root


def image_folder(root: Path, split: str) -> dict[str, str]:
    return {"type": "imagefolder", "root": str(root), "split": split}


def _pretraining_files(folder: Path) -> list[str]:
    root = write_classes(folder / "data", {"train": 12, "val": 4})
    data = {"train": image_folder(root, "train"), "eval": image_folder(root, "val")}
    data |= {"batch_size": 8, "feedback_batch_size": 4, "num_workers": 2}
    train = {"outer_iterations": 4, "log_interval": 2, "picture_interval": 3, "checkpoint_interval": 1}
    config = tiny.write_config(folder / "tiny.py", data=data, train={**train, "keep_checkpoints": 2})
    return ["pretrain", str(config)]


def _classification(folder: Path) -> list[str]:
    changes = {"train__ema": 0.9, "data__mix": {"mixup": 0.8}, "train__keep_checkpoints": 2}
    config = cls_runs.write_config(_place(folder, "classification"), **changes)
    return ["bench", "classification", str(config)]


def _classification_files(folder: Path) -> list[str]:
    root = write_classes(folder / "data", {"train": 12, "val": 4})
    data = {"data__train": image_folder(root, "train"), "data__test": image_folder(root, "val")}
    changes = {"data__batch_size": 8, "train__checkpoint_interval": 2, "train__keep_checkpoints": 2}
    config = cls_runs.write_config(_place(folder, "classification"), **data, **changes)
    return ["bench", "classification", str(config)]


def _segmentation(folder: Path) -> list[str]:
    config = seg_runs.write_config(_place(folder, "segmentation"), seg_runs.write_data(folder / "data"))
    return ["bench", "segmentation", str(config)]


def _detection(folder: Path) -> list[str]:
    config = det_runs.write_config(_place(folder, "detection"), det_runs.write_data(folder / "data"))
    return ["bench", "detection", str(config)]


def _place(folder: Path, task: str) -> Path:
    """The path of a recipe of ``task``, which the folder's name tells."""
    (folder / task).mkdir()
    return folder / task / "tiny.py"


PRETRAINING = Run("pretraining", _pretraining)
PRETRAINING_FILES = Run("pretraining on files", _pretraining_files)
CLASSIFICATION = Run("classification", _classification)
CLASSIFICATION_FILES = Run("classification of files", _classification_files)
SEGMENTATION = Run("segmentation", _segmentation)
DETECTION = Run("detection", _detection)
