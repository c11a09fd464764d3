"""`mlomae data prepare`: a local server stands in for the public ones; nothing partial is left under a final name."""

import dataclasses
import hashlib
import shutil
import socket
import tarfile
import zipfile
from pathlib import Path

import layouts
import pytest
from layouts import LAYOUTS, write_image
from torchvision import datasets

from mlomae.cli import main
from mlomae.data import PUBLISHED, Download, Published
from mlomae.data.registry import DOWNLOADS
from mlomae.data.tools import _download


@pytest.fixture(autouse=True)
def tiny_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, _, _, published in LAYOUTS.values():
        monkeypatch.setitem(PUBLISHED, name, published)


@pytest.fixture
def prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run the command into ``tmp_path/out``: status, standard output, last line of standard error."""

    def run(name: str, root: Path | None = None) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["data", "prepare", name, str(root or tmp_path / "out")])
        captured = capsys.readouterr()
        return status, captured.out, captured.err.splitlines()[-1] if captured.err else ""

    return run


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def pack(source: Path, archive: Path) -> Path:
    """``source`` as the only folder of ``archive``, then removed."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in source.rglob("*"):
                file.write(path, path.relative_to(source.parent))
    else:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(source, source.name)
    shutil.rmtree(source)
    return archive


def served_archive(folder: str, address: str, *archives: Path) -> Download:
    return Download(folder, {f"{address}{archive.name}": md5(archive) for archive in archives})


