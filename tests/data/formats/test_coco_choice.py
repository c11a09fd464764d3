"""Some of the classes of a set in COCO's format: as if the file had been written without the others."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from coco_layouts import masks_of

from mlomae.common.errors import ConfigError, DataError
from mlomae.data import Textures, build_detections
from mlomae.data.write import write_coco


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("chosen") / "coco", {"val": Textures("val", count=24, mixed=True)})


def path(root: Path) -> Path:
    return root / "annotations" / "instances_val.json"


def source(root: Path, **options: Any) -> Any:
    return build_detections({"type": "coco_folder", "root": str(root), "split": "val", **options})


def names(root: Path) -> list[str]:
    return [c["name"] for c in json.loads(path(root).read_text())["categories"]]


def test_equal_to_a_file_without_the_others(root: Path) -> None:
    chosen = [names(root)[5], names(root)[2]]
    content = json.loads(path(root).read_text())
    content["categories"] = [c for c in content["categories"] if c["name"] in chosen]
    ids = {c["id"] for c in content["categories"]}
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] in ids]
    alone = root / "annotations" / "alone.json"
    alone.write_text(json.dumps(content))
    some, written = source(root, classes=chosen), source(root, annotations="annotations/alone.json")
    assert some.classes == written.classes == tuple(sorted(chosen, key=names(root).index))
    assert some.categories == written.categories
    assert len(some) == len(written) == 24
    assert 0 < len(some.objects.ids) < len(source(root).objects.ids)
    for i in range(24):
        assert some.annotations(i) == written.annotations(i)
        assert torch.equal(masks_of(some, i), masks_of(written, i))
    assert some._fingerprint_label(3) == written._fingerprint_label(3)
    assert f"({', '.join(some.classes)} alone)" in some.describe()
    assert some.check_annotations().median_iou == 1.0


def test_a_choice_of_all_is_the_set(root: Path) -> None:
    everything = source(root, classes=names(root))
    assert [everything.annotations(i) for i in range(24)] == [source(root).annotations(i) for i in range(24)]


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([], "must be a list of different class names"),
        ("person", "must be list or None; got .person."),
        (["a", "a"], "must be a list of different class names"),
        (["zebra"], "has no class 'zebra'; choose from"),
    ],
)
def test_wrong_choices_are_one_line(root: Path, classes: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        source(root, classes=classes)
    assert "\n" not in str(error.value)


def test_a_class_without_objects_is_an_error(root: Path) -> None:
    content = json.loads(path(root).read_text())
    content["categories"].append({"id": 900, "name": "nothing"})
    (root / "annotations" / "more.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="has no object of nothing; choose other classes"):
        source(root, annotations="annotations/more.json", classes=["nothing"])
