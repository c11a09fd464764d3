"""Data that change between the start of a run and its resume: folders of images, scenes, files of COCO."""

import random
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import det_runs
import numpy as np
import torch
from PIL import Image

from mlomae.common.checkpoint import list_checkpoints
from tests.stress.harness import Case, Check
from tests.stress.runs import (
    CLASSIFICATION_FILES,
    DETECTION,
    PRETRAINING_FILES,
    SEGMENTATION,
    Prepared,
    Run,
    differences,
    newest,
)

WHAT = "a run is resumed on the data that it began with: any change is refused before a step, by the name of the part"
SAMPLE = 24
Change = Callable[[Path], None]
"""Of a data set in a folder."""


def cases(shared: Path, chance: random.Random) -> Iterator[Case]:
    for run, changes in CHANGES.items():
        prepared = run.prepared(shared)
        yield Case(f"{run.name}, nothing changed: the same files again", _resumed(prepared, _touched))
        for name, (change, part) in changes.items():
            yield Case(f"{run.name}, changed: {name}", _refused(prepared, change, part))
    prepared = CLASSIFICATION_FILES.prepared(shared)
    for option in ("protocol=linear", "seed=1", "data.batch_size=4", "train.epochs=3"):
        yield Case(f"classification of files, option changed: {option}", _other_option(prepared, option))
    prepared = PRETRAINING_FILES.prepared(shared)
    for option in ("mask.ratio=0.5", "seed=1", "data.batch_size=4", "data.val_fraction=0.5", "feedback.type=nca"):
        yield Case(f"pretraining on files, option changed: {option}", _other_option(prepared, option))


def _moved(prepared: Prepared, folder: Path) -> Prepared:
    """The run in ``folder``, cut at its first kept checkpoint, with a copy of configuration and data of its own."""
    shutil.copytree(prepared.folder, folder / "own", ignore=shutil.ignore_patterns("undisturbed"))
    for path in (folder / "own").rglob("*.py"):
        path.write_text(path.read_text().replace(str(prepared.folder), str(folder / "own")))
    argv = [text.replace(str(prepared.folder), str(folder / "own")) for text in prepared.argv]
    own = Prepared(prepared.name, folder / "own", argv, prepared.cpu, prepared.writes)
    own.start(folder, resume=False).wait().well()
    shutil.rmtree(folder / "records")
    (folder / "work" / "record.json").unlink()
    for path in list_checkpoints(folder / "work")[1:]:
        path.unlink()
    return own


def _refused(prepared: Prepared, change: Change, part: str) -> Check:
    def check(folder: Path) -> None:
        own = _moved(prepared, folder)
        change(own.folder / "data")
        before = {path: path.read_bytes() for path in list_checkpoints(folder / "work")}
        own.start(folder).wait().refused(part)
        assert {path: path.read_bytes() for path in list_checkpoints(folder / "work")} == before, "it has gone on"

    return check


def _resumed(prepared: Prepared, change: Change) -> Check:
    def check(folder: Path) -> None:
        own = _moved(prepared, folder)
        change(own.folder / "data")
        own.start(folder).wait().well()
        states = [torch.load(newest(place))["modules"] for place in (folder, prepared.undisturbed)]
        assert not differences(*states), "other weights than those of an undisturbed run"

    return check


def _other_option(prepared: Prepared, option: str) -> Check:
    def check(folder: Path) -> None:
        own = _moved(prepared, folder)
        own.argv.extend(["--cfg-options", option])
        own.start(folder).wait().refused("another configuration", option.partition("=")[0])

    return check


# --- the changes ------------------------------------------------------------------------------------------------------


def _touched(root: Path) -> None:
    for path in root.rglob("*"):
        path.touch()


def _first(root: Path) -> Path:
    return min(path for path in root.rglob("*") if path.is_file())


