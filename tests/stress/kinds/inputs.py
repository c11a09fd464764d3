"""Bad inputs of the helpers `bad_checkpoints`, `bad_data`, `bad_records`: fields that are gone or wrong, odd files.

There are some thousands; a full run has `FULL` of them, as evenly over the rows as they allow, chosen by the seed.
"""

import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import bad_checkpoints
import bad_data
import bad_records
import coco_layouts
import tiny
from record_samples import make_record

from benchmarks.analysis.tables.build import build_tables
from mlomae.records import write_record
from tests.stress.commands import Command, command
from tests.stress.harness import Case, Check
from tests.stress.runs import Run

WHAT = "bad input is refused in one line that names it, or does no harm; never a traceback or an endless wait"
SAMPLE = 150
FULL = 600
SECONDS = 60.0


def cases(shared: Path, chance: random.Random) -> Iterator[Case]:
    yield from _data(shared)
    yield from _records(shared, chance)
    yield from _weights(shared)


# --- weights ----------------------------------------------------------------------------------------------------------


def _weights(shared: Path) -> Iterator[Case]:
    def write_config(folder: Path) -> list[str]:
        return ["pretrain", str(tiny.write_config(folder / "tiny.py", **bad_checkpoints.PRETRAINING))]

    prepared = Run("bad weights", write_config).prepared(shared)
    saved = prepared.undisturbed / "work" / "checkpoints" / f"iter_{bad_checkpoints.SAVED}.pth"
    good = shared / "good.safetensors"
    if not good.exists():
        Command("export", saved, good).wait().well()
    names = itertools.cycle([*bad_checkpoints.doors(shared), "resume"])
    for (name, write), door in zip(bad_checkpoints.bad_checkpoints(saved), names, strict=False):
        yield Case(f"checkpoints: {name}, {door}", _read_or_named(write, door, saved.name), SECONDS)
    names = itertools.cycle(("init_from", "backbone", "describe"))
    for (name, write), door in zip(bad_checkpoints.bad_safetensors(good), names, strict=False):
        yield Case(f"safetensors: {name}, {door}", _read_or_named(write, door, "vit.safetensors"), SECONDS)


def _read_or_named(write: Callable[[Path], object], door: str, name: str) -> Check:
    def check(folder: Path) -> None:
        path = folder / "checkpoints" / name
        path.parent.mkdir()
        write(path)
        call = bad_checkpoints.resume(folder) if door == "resume" else bad_checkpoints.doors(folder)[door]
        kind, said = bad_checkpoints.outcome(call, path)
        assert kind == "read" or path.name in said, f"{path.name} is not named: {said}"

    return check


# --- data -------------------------------------------------------------------------------------------------------------


def _data(shared: Path) -> Iterator[Case]:
    coco = coco_layouts.coco(shared / "coco")
    kinds = {
        "imagefolder": bad_data.bad_images(),
        "scene_folder": bad_data.bad_scenes(),
        "coco_folder": bad_data.bad_coco(coco),
    }
    for kind, made in kinds.items():
        for name, make in made:
            yield Case(f"{kind}: {name}", _checked(kind, make), SECONDS)


def _checked(kind: str, make: Callable[[Path], object]) -> Check:
    """`data check` finds it or can do without it."""

    def check(folder: Path) -> None:
        (root := folder / "data").mkdir()
        make(root)
        ended = command("data", "check", kind, root, "--decode", seconds=0.9 * SECONDS)
        if ended.status == 1:
            ended.reports()
        elif ended.status:
            ended.refused()
        else:
            ended.well()

    return check


# --- records ----------------------------------------------------------------------------------------------------------


def _records(shared: Path, chance: random.Random) -> Iterator[Case]:
    path = shared / "runs" / "a.json"
    write_record(make_record(metrics={"knn_top1_avg": 40.0, "linear_top1_avg": 50.0}), path)
    record = json.loads(path.read_text())
    for name, content in bad_records.bad_records(record, chance.randrange(1000)):
        yield Case(f"records: {name}", _tables(content), SECONDS)
    for name, edited in bad_records.leaf_edits(record):
        yield Case(f"edited records: {name}", _tables(json.dumps(edited).encode(), found=True), SECONDS)


def _tables(content: bytes, found: bool = False) -> Check:
    """``found``: it is a valid record with another value, which must be noticed."""

    def check(folder: Path) -> None:
        path = folder / "runs" / "a.json"
        path.parent.mkdir()
        path.write_bytes(content)
        said = bad_records.said_by(lambda: build_tables(path.parent, folder))
        assert said is None or "'a.json'" in said, f"a.json is not named: {said}"
        assert said is not None or not found, "an edited record is taken for true"

    return check
