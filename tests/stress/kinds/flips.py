"""Files with a bit that flipped or with their end cut off, in every part: headers, names, pickle, tensors, checksum.

A full run has `FULL` of the cases, as evenly over the rows as they allow, chosen by the seed.
"""

import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlomae.classification.per_image import FORMAT as FORMAT_OF_PREDICTIONS
from mlomae.common.checkpoint import FORMAT, TRANSFER_FORMAT, load_checkpoint
from mlomae.common.errors import MlomaeError
from mlomae.data.copies import load_digests
from mlomae.models.weights import read_weights
from tests.stress.commands import command, one_line, refused_call
from tests.stress.harness import Case, Check
from tests.stress.runs import CLASSIFICATION, CLASSIFICATION_FILES, PRETRAINING, Prepared, differences, newest

WHAT = "a damaged file is found wherever the damage is: it is named in one line, or an earlier checkpoint is resumed"
SAMPLE = 120
FULL = 300
EACH = 25  # flips in each part of a checkpoint
RESUMED = 12


def cases(shared: Path, chance: random.Random) -> Iterator[Case]:
    for run, kind in ((PRETRAINING, FORMAT), (CLASSIFICATION, TRANSFER_FORMAT)):
        prepared = run.prepared(shared)
        path = newest(prepared.undisturbed)
        content = path.read_bytes()
        for part, (start, end) in parts(path).items():
            for at, bit in draws(chance, start, end, EACH):
                name = f"checkpoint of a {run.name}, {part}: byte {at}, bit {bit}"
                yield Case(name, _found_by_readers(flipped(content, at, bit), kind))
        for size in sorted({chance.randrange(len(content)) for _ in range(EACH)}):
            yield Case(f"checkpoint of a {run.name}, cut: {size} bytes", _found_by_readers(content[:size], kind))
        for at, bit in draws(chance, 0, len(content), RESUMED):
            name = f"resume of a {run.name}, newest damaged: byte {at}, bit {bit}"
            yield Case(name, _resumed_from_the_one_before(prepared, at, bit))
            yield Case(f"resume of a {run.name}, all damaged: byte {at}, bit {bit}", _all_damaged(prepared, at, bit))
    prepared = PRETRAINING.prepared(shared)
    content = newest(prepared.undisturbed).read_bytes()
    for door, argv in DOORS.items():
        for at, bit in draws(chance, 0, len(content), 3):
            yield Case(f"commands: {door}, byte {at}, bit {bit}", _refused_by(argv, flipped(content, at, bit)))
    prepared = CLASSIFICATION_FILES.prepared(shared)
    for name, read in READERS.items():
        content = (prepared.undisturbed / "work" / name).read_bytes()
        for at, bit in draws(chance, 0, len(content), 2 * EACH):
            yield Case(f"{name}: byte {at}, bit {bit}", _never_other_arrays(name, read, content, at, bit))


def draws(chance: random.Random, start: int, end: int, count: int) -> list[tuple[int, int]]:
    """(byte, bit) at ``count`` places, all of them if there are fewer bytes."""
    places = sorted(chance.sample(range(start, end), min(count, end - start)))
    return [(at, chance.randrange(8)) for at in places]


def flipped(content: bytes, at: int, bit: int) -> bytes:
    return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]


def parts(path: Path) -> dict[str, tuple[int, int]]:
    """(first byte, end) of the parts of a checkpoint, a zip archive with a comment."""
    with zipfile.ZipFile(path) as archive:
        entries, directory, comment = archive.infolist(), archive.start_dir, archive.comment
    pickled = next(entry for entry in entries if entry.filename.endswith("data.pkl"))
    largest = max((entry for entry in entries if "/data/" in entry.filename), key=lambda entry: entry.file_size)
    content, begins = path.read_bytes(), {}
    size = len(content)
    for entry in (pickled, largest):
        extra = int.from_bytes(content[entry.header_offset + 28 : entry.header_offset + 30], "little")
        begins[entry.filename] = entry.header_offset + 30 + len(entry.filename) + extra
    return {
        "header of an entry": (largest.header_offset, begins[largest.filename]),
        "pickle": (begins[pickled.filename], begins[pickled.filename] + pickled.file_size),
        "tensors": (begins[largest.filename], begins[largest.filename] + largest.file_size),
        "directory": (directory, size - len(comment) - 22),
        "end record": (size - len(comment) - 22, size - len(comment)),
        "checksum": (size - len(comment), size),
    }


