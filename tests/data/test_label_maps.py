"""The rule that turns the values of an annotation into labels, and the headers that are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scene_layouts import png_header

from mlomae.common.errors import DataError
from mlomae.data import IGNORE
from mlomae.data.reader import read_bytes
from mlomae.data.scenes import HEADER, Fault, header_fault, read_labels


def save(path: Path, values_HW: np.ndarray, mode: str) -> str:
    """``values_HW`` as grey of 8 or 16 bits, or as indices of a palette of random colours."""
    image = Image.fromarray(values_HW.astype(np.uint16 if mode == "I;16" else np.uint8))
    if mode == "P":
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    assert image.mode == mode
    image.save(path)
    return str(path)


def fault_of(path: str, size: tuple[int, int]) -> Fault | None:
    return header_fault(read_bytes(path, HEADER), size, Path(path).name)


@given(
    classes=st.integers(1, 255),
    shape=hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    mode=st.sampled_from(["L", "P", "I;16"]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_value_0_is_ignored_and_value_k_is_label_k_less_one(classes, shape, mode, data, tmp_path: Path) -> None:
    values_HW = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(0, classes)))
    path = save(tmp_path / "a.png", values_HW, mode)
    assert fault_of(path, shape) is None
    labels_HW = read_labels(path, classes, "remedy")
    assert labels_HW.dtype == torch.uint8
    assert labels_HW.shape == shape
    expected = {0: IGNORE, **{k: k - 1 for k in range(1, classes + 1)}}
    assert labels_HW.tolist() == [[expected[v] for v in row] for row in values_HW.tolist()]


@pytest.mark.parametrize(("mode", "value"), [("L", 151), ("L", 255), ("P", 200), ("I;16", 300), ("I;16", 65535)])
def test_a_value_above_the_classes_names_file_value_and_classes(mode: str, value: int, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[150, value], [0, 1]]), mode)
    with pytest.raises(DataError) as error:
        read_labels(path, 150, "do this")
    assert str(error.value) == f"{path} has the value {value}, above its 150 classes; do this"


@pytest.mark.parametrize(
    ("bits", "colour", "said", "remedy"),
    [
        (8, 2, "are RGB pictures", "convert the colours to class numbers"),
        (8, 6, "are RGB pictures", "convert the colours to class numbers"),
        (8, 4, "have an alpha channel", "single-channel"),
        (1, 0, "grey with 1 bits", "8 bits"),
        (2, 0, "grey with 2 bits", "8 bits"),
        (4, 0, "grey with 4 bits", "8 bits"),
        (4, 3, None, ""),
        (8, 3, None, ""),
        (8, 0, None, ""),
        (16, 0, None, ""),
    ],
)
def test_headers(bits: int, colour: int, said: str | None, remedy: str, tmp_path: Path) -> None:
    png_header(tmp_path / "a.png", (5, 7), bits, colour)
    fault = fault_of(str(tmp_path / "a.png"), (5, 7))
    if said is None:
        assert fault is None
    else:
        assert fault is not None
        assert said in fault.what
        assert remedy in fault.remedy
        assert fault.example == "a.png"


def test_grey_of_few_bits_is_refused_because_pillow_scales_it(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert np.array(image.convert("L")).tolist() == [[255, 0]]
    assert fault_of(str(tmp_path / "a.png"), (1, 2)) is not None


def test_sizes_and_files_that_are_no_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    png_header(path, (5, 7), 8, 0)
    fault = fault_of(str(path), (7, 5))
    assert fault is not None
    assert fault.example == "a.png: 5x7 against 7x5 pixels"
    for content in (b"", path.read_bytes()[:20], b"\xff\xd8\xff" + bytes(40)):
        path.write_bytes(content)
        fault = fault_of(str(path), (5, 7))
        assert fault is not None
        assert fault.what == "are not PNG files"
    with pytest.raises(DataError, match="cannot read"):
        fault_of(str(tmp_path / "gone.png"), (5, 7))


@pytest.mark.parametrize("kept", [30, 60])
def test_damaged_files_are_named_in_one_line(kept: int, tmp_path: Path) -> None:
    path = Path(save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 9, (40, 40)), "L"))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError) as error:
        read_labels(str(path), 9, "remedy")
    assert str(error.value).startswith(f"cannot decode {path} (")
    assert "\n" not in str(error.value)
