"""The embedded textures as a folder of scenes: what the loader reads back, and what is refused."""

import hashlib
from pathlib import Path

import pytest
import tiny
import torch

from mlomae.cli import main
from mlomae.common.errors import ConfigError, DataError
from mlomae.data import Textures, build_detections, build_scenes, build_source, check_disjoint, write_scenes


def textures(count: int = 5) -> dict[str, Textures]:
    return {
        "training": Textures("train", size=24, count=count, classes=4, mixed=True),
        "validation": Textures("val", size=24, count=3, classes=4, mixed=True),
    }


def hashes(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_round_trip(tmp_path: Path) -> None:
    written = textures()
    root = write_scenes(tmp_path / "new" / "set", written)
    assert root == tmp_path / "new" / "set"
    for split, drawn in written.items():
        source = build_scenes({"type": "scene_folder", "root": str(root), "split": split})
        assert source.classes == ("background", *drawn.classes)
        assert len(source) == len(drawn)
        for i in range(len(drawn)):
            assert torch.equal(source.image(i), drawn.image(i))
            assert torch.equal(source.labels(i), drawn.pixel_labels(i))  # background 0, texture k is k + 1
            assert torch.equal(source.labels(i) > 0, drawn.object_mask(i))
        found = source.check_labels(decode_all=True)
        assert found.ignored == 0
        assert found.pixels.sum() == len(drawn) * 24 * 24
    readable = {path.stat().st_mode & 0o777 for path in (tmp_path / "new").rglob("*") if path.is_dir()}
    assert readable == {(tmp_path / "new").stat().st_mode & 0o777}


def test_images_on_scenes_are_written_alike(tmp_path: Path, write_tree) -> None:
    made = {}
    for split, folder in (("train", "a"), ("test", "b")):
        photographs = {"type": "imagefolder", "root": str(write_tree(tmp_path / folder, size=(32, 32), seed=len(made)))}
        objects = {"type": "textures", "split": split, "count": 6, "size": 16, "classes": 4}
        made[split] = {"type": "on_scenes", "objects": objects, "scenes": photographs, "size": 32, "share": 0.5}
    changes = {"data__train": made["train"], "data__eval": made["test"], "model__img_size": 32}
    config = tiny.write_config(tmp_path / "config.py", **tiny.RANDOM, **changes)
    assert main(["data", "write", str(config), str(tmp_path / "out")]) == 0
    detections = {"train": "train", "val": "test"}
    for (split, part), kind in zip(detections.items(), ("training", "validation"), strict=True):
        source = build_source(made[part])
        scenes = build_scenes({"type": "scene_folder", "root": str(tmp_path / "out" / "scenes"), "split": kind})
        coco = build_detections({"type": "coco_folder", "root": str(tmp_path / "out" / "coco"), "split": split})
        assert coco.classes == tuple(source.classes)
        for i in range(6):
            assert torch.equal(scenes.image(i), source.image(i))
            assert torch.equal(scenes.labels(i), source.pixel_labels(i))
            (known,) = coco.annotations(i)
            left, top, right, bottom = source.object_boxes[i]
            assert known["bbox"] == [left, top, right - left, bottom - top]
            assert known["category"] == source.labels[i]


def test_images_whose_objects_are_unknown_are_not_written(tmp_path: Path, write_tree, capsys) -> None:
    source = {"type": "imagefolder", "root": str(write_tree(tmp_path / "a"))}
    for evaluation, said in ((None, "has no data.eval"), (source, "are not known to the pixel")):
        changes = {"data__train": source, "data__eval": evaluation}
        config = tiny.write_config(tmp_path / "config.py", **tiny.RANDOM, **changes)
        assert main(["data", "write", str(config), str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    first, again = (hashes(write_scenes(tmp_path / name, textures())) for name in ("a", "b"))
    assert first == again
    assert len(first) == 2 * (5 + 3) + 1
    longer = hashes(write_scenes(tmp_path / "c", textures(count=6)))
    assert {name: longer[name] for name in first} == first


def test_written_splits_are_disjoint_and_recognised(tmp_path: Path) -> None:
    written = textures()
    root = str(write_scenes(tmp_path / "a", written))
    training, validation = (build_scenes({"type": "scene_folder", "root": root, "split": split}) for split in written)
    check_disjoint(training, validation)
    with pytest.raises(DataError, match="5 of 5 evaluation images are in training"):
        check_disjoint(written["training"], training)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "a", textures(count=1))
    before = hashes(root)
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("a", "file", "empty", "link"):
        with pytest.raises(ConfigError, match=f"{tmp_path / name} exists; name a new folder"):
            write_scenes(tmp_path / name, textures(count=2))
    assert hashes(root) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "empty", "file", "link"]


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Textures, i: int) -> None:
        raise OSError("disk full") if i else KeyboardInterrupt

    monkeypatch.setattr(Textures, "pixel_labels", fail)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "a", textures())
    assert list(tmp_path.iterdir()) == []


def test_splits_that_do_not_fit(tmp_path: Path) -> None:
    other = Textures("val", size=24, count=2, classes=3)
    with pytest.raises(ConfigError, match=r"images of validation and training differ in classes \(3 against 4"):
        write_scenes(tmp_path / "a", {**textures(), "validation": other})
    with pytest.raises(ConfigError, match="no split to write"):
        write_scenes(tmp_path / "a", {})
    for name in ("", "..", "a/b", ".hidden"):
        with pytest.raises(ConfigError, match="cannot be the name of a split"):
            write_scenes(tmp_path / "a", {name: other})
    assert list(tmp_path.iterdir()) == []
