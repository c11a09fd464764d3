"""What every published set shares: complete ones load, others are refused in one line, parts need consent."""

import copy
import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import LAYOUTS
from PIL import Image

from mlomae.common.errors import ConfigError, DataError
from mlomae.data import PUBLISHED, Source, build_source, check_disjoint, split_train

Build = Callable[..., Source]


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A layout, with the counts of its tiny set in the place of the published ones."""
    name, _, _, published = LAYOUTS[request.param]
    monkeypatch.setitem(PUBLISHED, name, published)
    return request.param


@pytest.fixture
def build(layout: str, tmp_path: Path) -> Build:
    name, write, evaluation, _ = LAYOUTS[layout]
    root = write(tmp_path)

    def build(part: str = "train", **more: object) -> Source:
        split = {"train": "train", "evaluation": evaluation}.get(part, part)
        return build_source({"type": name, "root": str(root), "split": split, **more})

    return build


def refusal(build: Build, *arguments: str, **more: object) -> str:
    with pytest.raises(DataError) as error:
        build(*arguments, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def change(monkeypatch: pytest.MonkeyPatch, layout: str, images: int = 0, classes: int = 0) -> None:
    """Pretend that more (or fewer) images of each part, or classes, were published."""
    name, _, _, published = LAYOUTS[layout]
    counts = {part: count + images for part, count in published.counts.items()}
    monkeypatch.setitem(PUBLISHED, name, dataclasses.replace(published, counts=counts, classes=2 + classes))


def test_numbers_are_the_published_ones() -> None:
    numbers = {name: (*published.counts.values(), published.classes) for name, published in PUBLISHED.items()}
    assert numbers["cub200"] == (5994, 5794, 200)
    assert numbers["stanford_cars"] == (8144, 8041, 196)
    assert numbers["inat2019"] == (265213, 3030, 1010)
    assert sum(numbers["inat2019"][:2]) == 268243
    assert numbers["imagenet"] == (1281167, 50000, 1000)
    assert numbers["flowers102"] == (1020, 1020, 6149, 102)
    assert sum(numbers["flowers102"][:3]) == 8189


def test_a_complete_set_loads(layout: str, build: Build) -> None:
    train, evaluation = build("train"), build("evaluation")
    counts = LAYOUTS[layout][3].counts
    assert (len(train), len(evaluation)) == (counts["train"], counts[evaluation.split])
    assert train.classes == evaluation.classes
    assert np.bincount(train.labels).tolist() == [3, 3]
    assert train.labels.dtype == np.int64
    assert train.split == "train"
    assert "subset" not in train.describe()
    for source in (train, evaluation):
        for i in range(len(source)):
            expected = np.array(Image.open(source.path(i)))
            assert torch.equal(source.image(i), torch.from_numpy(expected).permute(2, 0, 1))
        assert source.image_size(1) == (16, 20)
    assert len({source.path(i) for source in (train, evaluation) for i in range(len(source))}) == len(train) + len(
        evaluation
    )


def test_consent_to_a_part_changes_nothing_for_a_complete_set(build: Build) -> None:
    assert build(subset=True).describe() == build().describe()
    assert build(subset=True).fingerprint() == build().fingerprint()


def test_parts_are_disjoint_for_the_leak_check_and_one_is_not_disjoint_with_itself(build: Build) -> None:
    check_disjoint(build("train"), build("evaluation"))
    with pytest.raises(DataError, match="both read"):
        check_disjoint(build("train"), build("train"))


def test_a_folder_above_a_part_is_not_disjoint_with_it(build: Build) -> None:
    evaluation = build("evaluation")
    above = copy.copy(evaluation)
    above.locations = frozenset([evaluation.root])
    with pytest.raises(DataError, match="both read"):
        check_disjoint(above, evaluation)


def test_a_source_splits_and_travels_to_workers(build: Build) -> None:
    train = build()
    assert len(split_train(train, 0.34).val_indices) == 2
    assert torch.equal(pickle.loads(pickle.dumps(train)).image(2), train.image(2))


def test_fewer_images_than_published_need_consent(layout: str, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    change(monkeypatch, layout, images=5)
    message = refusal(build)
    assert "6 of 11 train images" in message
    assert "subset=True" in message
    assert "--subset" in message
    assert build(subset=True).describe().endswith("(subset: 6 of 11 images, 2 of 2 classes)")


def test_fewer_classes_than_published_need_consent(layout: str, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    change(monkeypatch, layout, classes=198)
    assert "2 of 200 classes" in refusal(build)
    assert build(subset=True).describe().endswith("(subset: 6 of 6 images, 2 of 200 classes)")


@pytest.mark.parametrize("subset", [False, True])
def test_more_than_published_is_never_accepted(
    layout: str, build: Build, monkeypatch: pytest.MonkeyPatch, subset: bool
) -> None:
    change(monkeypatch, layout, images=-1)
    assert "6 train images, published are only 5" in refusal(build, subset=subset)
    change(monkeypatch, layout, classes=-1)
    assert "2 classes, published are only 1" in refusal(build, subset=subset)


@pytest.mark.parametrize("subset", [False, True])
def test_a_missing_image_is_named(layout: str, build: Build, subset: bool) -> None:
    train = build()
    for i in range(5):
        Path(train.path(i)).unlink()
    message = refusal(build, subset=subset)
    if layout in ("imagenet", "cars_folders"):  # nothing lists the images: a class is empty
        assert str(Path(train.path(0)).parent) in message
    else:
        assert "5 of 6 listed train images are not in" in message
        assert train.relative_path(0) in message
        assert "and 2 more" in message
        build("evaluation")


def test_unknown_split_and_missing_root(layout: str, build: Build, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="valid splits: train, "):
        build("tset")
    with pytest.raises(DataError, match="does not exist"):
        build(root=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refusal(build, root=str(tmp_path / "empty"))


def test_fingerprint_follows_content_not_place(layout: str, build: Build, tmp_path: Path) -> None:
    source = build()
    (tmp_path / "link").symlink_to(tmp_path)
    assert build(root=str(tmp_path / "link")).fingerprint() == source.fingerprint()
    before = source.fingerprint()
    with Path(source.path(0)).open("ab") as file:
        file.write(b"x")
    assert build().fingerprint() != before
