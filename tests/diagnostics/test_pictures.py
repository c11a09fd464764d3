"""The influence sheet: what is red, what is blue, what is grey."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import Normalize
from PIL import Image
from torch import Tensor

from mlomae.diagnostics.pictures import KEPT, _heat, influence_sheet, save_figure


def inputs(images: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(images, 16, generator=generator) < 0.75).float()
    objects = torch.zeros(images, 16, 16, dtype=torch.bool)
    objects[:, 4:10, 6:14] = True
    influence = torch.randn(images, 16, generator=generator)
    image = torch.randn(images, 3, 16, 16, generator=generator)
    return {"image_B3SS": image, "mask_BL": mask, "influence_BL": influence, "object_BSS": objects}


def test_positive_is_red_negative_blue_kept_grey() -> None:
    influence, removed = np.array([[2.0, -2.0, 0.0, 2.0]]), np.array([[True, True, True, False]])
    positive, negative, nothing, kept = _heat(influence, removed, Normalize(-2, 2))[0]
    assert positive[0] > positive[2] + 0.2
    assert negative[2] > negative[0] + 0.2
    assert np.ptp(nothing[:3]) < 0.02
    assert tuple(kept[:3]) == (KEPT, KEPT, KEPT)


@pytest.mark.parametrize("sigma", [False, True])
def test_tiles_are_large_and_rows_follow_what_is_known(sigma: bool, tmp_path: Path) -> None:
    values = inputs()
    extra = {"sigma_BL": torch.rand(6, 16)} if sigma else {}
    save_figure(influence_sheet(**values, **extra, grid=(4, 4), title="a title"), tmp_path / "a" / "sheet.png")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["sheet.png"]
    with Image.open(tmp_path / "a" / "sheet.png") as picture:
        assert picture.width >= 6 * 96
        rows = 4 if sigma else 3
        assert rows * 96 <= picture.height <= rows * 140 + 60
        assert len(picture.convert("RGB").getcolors(1 << 22)) > 100


@pytest.mark.filterwarnings("error")
def test_images_without_objects_constant_influence_and_no_masks_draw_without_warnings(tmp_path: Path) -> None:
    values = inputs(2)
    values |= {"object_BSS": torch.zeros(2, 16, 16, dtype=torch.bool), "influence_BL": torch.zeros(2, 16)}
    save_figure(influence_sheet(**values, sigma_BL=torch.full((2, 16), 0.5), grid=(4, 4)), tmp_path / "flat.png")
    del values["object_BSS"]
    save_figure(influence_sheet(**values, grid=(4, 4)), tmp_path / "none.png")