def _found_by_readers(content: bytes, kind: str) -> Check:
    def check(folder: Path) -> None:
        path = folder / "iter_6.pth"
        path.write_bytes(content)
        refused_call(lambda: load_checkpoint(path, kind), "iter_6.pth' is damaged")
        refused_call(lambda: read_weights(path), "iter_6.pth'")

    return check


def _copy(prepared: Prepared, folder: Path) -> list[Path]:
    """The checkpoints of an unfinished copy of a run, the newest last."""
    shutil.copytree(prepared.undisturbed / "work", folder / "work")
    (folder / "work" / "record.json").unlink()
    return sorted((folder / "work" / "checkpoints").iterdir(), key=lambda path: int(path.stem[5:]))


def _resumed_from_the_one_before(prepared: Prepared, at: int, bit: int) -> Check:
    def check(folder: Path) -> None:
        path = _copy(prepared, folder)[-1]
        path.write_bytes(flipped(path.read_bytes(), at, bit))
        said = prepared.ends_as_undisturbed(folder)
        assert f"{path.name} is damaged; an earlier checkpoint takes its place" in said.out + said.err

    return check


def _all_damaged(prepared: Prepared, at: int, bit: int) -> Check:
    def check(folder: Path) -> None:
        paths = _copy(prepared, folder)
        for path in paths:
            content = path.read_bytes()
            path.write_bytes(flipped(content, min(at, len(content) - 1), bit))
        before = {path: path.read_bytes() for path in paths}
        prepared.start(folder).wait().refused(r"iter_\d+\.pth' is damaged")
        assert {path: path.read_bytes() for path in paths} == before, "a refused resume changes nothing"

    return check


DOORS: dict[str, Callable[[Path], list[str | Path]]] = {
    "export": lambda path: ["export", path, path.parent / "out.safetensors"],
    "evaluate": lambda path: ["evaluate", path],
    "diagnose": lambda path: ["diagnose", path, "--batches", "2", "--batch-size", "8"],
    "horizon": lambda path: ["horizon", path],
    "masks": lambda path: ["masks", "--checkpoints", path, "--out", path.parent / "masks.png"],
}


def _refused_by(argv: Callable[[Path], list[str | Path]], content: bytes) -> Check:
    def check(folder: Path) -> None:
        path = folder / "iter_6.pth"
        path.write_bytes(content)
        command(*argv(path)).refused(r"iter_6\.pth")
        assert [found.name for found in folder.iterdir()] == [path.name], "a refused command leaves nothing"

    return check


READERS: dict[str, Callable[[Path], Any]] = {
    "images.npz": lambda path: load_digests(path.parent / "checkpoints" / "iter_1.pth"),
    "predictions.npz": lambda path: FORMAT_OF_PREDICTIONS.read(path)[0],
}


def _never_other_arrays(name: str, read: Callable[[Path], Any], content: bytes, at: int, bit: int) -> Check:
    """Refused, or read as it was: a bit that means nothing, of a date say, may flip."""

    def check(folder: Path) -> None:
        path = folder / name
        path.write_bytes(content)
        expected = vars(read(path))
        path.write_bytes(flipped(content, at, bit))
        try:
            found = read(path)
        except MlomaeError as error:
            one_line(error, name)
        else:
            assert not differences(vars(found), expected), "other arrays are read, and nothing is said"

    return check
