"""Parts of a training set: no image is in both, together they are the whole, and neither stands beside it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mlomae.common.errors import ConfigError, DataError
from mlomae.data import Source, build_source, check_disjoint

TEXTURES = {"type": "textures", "split": "train", "count": 200, "size": 16}


def parts_of(of: dict[str, Any], **options: Any) -> tuple[Source, Source, Source]:
    whole = build_source(of)
    return whole, *(build_source({"type": "part", "of": of, "part": name, **options}) for name in ("train", "held_out"))


@pytest.fixture
def folder(tmp_path: Path, write_tree) -> dict[str, Any]:
    return {"type": "imagefolder", "root": str(write_tree(tmp_path / "data", count=10)), "split": "train"}


@pytest.mark.parametrize("kind", ["textures", "folder"])
def test_two_parts_are_the_whole(kind: str, folder: dict[str, Any]) -> None:
    whole, train, held_out = parts_of(TEXTURES if kind == "textures" else folder)
    assert len(held_out) == len(whole) // 5
    assert sorted([*train.indices, *held_out.indices]) == list(range(len(whole)))
    for part in (train, held_out):
        counts = torch.bincount(torch.from_numpy(part.labels))
        assert len(set(counts.tolist())) == 1, "as many of every class, as in the whole"
        for i in (0, len(part) - 1):
            k = int(part.indices[i])
            assert torch.equal(part.image(i), whole.image(k))
            assert torch.equal(part.reduced_image(i, 2), whole.reduced_image(k, 2))
            assert part.labels[i] == whole.labels[k]
            assert part.image_size(i) == whole.image_size(k)
            assert part.relative_path(i) == whole.relative_path(k)
            assert part.content_digest(i) == whole.content_digest(k)
            if whole.has_objects:
                assert torch.equal(part.object_mask(i), whole.object_mask(k))
                assert torch.equal(part.pixel_labels(i), whole.pixel_labels(k))
                assert torch.equal(part.images_NCHW[i], whole.images_NCHW[k])
        assert part.fingerprint() == whole.fingerprint(part.indices)
        assert part.fingerprint([0]) == whole.fingerprint([int(part.indices[0])])
    assert train.fingerprint() != held_out.fingerprint()
    assert train.title == whole.title
    assert held_out.describe().startswith("train, held_out of ")


def test_parts_stand_beside_each_other_and_not_beside_the_whole(folder: dict[str, Any]) -> None:
    whole, train, held_out = parts_of(folder)
    check_disjoint(train, held_out)
    for part in (train, held_out):
        with pytest.raises(DataError, match="both read"):
            check_disjoint(whole, part)
    with pytest.raises(DataError, match="both read"):
        check_disjoint(train, build_source({"type": "part", "of": folder, "part": "train"}))


def test_scenes_of_parts(folder: dict[str, Any]) -> None:
    made = [
        build_source(
            {
                "type": "on_scenes",
                "objects": {"type": "part", "of": TEXTURES, "part": name},
                "scenes": {"type": "part", "of": folder, "part": name},
                "size": 24,
            }
        )
        for name in ("train", "held_out")
    ]
    assert [len(source) for source in made] == [160, 40]
    check_disjoint(*made)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"of": "textures"}, "of must be a dict"),
        ({"part": "test"}, "part.*must be one of train, held_out"),
        ({"share": 1.0}, "must be between 0 and 1"),
        ({"of": {**TEXTURES, "count": 8}}, "no class of textures.* has two images"),
    ],
)
def test_errors(changes: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        build_source({"type": "part", "of": TEXTURES, "part": "train", **changes})
