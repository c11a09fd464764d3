"""Folders of scenes: what they give, and every way in which they are not what they should be."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scene_layouts import png_header, scenes, values, write_annotation, write_pair

from mlomae.common.errors import DataError
from mlomae.data import IGNORE, Scenes, Textures, build_scenes, check_disjoint


def build(root: Path, split: str = "training", **more: Any) -> Scenes:
    return build_scenes({"type": "scene_folder", "root": str(root), "split": split, **more})


def refusal(root: Path, split: str = "training") -> str:
    with pytest.raises(DataError) as error:
        build(root, split)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_images_labels_and_names(tmp_path: Path) -> None:
    source = build(scenes(tmp_path))
    assert (source.name, source.split, source.root, len(source)) == ("scene_folder", "training", str(tmp_path), 4)
    assert source.classes == tuple(f"class {k}" for k in range(1, 6))
    assert source.describe() == f"scene_folder training at {tmp_path}"
    for i in range(4):
        assert source.path(i) == str(tmp_path / "images" / "training" / f"scene_{i}.jpg")
        assert source.annotation_path(i) == str(tmp_path / "annotations" / "training" / f"scene_{i}.png")
        decoded = np.array(Image.open(source.path(i)))
        assert torch.equal(source.image(i), torch.from_numpy(decoded).permute(2, 0, 1))
        assert source.image_size(i) == tuple(source.labels(i).shape) == (12 + i, 17)
        drawn = values(5, i, (12 + i, 17)).astype(int)
        assert source.labels(i).tolist() == np.where(drawn == 0, IGNORE, drawn - 1).tolist()


def test_counts_of_150_labels_and_of_ignored_pixels(tmp_path: Path) -> None:
    source = build(scenes(tmp_path, classes=150))
    found = source.check_labels(decode_all=True)
    histogram = np.sum([Image.open(source.annotation_path(i)).histogram() for i in range(4)], axis=0)
    assert found.pixels.tolist() == histogram[1:151].tolist()
    assert found.ignored == histogram[0] > 0
    assert found.annotations == 4


def test_image_names_may_have_any_case_dots_and_png(tmp_path: Path) -> None:
    scenes(tmp_path, training=1)
    write_pair(tmp_path, "training", "b.c", values(5, 7), "JPEG")
    write_pair(tmp_path, "training", "a-b", values(5, 9))  # before a.png among the files, after a among the stems
    write_pair(tmp_path, "training", "a", values(5, 8), "png")
    annotation = tmp_path / "annotations" / "training" / "a.png"
    annotation.rename(annotation.with_suffix(".PNG"))
    for hidden in (tmp_path / "images" / "training" / "._x.jpg", tmp_path / "images" / "training" / "Thumbs.db"):
        hidden.write_bytes(b"x")
    source = build(tmp_path)
    assert [source.relative_path(i) for i in range(4)] == ["a.png", "a-b.jpg", "b.c.JPEG", "scene_0.jpg"]
    assert [Path(source.annotation_path(i)).name for i in range(4)] == ["a.PNG", "a-b.png", "b.c.png", "scene_0.png"]
    assert (source.labels(0) + 1).tolist() == values(5, 8).tolist()  # uint8: IGNORE + 1 is 0


def test_travels_to_workers(tmp_path: Path) -> None:
    source = build(scenes(tmp_path))
    copy = pickle.loads(pickle.dumps(source))
    assert torch.equal(copy.labels(2), source.labels(2))
    assert torch.equal(copy.image(2), source.image(2))


def test_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    scenes(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    before = build(tmp_path / "a").fingerprint()
    assert build(tmp_path / "b").fingerprint() == before
    assert build(tmp_path / "a").fingerprint([0, 1]) != build(tmp_path / "a").fingerprint([1, 0])
    for kind in ("images", "annotations"):
        path = next((tmp_path / "b" / kind / "training").iterdir())
        content = path.read_bytes()
        path.write_bytes(content + b"x")
        assert build(tmp_path / "b").fingerprint() != before
        path.write_bytes(content)


def test_disjointness_of_splits(tmp_path: Path) -> None:
    training, validation = build(scenes(tmp_path / "a")), build(tmp_path / "a", "validation")
    check_disjoint(training, validation)
    with pytest.raises(DataError, match="both read"):
        check_disjoint(training, training)
    for kind in ("images", "annotations"):
        shutil.copytree(tmp_path / "a" / kind / "training", tmp_path / "a" / kind / "copy")
    with pytest.raises(DataError, match="4 of 4 evaluation images are in training"):
        check_disjoint(training, build(tmp_path / "a", "copy"))
    check_disjoint(Textures(count=4), training)


# --- wrong input ----------------------------------------------------------------------------------------------------


def broken_header(path: Path) -> None:
    path.write_bytes(b"GIF89a" + path.read_bytes())


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.unlink(), "1 of 4 training images have no annotation (scene_2)"),
        (lambda p: write_annotation(p.parents[2], "training", "z", values(5, 0)), "annotations have no image (z)"),
        (lambda p: png_header(p, (14, 17), 8, 2), "1 of 4 training annotations are RGB pictures (scene_2.png)"),
        (lambda p: png_header(p, (14, 17), 8, 4), "have an alpha channel"),
        (lambda p: png_header(p, (14, 17), 4, 0), "grey with 4 bits"),
        (lambda p: png_header(p, (17, 14), 8, 0), "(scene_2.png: 17x14 against 14x17 pixels)"),
        (broken_header, "are not PNG files (scene_2.png)"),
        (cut_off, "cannot decode"),
        (
            lambda p: write_annotation(p.parents[2], "training", "scene_2", values(5, 0, (14, 17)) + np.uint8(1)),
            "scene_2.png has the value 6, above its 5 classes",
        ),
    ],
)
def test_annotations_that_do_not_fit(change: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    path = scenes(tmp_path) / "annotations" / "training" / "scene_2.png"
    change(path)
    message = refusal(tmp_path)
    assert said in message
    assert "; " in message
    build(tmp_path, "validation")


def test_faults_are_counted_and_the_first_names_given(tmp_path: Path) -> None:
    scenes(tmp_path, training=9)
    for i, colour in enumerate([6, 6, 2, 2, 4, 2, 2], 1):
        png_header(tmp_path / "annotations" / "training" / f"scene_{i}.png", (12 + i, 17), 8, colour)
    found = "6 of 9 training annotations are RGB pictures (scene_1.png, scene_2.png, scene_3.png and 3 more)"
    assert found in refusal(tmp_path)
    for file in sorted((tmp_path / "images" / "training").iterdir())[:5]:
        file.unlink()
    assert "5 of 9 training annotations have no image (scene_0, scene_1, scene_2 and 2 more)" in refusal(tmp_path)


def test_images_that_cannot_be_read_or_come_twice(tmp_path: Path) -> None:
    image = scenes(tmp_path) / "images" / "training" / "scene_1.jpg"
    shutil.copy(image, image.with_suffix(".JPG"))
    assert "both scene_1.JPG and scene_1.jpg" in refusal(tmp_path)
    image.with_suffix(".JPG").unlink()
    image.write_text("no image")
    assert f"cannot decode {image}" in refusal(tmp_path)


def test_folders_that_are_missing_or_empty(tmp_path: Path) -> None:
    scenes(tmp_path)
    assert "no folder 'test'" in refusal(tmp_path, "test")
    assert "(training, validation)" in refusal(tmp_path, "test")
    (tmp_path / "images" / "test" / "city").mkdir(parents=True)
    assert "no folder 'test' in " + str(tmp_path / "annotations") in refusal(tmp_path, "test")
    (tmp_path / "annotations" / "test").mkdir(parents=True)
    assert f"{tmp_path / 'images' / 'test'} holds no image" in refusal(tmp_path, "test")
    shutil.rmtree(tmp_path / "annotations")
    assert f"{tmp_path / 'annotations'} is missing" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    assert "is a file, not a folder" in refusal(tmp_path / "file")


def test_a_sample_is_scanned_on_opening_and_all_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlomae.data.scenes.SCANNED", 2)
    scenes(tmp_path)
    for i in (1, 3):
        write_annotation(tmp_path, "training", f"scene_{i}", np.full((12 + i, 17), 9, dtype=np.uint8))
    source = build(tmp_path)  # scans 0 and 2
    assert source.check_labels().annotations == 2
    with pytest.raises(DataError) as error:
        source.check_labels(decode_all=True)
    assert "faults in 2 of 4 annotations scanned, the first: " in str(error.value)
    assert f"{source.annotation_path(1)} has the value 9, above its 5 classes" in str(error.value)


def test_annotations_without_any_label(tmp_path: Path) -> None:
    for i in range(3):
        write_pair(tmp_path, "training", f"{i}", np.zeros((6, 6), dtype=np.uint8))
    (tmp_path / "classes.txt").write_text("a\n")
    assert "no pixel of 3 annotations has a label" in refusal(tmp_path)
    write_annotation(tmp_path, "training", "2", np.ones((6, 6), dtype=np.uint8))
    assert build(tmp_path).check_labels().ignored == 72


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a\nb\na\n", "names the class 'a' twice"),
        ("\n \n", "names no class"),
        ("0 unlabelled\n", "names no class"),
        ("1 a\n3 b\n", "does not count from 1"),
        ("0 none\n2 a\n1 b\n", "does not count from 1"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        ("".join(f"class-{k}\n" for k in range(256)), "256 classes; annotations can hold 1 to 255"),
        (None, "classes.txt is missing"),
    ],
)
def test_lists_of_classes_that_are_none(content: Any, said: str, tmp_path: Path) -> None:
    path = scenes(tmp_path) / "classes.txt"
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert said in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("sky\n\n2nd floor\n a b \n", ("sky", "2nd floor", "a b")),
        ("0 unlabelled\n1 sky\n2 tree x\n3 car", ("sky", "tree x", "car")),
        ("1 sky\r\n2 tree\r\n3 car\r\n", ("sky", "tree", "car")),
        ("\ufeffciel\narbre\nvoiture", ("ciel", "arbre", "voiture")),
    ],
)
def test_lists_of_classes(content: str, names: tuple[str, ...], tmp_path: Path) -> None:
    path = scenes(tmp_path, classes=3) / "classes.txt"
    path.write_bytes(content.encode())
    assert build(tmp_path).classes == names


def test_links_to_nothing(tmp_path: Path) -> None:
    path = scenes(tmp_path) / "annotations" / "training" / "scene_2.png"
    path.unlink()
    path.symlink_to(tmp_path / "gone.png")
    assert f"cannot read {path} (No such file or directory)" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("ignore", "labels"),
    [(None, [IGNORE, 0, 1, IGNORE]), (255, [IGNORE, 0, 1, IGNORE]), ([255, 1], [IGNORE, IGNORE, 1, IGNORE])],
)
def test_values_that_stand_for_no_label(tmp_path: Path, ignore: int | list[int] | None, labels: list[int]) -> None:
    """255 by default where there are fewer classes; others as the configuration says."""
    write_scene(tmp_path, np.array([[0, 1, 2, 255]], dtype=np.uint8))
    options = {} if ignore is None else {"ignore": ignore}
    scenes = build_scenes({"type": "scene_folder", "root": str(tmp_path), "split": "training", **options})
    assert scenes.labels(0).tolist() == [labels]


@pytest.mark.parametrize("values", [[0, 255, 255, 0], [0, 1, 1, 255]])
def test_black_and_white_masks_and_classes_from_0_are_refused_unless_255_is_said_to_be_no_label(
    tmp_path: Path, values: list[int]
) -> None:
    write_scene(tmp_path, np.array([values], dtype=np.uint8))
    source = {"type": "scene_folder", "root": str(tmp_path), "split": "training"}
    with pytest.raises(DataError, match=r"255 but never 2, that of .b.; write 1, 2, .*set ignore=255") as error:
        build_scenes(source)
    assert "\n" not in str(error.value)
    if 1 in values:  # followed, the remedy works
        assert build_scenes({**source, "ignore": 255}).labels(0).tolist() == [[IGNORE, 0, 0, IGNORE]]


def test_the_annotation_decides_whether_a_photo_is_turned(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    exif = Image.Exif()
    exif[0x0112] = 6
    for shape, shown in (((3, 4), False), ((4, 3), True)):
        root = tmp_path / f"{shown}"
        write_scene(root, np.full(shape, 2, dtype=np.uint8))
        Image.fromarray(pixels).save(root / "images" / "training" / "a.png", exif=exif)
        scenes = build_scenes({"type": "scene_folder", "root": str(root), "split": "training"})
        wanted = np.rot90(pixels, -1) if shown else pixels
        assert np.array_equal(scenes.image(0)[0], wanted)
        assert scenes.image_size(0) == shape


def write_scene(root: Path, values: np.ndarray) -> None:
    """One image with these values, of two classes "a" and "b"."""
    for kind in ("images", "annotations"):
        (root / kind / "training").mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("a\nb\n")
    Image.fromarray(values).save(root / "annotations" / "training" / "a.png")
    Image.new("RGB", values.shape[::-1]).save(root / "images" / "training" / "a.png")
