"""The transform that loads images in pipelines of mmseg and mmdet: mmcv's pixels, and the reader's rules."""

from pathlib import Path
from typing import Any

import mmdet.registry
import mmseg.registry
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import ExifTags, Image

from mlomae.backbones import load_image  # noqa: F401  registers the transform
from mlomae.common.errors import DataError

REGISTRIES = {"mmseg": mmseg.registry.TRANSFORMS, "mmdet": mmdet.registry.TRANSFORMS}


def loaded(results: dict[str, Any], registry: str = "mmseg") -> dict[str, Any]:
    found: dict[str, Any] = REGISTRIES[registry].build({"type": "mlomae.LoadImage"})(results)
    return found


@pytest.mark.parametrize("registry", REGISTRIES)
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_it_gives_what_mmcv_gives(mode: str, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmdet.registry.TRANSFORMS, "_imported", True)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    path = str(tmp_path / "a.png")
    Image.fromarray(pixels).convert(mode).save(path)
    ours, theirs = loaded({"img_path": path, "id": 3}, registry), LoadImageFromFile()({"img_path": path, "id": 3})
    assert ours.keys() == theirs.keys()
    assert np.array_equal(ours["img"], theirs["img"])
    assert ours["img"].flags["C_CONTIGUOUS"]
    assert {k: v for k, v in ours.items() if k != "img"} == {k: v for k, v in theirs.items() if k != "img"}


def test_the_annotated_size_decides_how_a_photo_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (14, 9)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("L", (14, 9)).save(tmp_path / "a.png")
    path = {"img_path": str(tmp_path / "a.jpg")}
    assert loaded(path)["img_shape"] == (14, 9)
    assert loaded({**path, "height": 9, "width": 14})["ori_shape"] == (9, 14)
    assert loaded({**path, "seg_map_path": str(tmp_path / "a.png")})["img"].shape == (9, 14, 3)
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot decode .*a\.jpg"):
        loaded(path)
