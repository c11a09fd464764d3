"""Data with code in them: pickles where arrays or lists belong, PostScript named as an image, archives that climb."""

import functools
import http.server
import io
import pickle
import random
import signal
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import det_runs
import seg_runs
from torchvision.datasets.utils import calculate_md5

from mlomae.data.registry import DOWNLOADS, Download
from tests.stress.commands import Command, command
from tests.stress.harmful import MARK, Arguments, Harmful, Make, plain_pickle, pretrain, refused_unread
from tests.stress.harness import Case, Check
from tests.stress.runs import PRETRAINING_FILES, Prepared, write_classes

WHAT = "data are decoded by the listed formats alone, and archives stay in their folder: one line, and nothing was run"
SAMPLE = 12


def cases(shared: Path, chance: random.Random) -> Iterator[Case]:
    for name, make in DATA.items():
        yield Case(f"pickles: {name}", refused_unread(make))
    for name, make in CHECKED.items():
        yield Case(f"pickles: {name}", _reported(make))
    files = PRETRAINING_FILES.prepared(shared)
    for ending in ("png", "jpg", "tif"):
        for door in ("pretrain", "data check", "masks"):
            yield Case(f"PostScript: image.{ending}, {door}", _postscript(files, ending, door))
    for kind in ("tar.gz, up", "tar.gz, absolute", "tar.gz, link", "zip, up", "zip, absolute"):
        yield Case(f"archives: {kind}", _archive(kind))


def _reported(make: Make) -> Check:
    """``make`` gives a `data check`, which must report a problem."""

    def check(folder: Path) -> None:
        command(*make(folder, mark := folder / MARK)).reports()
        assert not mark.exists(), "code was run"

    return check


def _cifar(folder: Path, mark: Path) -> Arguments:
    root = folder / "cifar-10-batches-py"
    root.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        plain_pickle({"data": Harmful(mark)}, root / name)
    return ["data", "check", "cifar10", folder]


def _mat(folder: Path, mark: Path) -> Arguments:
    base = folder / "flowers-102"
    base.mkdir()
    for name in ("imagelabels.mat", "setid.mat"):
        plain_pickle(Harmful(mark), base / name)
    (base / "jpg").mkdir()
    return ["data", "check", "flowers102", folder]


def _array_as_mask(folder: Path, mark: Path) -> Arguments:
    root = seg_runs.write_data(folder / "data")
    plain_pickle(Harmful(mark), next((root / "annotations" / "training").iterdir()))
    return ["data", "check", "scene_folder", root, "--decode"]


def _tar_sample(folder: Path, mark: Path) -> Arguments:
    (folder / "data" / "train").mkdir(parents=True)
    with tarfile.open(folder / "data" / "train" / "0.tar", "w") as tar:
        for name, content in (("a.jpg", b"\xff\xd8\xff"), ("a.json", pickle.dumps(Harmful(mark)))):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return pretrain(
        folder, data__train={"type": "webdataset", "root": str(folder / "data"), "split": "train"}, data__eval=None
    )


def _coco_pickle(folder: Path, mark: Path) -> Arguments:
    root = det_runs.write_data(folder / "data")
    (folder / "detection").mkdir()
    config = det_runs.write_config(folder / "detection" / "tiny.py", root)
    plain_pickle(Harmful(mark), det_runs.annotation_file(root, "train"))
    return ["bench", "detection", config, "--work-dir", folder / "work"]


DATA: dict[str, Make] = {"a sample of a tar file": _tar_sample, "annotations of COCO": _coco_pickle}
CHECKED: dict[str, Make] = {"batches of CIFAR": _cifar, "lists of Flowers": _mat, "a mask": _array_as_mask}


def _postscript(prepared: Prepared, ending: str, door: str) -> Check:
    def check(folder: Path) -> None:
        mark = folder / MARK
        root = write_classes(folder / "data", {"train": 8, "val": 4})
        program = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n({mark}) (w) file closefile\nshowpage\n"
        (root / "train" / "auk" / f"0a.{ending}").write_text(program)
        config = Path(prepared.argv[-1])
        text = config.read_text().replace(str(config.parent / "data"), str(root))
        (folder / "tiny.py").write_text(text)
        argv: Arguments = ["pretrain", folder / "tiny.py", "--work-dir", folder / "work"]
        if door == "masks":
            argv = ["masks", folder / "tiny.py", "--images", root / "train" / "auk", "--out", folder / "m.png"]
        if door == "data check":
            command("data", "check", "imagefolder", root, "--decode").reports(rf"0a\.{ending}")
        else:
            command(*argv).refused(rf"0a\.{ending}")
        assert not mark.exists(), "Ghostscript was started"

    return check


def _archive(kind: str) -> Check:
    """An archive of a data set with a file outside of it; `mlomae data prepare` reads it from this disk."""

    def check(folder: Path) -> None:
        ending, _, where = kind.partition(", ")
        outside, source = folder / "outside", folder / f"CUB_200_2011.{'tgz' if ending == 'tar.gz' else 'zip'}"
        name = str(outside) if where == "absolute" else "../../../outside"
        if ending == "tar.gz":
            with tarfile.open(source, "w:gz") as tar:
                entry = tarfile.TarInfo("link" if where == "link" else name)
                if where == "link":
                    entry.type, entry.linkname = tarfile.SYMTYPE, str(folder)
                    tar.addfile(entry)
                    entry = tarfile.TarInfo("link/outside")
                tar.addfile(entry)
        else:
            with zipfile.ZipFile(source, "w") as archive:
                archive.writestr(name, "outside")
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
        with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
            DOWNLOADS["cub200"] = Download(
                "CUB_200_2011", {f"http://127.0.0.1:{server.server_port}/{source.name}": calculate_md5(source)}
            )
            serving = Command(call=server.serve_forever)
            try:
                command("data", "prepare", "cub200", folder / "a" / "b").refused("cannot download cub200")
            finally:
                serving.send(signal.SIGKILL)
                serving.wait()
        assert not outside.exists(), "a file was written outside the folder"
        assert not list((folder / "a" / "b").rglob("*")), "a refused download leaves files"

    return check