@pytest.fixture
def cub_archive(served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    folder, address = served
    archive = pack(layouts.cub(folder) / "CUB_200_2011", folder / "CUB_200_2011.tgz")
    monkeypatch.setitem(DOWNLOADS, "cub200", served_archive("CUB_200_2011", address, archive))
    return archive


def test_addresses_and_sums_are_the_public_ones() -> None:
    ((url, sum_),) = DOWNLOADS["cub200"].files.items()
    assert sum_ == "97eceeb196236b17998738112f37df78"
    assert url.startswith("https://data.caltech.edu/records/65de6-vp158/")
    assert sorted(DOWNLOADS) == sorted(PUBLISHED)
    assert DOWNLOADS["cifar10"].files == {datasets.CIFAR10.url: datasets.CIFAR10.tgz_md5}
    assert DOWNLOADS["cifar100"].files == {datasets.CIFAR100.url: datasets.CIFAR100.tgz_md5}
    flowers = {datasets.Flowers102._download_url_prefix + f: md5 for f, md5 in datasets.Flowers102._file_dict.values()}
    assert DOWNLOADS["flowers102"].files == flowers


def test_cub_is_fetched_verified_and_not_fetched_again(prepare, cub_archive: Path, tmp_path: Path) -> None:
    status, out, _ = prepare("cub200")
    assert status == 0
    place = tmp_path / "out" / "CUB_200_2011"
    assert out.splitlines() == [
        f"cub200 is complete at {place}",
        "train    6 images, 2 classes",
        "test     4 images, 2 classes",
    ]
    assert [path.name for path in place.parent.iterdir()] == ["CUB_200_2011"]  # no archive, no temporary folder
    cub_archive.unlink()
    for root in (None, place):
        status, out, _ = prepare("cub200", root)
        assert status == 0
        assert "was there already, complete" in out


def test_tiny_imagenet_is_fetched(prepare, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, address = served
    base = folder / "tiny-imagenet-200"
    write_image(base / "train" / "n01" / "images" / "0.JPEG")
    write_image(base / "val" / "images" / "v.JPEG")
    (base / "wnids.txt").write_text("n01\n")
    (base / "val" / "val_annotations.txt").write_text("v.JPEG\tn01\t0\t0\t1\t1\n")
    archive = pack(base, folder / "tiny-imagenet-200.zip")
    monkeypatch.setitem(DOWNLOADS, "tiny_imagenet", served_archive(base.name, address, archive))
    monkeypatch.setitem(PUBLISHED, "tiny_imagenet", Published({"train": 1, "val": 1}, 1, evaluation="val"))
    assert prepare("tiny_imagenet")[0] == 0
    assert "was there already" in prepare("tiny_imagenet")[1]


def test_flowers_are_files_and_an_archive_inside_their_folder(
    prepare, served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    base = layouts.flowers(folder) / "flowers-102"
    files = [pack(base / "jpg", folder / "102flowers.tgz")]
    files += [(base / file).rename(folder / file) for file in ("imagelabels.mat", "setid.mat")]
    download = dataclasses.replace(served_archive("flowers-102", address, *files), inside=True)
    assert DOWNLOADS["flowers102"] == dataclasses.replace(download, files=DOWNLOADS["flowers102"].files)
    monkeypatch.setitem(DOWNLOADS, "flowers102", download)
    status, out, _ = prepare("flowers102")
    assert status == 0
    assert "val      2 images, 2 classes" in out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["flowers-102"]


def test_cifar_is_fetched(
    prepare, served: tuple[Path, str], tmp_path: Path, write_cifar, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    archive = pack(write_cifar(folder) / "cifar-10-batches-py", folder / "cifar-10-python.tar.gz")
    monkeypatch.setitem(DOWNLOADS, "cifar10", served_archive("cifar-10-batches-py", address, archive))
    monkeypatch.setitem(PUBLISHED, "cifar10", Published({"train": 60, "test": 12}, 10))
    status, out, _ = prepare("cifar10")
    assert status == 0
    assert "train    60 images, 10 classes" in out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cifar-10-batches-py"]


# --- failures -------------------------------------------------------------------------------------------------------


def closed_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/x.tgz"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("refused", "Connection refused"),
        ("not found", "HTTP Error 404"),
        ("damaged", "corrupted"),
        ("cut off", "corrupted"),
        ("no archive", "not a compressed or uncompressed tar file"),
        ("outside", "outside the destination"),
        ("other folder", "is missing"),
        ("not the published one", "published are only 5"),
    ],
)
def test_a_failed_download_is_one_line_and_leaves_nothing(
    fault: str, said: str, prepare, cub_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((good, good_sum),) = DOWNLOADS["cub200"].files.items()
    address = {"refused": closed_address(), "not found": good[:-4] + "x.tgz"}
    if fault == "damaged":
        cub_archive.write_bytes(b"?" + cub_archive.read_bytes()[1:])
    elif fault == "cut off":
        cub_archive.write_bytes(cub_archive.read_bytes()[:-100])
    elif fault == "no archive":
        cub_archive.write_bytes(b"<html>")
    elif fault == "outside":
        with tarfile.open(cub_archive, "w:gz") as tar:
            tar.addfile(tarfile.TarInfo("../../../../evil"))
    elif fault == "other folder":
        (tmp_path / "birds").mkdir()
        pack(tmp_path / "birds", cub_archive)
    elif fault == "not the published one":
        monkeypatch.setitem(PUBLISHED, "cub200", Published({"train": 5, "test": 4}, 2))
    sum_ = md5(cub_archive) if fault in ("no archive", "outside", "other folder") else good_sum
    monkeypatch.setitem(DOWNLOADS, "cub200", Download("CUB_200_2011", {address.get(fault, good): sum_}))
    status, out, err = prepare("cub200")
    assert status == 2
    assert out == ""
    assert err.startswith("error: cannot download cub200 from ")
    assert said in err
    assert "by hand" in err
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupted_download_leaves_nothing(
    prepare, cub_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlomae.data.tools._verify", interrupt)
    monkeypatch.setattr(
        "mlomae.data.tools.prepare_data", lambda name, root: _download(name, DOWNLOADS[name], Path(root))
    )
    status, _, err = prepare("cub200")
    assert status == 130
    assert err == "error: interrupted; run it again"
    assert list((tmp_path / "out").iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_a_partial_set_under_the_name_is_not_overwritten(prepare, cub_archive: Path, tmp_path: Path) -> None:
    base = layouts.cub(tmp_path / "out") / "CUB_200_2011"
    (base / "classes.txt").unlink()
    status, _, err = prepare("cub200")
    assert status == 2
    assert "classes.txt is missing" in err
    assert f"remove {base} to have it downloaded again" in err
    assert base.is_dir()


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("inat", ["train_val2019.tar.gz (md5 c60a6e2962c9b8ccbd458d12c8582644)", "val2019.json"]),
        ("imagenet", ["https://image-net.org/download.php", "ILSVRC2012_img_val.tar", "val/n01440764"]),
        ("cars", ["cars_test_annos_withlabels.mat", "cars_train/", "devkit/"]),
    ],
)
def test_sets_to_fetch_by_hand_say_what_goes_where(layout: str, words: list[str], prepare, tmp_path: Path) -> None:
    name, write, _, _ = LAYOUTS[layout]
    status, out, err = prepare(name)
    assert status == 2
    assert err == ""
    assert all(word in out for word in words)
    assert str(tmp_path / "out") in out
    assert "{" not in out
    assert out.splitlines()[-1] == f"then run: mlomae data check {name} {tmp_path / 'out'}"
    write(tmp_path / "out")
    status, out, _ = prepare(name)
    assert status == 0
    assert "is complete" in out


@pytest.mark.parametrize(
    ("name", "said"),
    [("cub20", "unknown data set"), ("textures", "embedded"), ("imagefolder", "a layout, not a data set")],
)
def test_names_without_a_published_set(name: str, said: str, prepare) -> None:
    status, _, err = prepare(name)
    assert status == 2
    assert said in err


def test_root_that_is_a_file(prepare, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    status, _, err = prepare("cub200")
    assert status == 2
    assert "is a file; name a folder" in err
