"""One reader: pixels by the rules of its docstring, the same by both decoders, and other files are left out."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFilter, ImageOps
from torch.nn import functional as F

from mlomae.common.errors import DataError
from mlomae.common.files import is_hidden
from mlomae.data.reader import decode, decode_bytes, header_size, is_image, rgb

SIZES = [(1, 1), (7, 33), (32, 32), (61, 48), (224, 160)]
JPEG = {
    "4:2:0": {"quality": 75, "subsampling": 2},
    "4:2:2": {"quality": 85, "subsampling": 1},
    "4:4:4": {"quality": 95, "subsampling": 0},
    "progressive": {"quality": 60, "progressive": True},
    "optimised": {"quality": 30, "optimize": True},
}


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3): smooth waves with noise, so that chroma subsampling and rounding matter."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([127 + 90 * np.sin(x / 9 + k) * np.cos(y / (5 + k)) for k in range(3)], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 15, waves.shape)
    return (waves + noise).clip(0, 255).astype(np.uint8)


def encoded(image: Image.Image, kind: str, orientation: int | None = None, **options: Any) -> bytes:
    exif = Image.Exif()
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_pillow(data: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(data)) as image:
        return rgb(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("options", JPEG.values(), ids=JPEG)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_both_decoders_give_a_jpeg_the_same_pixels_within_one_grey_level(mode: str, options: dict[str, Any]) -> None:
    for i, (height, width) in enumerate(SIZES):
        data = encoded(Image.fromarray(picture(height, width, i)).convert(mode), "JPEG", **options)
        found = decode_bytes(data, "a.jpg")
        assert found.shape == (3, height, width)
        assert (found.int() - by_pillow(data).int()).abs().max() <= 1


@pytest.mark.parametrize("kind", ["EPS", "ICO", "TGA"])
def test_other_formats_are_refused_by_any_name(kind: str, tmp_path: Path) -> None:
    """Of the many that Pillow knows, PostScript would start Ghostscript."""
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(picture(16, 16)), kind))
    with pytest.raises(DataError, match=r"a\.png \(not an image of a known format\)"):
        decode(str(path))
    assert header_size(str(path)) is None


@pytest.mark.parametrize("kind", ["JPEG2000", "WEBP", "GIF"])
def test_the_content_of_a_file_decides_not_its_ending(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Image.fromarray(picture(16, 12)), kind))
    assert decode(str(path)).shape == (3, 16, 12)
    assert header_size(str(path)) == (16, 12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_tag_says_unless_its_annotation_gives_the_stored_size(
    kind: str, orientation: int, tmp_path: Path
) -> None:
    stored = picture(24, 40)
    path = tmp_path / "photo"
    path.write_bytes(encoded(Image.fromarray(stored), kind, orientation))
    with Image.open(path) as image:
        plain = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    turned = {
        1: plain,
        2: plain.flip(2),
        3: plain.flip(1, 2),
        4: plain.flip(1),
        5: plain.transpose(1, 2),
        6: plain.transpose(1, 2).flip(2),
        7: plain.transpose(1, 2).flip(1, 2),
        8: plain.transpose(1, 2).flip(1),
    }[orientation]
    shown = tuple(turned.shape[1:])
    for stated in (None, shown, (9, 9)):  # a size that is neither decides nothing
        assert torch.equal(decode(str(path), stated), turned)
        assert header_size(str(path), stated) == shown
    wanted = plain if shown != (24, 40) else turned  # of equal size: as shown, the annotation cannot tell
    assert torch.equal(decode(str(path), (24, 40)), wanted)
    assert header_size(str(path), (24, 40)) == (24, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_always_turned(orientation: int, tmp_path: Path) -> None:
    stored = Image.fromarray(picture(24, 40))
    (tmp_path / "a.tif").write_bytes(encoded(stored, "TIFF", orientation))
    (tmp_path / "a.png").write_bytes(encoded(stored, "PNG", orientation))
    shown = decode(str(tmp_path / "a.png"))
    for stated in (None, (24, 40)):
        assert torch.equal(decode(str(tmp_path / "a.tif"), stated), shown)
        assert header_size(str(tmp_path / "a.tif"), stated) == tuple(shown.shape[1:])


def test_pixels_outside_eight_bits_keep_their_brightness(tmp_path: Path) -> None:
    wide = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    unit = (wide / 65535).astype(np.float32)
    files = {
        "grey16.png": (wide, wide >> 8),
        "grey16.tif": (wide, wide >> 8),
        "int32.tif": (wide.astype(np.int32), wide >> 8),
        "unit.tif": (unit, np.rint(255 * unit)),
    }
    for name, (values, wanted) in files.items():
        Image.fromarray(values).save(tmp_path / name)
        assert np.array_equal(decode(str(tmp_path / name)), np.broadcast_to(wanted, (3, 20, 30))), name
    Image.fromarray(picture(20, 30)).convert("1").save(tmp_path / "bit.png")
    assert set(decode(str(tmp_path / "bit.png")).unique().tolist()) == {0, 255}


@pytest.mark.parametrize("values", [np.float32([[0.0, 300.0]]), np.float32([[-0.5, 1.0]]), np.int32([[0, 1 << 20]])])
def test_pixels_of_unknown_brightness_are_refused_by_name(values: NDArray[Any], tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "depth.tif")
    with pytest.raises(DataError, match=r"cannot decode .*depth\.tif \(its pixels lie in .*8 bits"):
        decode(str(tmp_path / "depth.tif"))


def test_other_kinds_of_pixels_have_one_rule_each(tmp_path: Path) -> None:
    colours = picture(16, 24)
    plain = torch.from_numpy(colours).permute(2, 0, 1)
    transparent = np.dstack([colours, np.tile(np.uint8([0, 255]), (16, 12))])
    Image.fromarray(transparent, "RGBA").save(tmp_path / "alpha.png")
    assert torch.equal(decode(str(tmp_path / "alpha.png")), plain)
    palette = Image.fromarray(colours).quantize(16)
    palette.save(tmp_path / "palette.png", transparency=3)
    assert torch.equal(decode(str(tmp_path / "palette.png")), rgb(palette))
    frames = [Image.fromarray(np.full((16, 24, 3), grey, np.uint8)) for grey in (200, 40)]
    for name in ("moving.gif", "moving.png", "moving.webp", "pages.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert (decode(str(tmp_path / name)).int() - 200).abs().max() <= 2, name


def test_the_content_decides_how_a_file_is_read_and_not_its_ending(tmp_path: Path) -> None:
    for kind in ("PNG", "GIF", "BMP", "PPM"):
        (tmp_path / "named.jpg").write_bytes(encoded(Image.fromarray(picture(8, 8)), kind))
        assert decode(str(tmp_path / "named.jpg")).shape == (3, 8, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_damaged_file_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(picture(64, 64)), kind)
    for data in (b"", b"<html>not found</html>", whole[: len(whole) // 2], whole[:20]):
        (tmp_path / "broken.jpg").write_bytes(data)
        with pytest.raises(DataError, match=r"cannot decode .*broken\.jpg \(.+\); replace or delete"):
            decode(str(tmp_path / "broken.jpg"))
    assert header_size(str(tmp_path / "missing.jpg")) is None


def test_hidden_and_foreign_files_are_not_images() -> None:
    assert all(is_image(f"a{e}") for e in (".jpg", ".JPG", ".jfif", ".png", ".ppm", ".pgm", ".gif", ".tif", ".webp"))
    assert not any(is_image(name) for name in ("._a.jpg", ".a.png", "a.txt", "a.jpg.part", "Thumbs.db", "jpg"))
    assert all(is_hidden(n) for n in (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".DS_Store", "$RECYCLE.BIN"))
    assert not any(is_hidden(n) for n in ("cats", "_cats", "0", "Thumbs"))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [(640, 480), (333, 1000)])
def test_a_jpeg_is_decoded_at_a_fraction_of_its_size_and_other_formats_are_not(
    size: tuple[int, int], orientation: int
) -> None:
    smooth = Image.fromarray(picture(*size)).filter(ImageFilter.GaussianBlur(8))
    data = encoded(smooth, "JPEG", orientation, quality=95)
    whole = decode_bytes(data, "a.jpg")
    for factor in (2, 4, 8):
        found = decode_bytes(data, "a.jpg", factor=factor)
        assert found.shape == (3, -(-whole.shape[1] // factor), -(-whole.shape[2] // factor))
        if size == (640, 480):  # others end in a part of a block, at one edge or the other
            assert (found - F.avg_pool2d(whole.float(), factor)).abs().mean() < 1.5  # grey levels
    stated = decode_bytes(data, "a.jpg", stated=size, factor=4)  # not turned: the annotation gives the stored size
    assert stated.shape == (3, -(-size[0] // 4), -(-size[1] // 4))
    png = encoded(smooth, "PNG", orientation)
    assert torch.equal(decode_bytes(png, "a.png", factor=8), decode_bytes(png, "a.png"))
