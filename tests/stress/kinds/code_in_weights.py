"""Weights that are a pickle which runs code, in every form that torch writes, given to each command that reads any."""

import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlomae.common.checkpoint import FORMAT, TRANSFER_FORMAT
from tests.stress.harmful import Arguments, Harmful, Make, bench, plain_pickle, pretrain, refused_unread
from tests.stress.harness import Case, Check
from tests.stress.runs import CLASSIFICATION, PRETRAINING, Prepared, newest

WHAT = "weights, checkpoints and digests are read as values: code in them is refused in one line and not run"
SAMPLE = 24


def cases(shared: Path, chance: random.Random) -> Iterator[Case]:
    pretrained, transferred = PRETRAINING.prepared(shared), CLASSIFICATION.prepared(shared)
    for form, write in FORMS.items():
        for door, argv in WEIGHTS.items():
            yield Case(f"{form}: {door}", refused_unread(_weights(write, argv)))
        for run, fmt in ((pretrained, FORMAT), (transferred, TRANSFER_FORMAT)):
            yield Case(f"{form}: resume of a {run.name}", _resume(run, write, fmt))
    for content in ("object array", "pickle"):
        yield Case(f"images.npz: {content}", _arrays(pretrained, content))


def _old_torch(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _scripted(content: Any, path: Path) -> None:
    """A zip archive as TorchScript writes it, with the pickle as its constants."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"archive/{name}", pickle.dumps(content, protocol=2))
        archive.writestr("archive/version", "3\n")


FORMS: dict[str, Callable[[Any, Path], None]] = {
    "torch's archive": torch.save,
    "torch's old format": _old_torch,
    "a pickle": plain_pickle,
    "TorchScript's archive": _scripted,
}
_EXPORT = {"diagnose": ["--batches", "2"], "horizon": [], "evaluate": []}
WEIGHTS: dict[str, Make] = {
    **{name: (lambda path, _, n=name, o=options: [n, path, *o]) for name, options in _EXPORT.items()},
    "export": lambda path, folder: ["export", path, folder / "out.safetensors"],
    "export of a folder": lambda path, folder: ["export", _as_run(path, folder), folder / "out.safetensors"],
    "masks": lambda path, folder: ["masks", "--checkpoints", path, "--out", folder / "m.png"],
    "init_from": lambda path, folder: pretrain(folder, init_from=str(path)),
    "bench": lambda path, folder: [*bench(folder), "--weights", path],
    "bench of a folder": lambda path, folder: [*bench(folder), "--weights", _as_run(path, folder)],
    "bench of a .safetensors": lambda path, folder: [
        *bench(folder),
        "--weights",
        path.rename(path.with_suffix(".safetensors")),
    ],
    "bench, random:PATH": lambda path, folder: [*bench(folder), "--weights", f"random:{path}"],
    "timm, local-dir": lambda path, folder: [
        *bench(folder, backbone__model=None),
        "--weights",
        f"timm:{_timm(path, folder)}:pretrained",
    ],
    "teacher, timm's local-dir": lambda path, folder: pretrain(
        folder, mask={"type": "attmask", "ratio": 0.75, "teacher": f"timm:{_timm(path, folder)}:pretrained"}
    ),
}


def _as_run(path: Path, folder: Path) -> Path:
    (folder / "run" / "checkpoints").mkdir(parents=True)
    path.rename(folder / "run" / "checkpoints" / "iter_2.pth")
    return folder / "run"


def _timm(path: Path, folder: Path) -> str:
    model = folder / "timm"
    model.mkdir()
    (model / "config.json").write_text('{"architecture": "vit_tiny_patch16_224", "num_features": 192}')
    path.rename(model / "pytorch_model.bin")
    return f"local-dir:{model}"


def _content(mark: Path, fmt: str = FORMAT) -> dict[str, Any]:
    return {"format": fmt, "iteration": 2, "config": {}, "modules": {}, "meta": Harmful(mark)}


def _weights(write: Callable[[Any, Path], None], argv: Make) -> Callable:
    def make(folder: Path, mark: Path) -> Arguments:
        path = folder / "weights.pth"
        write(_content(mark), path)
        return argv(path, folder)

    return make


def _resume(prepared: Prepared, write: Callable[[Any, Path], None], fmt: str) -> Check:
    def make(folder: Path, mark: Path) -> Arguments:
        path = folder / "work" / "checkpoints" / newest(prepared.undisturbed).name
        path.parent.mkdir(parents=True)
        write(_content(mark, fmt), path)
        return [*prepared.argv, "--work-dir", folder / "work", "--resume"]

    return refused_unread(make, newest(prepared.undisturbed).name)


def _arrays(prepared: Prepared, content: str) -> Check:
    """``images.npz`` beside a checkpoint, which a transfer reads, with a pickle in it."""

    def make(folder: Path, mark: Path) -> Arguments:
        run = folder / "run"
        path = run / "checkpoints" / newest(prepared.undisturbed).name
        path.parent.mkdir(parents=True)
        path.write_bytes(newest(prepared.undisturbed).read_bytes())
        if content == "pickle":
            plain_pickle(Harmful(mark), run / "images.npz")
        else:
            array = np.array([Harmful(mark)], dtype=object)
            np.savez(run / "images.npz", pixels=array, hashes=array, mirrored=array)
        return [*bench(folder, backbone__model=None), "--weights", run]

    return refused_unread(make, r"images\.npz")
