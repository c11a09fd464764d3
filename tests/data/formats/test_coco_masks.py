"""Masks of COCO files: faults against brute force, forms against pycocotools, storage that gives back what it got."""

import math
import pickle
import sys
from typing import Any

import numpy as np
import pytest
import torch
from coco_layouts import compress
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mlomae.common.errors import BackendError
from mlomae.data.formats.coco_masks import FORMS, Masks, are_numbers, encode, expand, has_outline, mask_fault
from mlomae.data.write import run_lengths

few = settings(max_examples=60, deadline=None)
bitmaps = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans())
coordinates = st.floats(-50, 50, allow_nan=False).map(lambda v: round(v, 2))
polygons = st.lists(st.lists(coordinates, min_size=6, max_size=12).map(lambda p: p[: len(p) // 2 * 2]), min_size=1)


def runs_of(mask: np.ndarray) -> list[int]:
    return run_lengths(torch.from_numpy(mask))


def drawn(runs: list[int], height: int, width: int) -> np.ndarray:
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T


@few
@given(bitmaps)
def test_all_forms_of_a_mask_have_no_fault_and_the_same_pixels(mask: np.ndarray) -> None:
    tools = pytest.importorskip("pycocotools.mask")
    size, runs = list(mask.shape), runs_of(mask)
    text = tools.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert compress(runs) == text
    assert expand(text) == runs
    assert np.array_equal(drawn(runs, *size), mask)
    for counts in (runs, text):
        form = {"size": size, "counts": counts}
        assert mask_fault(form, *size) is None
        assert np.array_equal(tools.decode(encode(form, *size)), mask)


def test_long_runs_and_negative_differences_are_expanded() -> None:
    tools = pytest.importorskip("pycocotools.mask")
    for runs in ([700_000, 1, 200_000, 99, 99_900], [0, 5, 500_000, 3, 1, 499_991], [1_000_000]):
        mask = drawn(runs, 1000, 1000)
        text = tools.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        assert expand(text) == runs
        assert compress(runs) == text


@few
@given(bitmaps, st.data())
def test_run_lengths_that_do_not_add_up_are_a_fault(mask: np.ndarray, data: st.DataObject) -> None:
    runs, at = runs_of(mask), data.draw(st.integers(0, 100))
    change = data.draw(st.integers(-20, 20).filter(bool))
    runs[at % len(runs)] += change
    for counts in (runs, compress(runs)):
        assert "run length" in str(mask_fault({"size": list(mask.shape), "counts": counts}, *mask.shape))


@few
@given(bitmaps, st.integers(0, 3), st.integers(0, 3))
def test_run_lengths_of_another_size_are_a_fault(mask: np.ndarray, more_rows: int, more_columns: int) -> None:
    height, width = mask.shape[0] + more_rows, mask.shape[1] + more_columns
    fault = mask_fault({"size": list(mask.shape), "counts": runs_of(mask)}, height, width)
    assert (fault is None) == (more_rows == more_columns == 0)
    assert fault is None or f"its image [{height}, {width}]" in fault


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(min_codepoint=40, max_codepoint=130), max_size=12), st.integers(1, 6), st.integers(1, 6))
def test_any_text_is_a_fault_or_a_whole_mask(text: str, height: int, width: int) -> None:
    if mask_fault({"size": [height, width], "counts": text}, height, width) is None:
        runs = expand(text)
        assert min(runs) >= 0
        assert drawn(runs, height, width).shape == (height, width)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.sampled_from(["size", "counts"]), inner),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(anything)
def test_what_has_no_fault_can_be_kept_and_drawn(mask: Any) -> None:
    if mask_fault(mask, 2, 2) is None:
        kept = Masks([mask])
        assert len(kept.forms) == 1
        if has_outline(mask):
            pytest.importorskip("pycocotools.mask").decode(encode(kept[0], 2, 2))


