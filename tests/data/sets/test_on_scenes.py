"""Labelled images on photographs: pixels, place and share of the object, and what keeps evaluation apart."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from mlomae.common.errors import ConfigError, DataError
from mlomae.data import build_source, check_disjoint

SIZE = 32


def described(scenes: Path, split: str = "train", count: int = 200) -> dict[str, Any]:
    objects = {"type": "textures", "split": split, "count": count, "size": 16}
    photographs = {"type": "imagefolder", "root": str(scenes), "split": "train"}
    return {"type": "on_scenes", "objects": objects, "scenes": photographs, "size": SIZE}


@pytest.fixture
def scenes(tmp_path: Path, write_tree) -> Path:
    return write_tree(tmp_path / "scenes", count=4, size=(SIZE, SIZE + 8))


@pytest.mark.parametrize(("share", "side"), [(0.25, 16), (0.5, 23), (1.0, 32)])
def test_the_object_lies_on_a_photograph(scenes: Path, share: float, side: int) -> None:
    cfg = described(scenes)
    source, objects, photographs = (build_source(c) for c in ({**cfg, "share": share}, cfg["objects"], cfg["scenes"]))
    backgrounds = [photographs.image(k)[:, :, 4:-4] for k in range(len(photographs))]
    used = set()
    assert source.labels.tolist() == objects.labels.tolist()
    for i in range(0, 200, 20):
        mask_HW, image = source.object_mask(i), source.image(i)
        assert int(mask_HW.sum()) == side**2
        expected = TF.resize(objects.image(i), [side, side], interpolation=TF.InterpolationMode.BICUBIC)
        assert torch.equal(image[:, mask_HW], expected.flatten(1))
        fits = [k for k, back in enumerate(backgrounds) if torch.equal(image[:, ~mask_HW], back[:, ~mask_HW])]
        used |= set(fits)
        assert fits
        assert torch.equal(source.pixel_labels(i), mask_HW.to(torch.uint8) * (int(source.labels[i]) + 1))
    assert len(used) > 4, "photographs differ from image to image"


def test_every_place_is_as_likely_and_follows_from_the_seed(scenes: Path) -> None:
    cfg = described(scenes, count=2000)
    source = build_source(cfg)
    left, top = torch.from_numpy(source.object_boxes[:, :2].copy()).long().unbind(dim=1)
    for ends in (left, top):
        counts = torch.bincount(ends, minlength=SIZE - 16 + 1)
        assert len(counts) == 17, "the object may touch both edges and stays inside"
        assert counts.min() > 2000 / 17 / 2
        assert counts.max() < 2000 / 17 * 2
    assert abs(float(torch.corrcoef(torch.stack([left, top]).float())[0, 1])) < 0.1
    again, other = build_source(cfg), build_source({**cfg, "seed": 1})
    assert again.fingerprint() == source.fingerprint()
    assert other.fingerprint() != source.fingerprint()
    some = build_source({**cfg, "count": 16})
    assert some.labels.tolist() == source.labels[::125].tolist(), "evenly spaced over the objects"


def test_evaluation_takes_other_objects_and_other_photographs(scenes: Path, tmp_path: Path, write_tree) -> None:
    elsewhere = write_tree(tmp_path / "others", count=4, size=(SIZE, SIZE), seed=1)
    train = build_source(described(scenes))
    check_disjoint(train, build_source(described(elsewhere, "test")))
    for same in (described(scenes, "test"), described(elsewhere, "train")):
        with pytest.raises(DataError, match="both read"):
            check_disjoint(train, build_source(same))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"share": 0.0}, "on_scenes: share must be in"),
        ({"share": 1.5}, "on_scenes: share must be in"),
        ({"size": 0}, "on_scenes: size must be at least 1"),
        ({"count": 201}, "count=201 but textures train"),
        ({"objects": "textures"}, "objects must be a dict"),
        ({"scenes": {"type": "ade20k"}}, "does not have one label per image"),
    ],
    ids=str,
)
def test_what_cannot_be_made_is_refused(changes: dict[str, Any], said: str, scenes: Path) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        build_source({**described(scenes), **changes})
    assert "\n" not in str(error.value)