def _new_image(path: Path, shape: tuple[int, int], colours: int = 256) -> None:
    generator = np.random.default_rng(zlib.crc32(str(path.name).encode()) + 10_000)  # unlike all others
    pixels = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).quantize(colours).convert("RGB").save(path, quality=30 if colours < 256 else 75)


def _added(place: str) -> Change:
    def change(root: Path) -> None:
        source = _first(root / place)
        _new_image(source.with_name(f"zz{source.suffix}"), Image.open(source).size[::-1])

    return change


def _removed(place: str) -> Change:
    return lambda root: _first(root / place).unlink()


def _replaced(place: str, keep_size: bool = False) -> Change:
    """Other pixels; ``keep_size``: in a file of as many bytes, padded after the end of the image."""

    def change(root: Path) -> None:
        path = _first(root / place)
        size, shape = path.stat().st_size, Image.open(path).size[::-1]
        _new_image(path, shape, 2 if keep_size else 256)
        if keep_size:
            content = path.read_bytes()
            assert len(content) <= size
            path.write_bytes(content + b"\0" * (size - len(content)))

    return change


def _swapped(root: Path) -> None:
    first, second = sorted((root / "train").iterdir())
    first.rename(root / "other")
    second.rename(first)
    (root / "other").rename(second)


def _class_renamed(root: Path) -> None:
    for part in ("train", "val"):
        (root / part / "owl").rename(root / part / "swan")


def _other_mask(split: str) -> Change:
    def change(root: Path) -> None:
        path = _first(root / "annotations" / split)
        mask = Image.open(path)
        mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)

    return change


def _without_scene(root: Path) -> None:
    path = _first(root / "images" / "training")
    path.unlink()
    (root / "annotations" / "training" / path.with_suffix(".png").name).unlink()


def _names_of_classes(root: Path) -> None:
    names = (root / "classes.txt").read_text().splitlines()
    (root / "classes.txt").write_text("\n".join([*names[1:], names[0]]))


def _other_box(split: str) -> Change:
    def edit(content: dict[str, Any]) -> None:
        entry = content["annotations"][0]
        entry["category_id"] = next(c["id"] for c in content["categories"] if c["id"] != entry["category_id"])

    return lambda root: det_runs.edit(root, split, edit)


def _without_annotation(root: Path) -> None:
    det_runs.edit(root, "train", lambda content: content["annotations"].pop())


def _folder_changes(test: str) -> dict[str, tuple[Change, str]]:
    return {
        "an image of training added": (_added("train"), r"data\.train"),
        "an image of training removed": (_removed("train"), r"data\.train"),
        "an image of training replaced": (_replaced("train"), r"data\.train"),
        "an image of training replaced by one of equal size": (_replaced("train", True), r"data\.train"),
        "an image of the other part added": (_added("val"), test),
        "an image of the other part removed": (_removed("val"), test),
        "an image of the other part replaced": (_replaced("val"), test),
        "classes of training swapped": (_swapped, r"data\.train"),
        "a class renamed": (_class_renamed, r"data\.(train|eval|test)"),
    }


CHANGES: dict[Run, dict[str, tuple[Change, str]]] = {
    PRETRAINING_FILES: _folder_changes(r"data\.eval"),
    CLASSIFICATION_FILES: _folder_changes(r"data\.test"),
    SEGMENTATION: {
        "an image of training replaced": (_replaced("images/training"), r"data\.train"),
        "a scene of training removed": (_without_scene, r"data\.train"),
        "a mask of training changed": (_other_mask("training"), r"data\.train"),
        "a mask of the test set changed": (_other_mask("validation"), r"data\.test"),
        "names of classes in another order": (_names_of_classes, r"data\.(train|test)"),
    },
    DETECTION: {
        "an image of training replaced": (_replaced("train"), r"data\.train"),
        "an object of training is of another class": (_other_box("train"), r"data\.train"),
        "an object of training removed": (_without_annotation, r"data\.train"),
        "an object of the test set is of another class": (_other_box("val"), r"data\.test"),
    },
}