@few
@given(polygons)
def test_polygons_have_no_fault_until_a_number_is_lost(polygons: list[list[float]]) -> None:
    assert mask_fault(polygons, 10, 10) is None
    polygons[-1].pop()
    assert "the last an x without y" in str(mask_fault(polygons, 10, 10))


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (None, "neither a list of polygons nor run lengths"),
        ("abc", "neither a list of polygons nor run lengths"),
        ({"counts": [4]}, "neither a list of polygons nor run lengths"),
        ({"size": [2, 2]}, "neither a list of polygons nor run lengths"),
        ([], "is empty"),
        ([1, 2, 3, 4, 5, 6], "is not a list of polygons"),
        ([[1, 2, 3, 4, 5, 6], {}], "is not a list of polygons"),
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3]], "a polygon of 3 numbers, the last an x without y"),
        ([[1, 2, 3, 4, 5, "6"]], "not a pixel position"),
        ([[1, 2, 3, 4, 5, True]], "not a pixel position"),
        ([[1, 2, 3, 4, 5, None]], "not a pixel position"),
        ([[1, 2, math.nan, 4, 5, 6]], "not a pixel position"),
        ([[math.nan, 2, 3, 4, 5, 6]], "not a pixel position"),
        ([[1, 2, 3, 4, 5, math.inf]], "not a pixel position"),
        ([[1, 2, 3, -1e9, 5, 6]], "not a pixel position"),
        ([[1, 2, 3, 4, 5, 10**400]], "not a pixel position"),
        ({"size": [2, 3], "counts": [6]}, "has size [2, 3], its image [2, 2]"),
        ({"size": None, "counts": [4]}, "has size None"),
        ({"size": [2, 2], "counts": [3]}, "do not add up to the 4 pixels"),
        ({"size": [2, 2], "counts": []}, "do not add up to the 4 pixels"),
        ({"size": [2, 2], "counts": [10**400]}, "do not add up to the 4 pixels"),
        ({"size": [2, 2], "counts": [5, -1]}, "a negative run length"),
        ({"size": [2, 2], "counts": [4.0]}, "not whole numbers"),
        ({"size": [2, 2], "counts": ["4"]}, "not whole numbers"),
        ({"size": [2, 2], "counts": 4}, "not whole numbers"),
        ({"size": [2, 2], "counts": "T"}, "damaged"),
        ({"size": [2, 2], "counts": "4\n"}, "damaged"),
        ({"size": [2, 2], "counts": "4é"}, "damaged"),
        ({"size": [2, 2], "counts": "PPPPPPPPPP0"}, "damaged"),
        ({"size": [2, 2], "counts": "44"}, "do not add up"),
        ({"size": [2, 2], "counts": "5O"}, "a negative run length"),
        ({"size": [2, 2], "counts": ""}, "do not add up"),
    ],
)
def test_faults(mask: Any, said: str) -> None:
    fault = mask_fault(mask, 2, 2)
    assert said in str(fault)
    assert len(str(fault)) < 150


def test_numbers() -> None:
    assert are_numbers([])
    assert are_numbers([1, -2.5, 1_000_000])
    assert are_numbers([5e6], most=1e7)
    for odd in ([True], [None], ["1"], [[1]], [1e7], [math.nan], [3, math.nan, 4], [math.inf, -math.inf], [-(10**400)]):
        assert not are_numbers(odd)


@few
@given(st.lists(bitmaps.map(lambda mask: (mask.shape, runs_of(mask))) | polygons, max_size=6), st.randoms())
def test_masks_come_back_as_they_were(made: list[Any], random: Any) -> None:
    masks = []
    for entry in made:
        polygon = isinstance(entry, list)
        text = random.random() < 0.5
        counts = None if polygon else compress(entry[1]) if text else entry[1]
        masks.append(entry if polygon else {"size": list(entry[0]), "counts": counts})
    kept = pickle.loads(pickle.dumps(Masks(masks)))
    assert [kept[n] for n in range(len(masks))] == masks
    assert len(kept.forms) == len(masks)
    forms = ["polygons" if isinstance(m, list) else "run" if isinstance(m["counts"], list) else "text" for m in masks]
    assert [("polygons", "run", "text")[form] for form in kept.forms] == forms
    assert len(FORMS) == 3


def test_polygons_without_area_are_left_out() -> None:
    mask = [[1, 2, 3, 4], [1, 1, 5, 1, 5, 5], []]
    assert mask_fault(mask, 9, 9) is None
    assert has_outline(mask)
    assert not has_outline([[1, 2, 3, 4]])
    assert Masks([mask])[0] == [[1, 1, 5, 1, 5, 5]]


def test_content_tells_masks_apart() -> None:
    run = {"size": [3, 4], "counts": [1, 11]}
    masks = [run, [[1, 2, 3, 4, 5, 6]], {"size": [3, 4], "counts": compress([1, 11])}, run]
    masks += [[[1, 2, 3, 4, 5, 6, 7, 8], [1] * 6], [[1, 2, 3, 4, 5, 6], [7, 8] + [1] * 6]]  # the same numbers
    kept = Masks(masks)
    one = [kept.content(n, n + 1) for n in range(len(masks))]
    assert one[0] == one[3] == Masks([run]).content(0, 1)
    assert len(set(one)) == len(masks) - 1
    assert kept.content(2, 2) == b""
    numbers = [1, 2, 3, 4, 5, 6]
    same = [[[numbers, numbers], [numbers]], [[numbers], [numbers, numbers]], [{"counts": numbers}] * 3]
    assert len({Masks(masks).content(0, len(masks)) for masks in same}) == 3
    assert Masks([[numbers]]).content(0, 1) != Masks([{"counts": numbers}]).content(0, 1)
    assert kept.content(0, 4) == Masks(masks[:4]).content(0, 4)


def test_without_pycocotools_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(BackendError, match=r"^pycocotools is not installed; .* install .*\[benchmarks\]'"):
        encode([[1, 2, 3, 4, 5, 6]], 9, 9)
