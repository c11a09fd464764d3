"""The stand-in's kernels, called through mmcv's own wrappers, against the published definitions in plain Python.

Shape suffixes as in `mlomae.backbones.mmcv_ext`.
"""

import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plain_ops import plain_nms, plain_roi_align, sample_grid
from torch import Tensor

from mlomae.backbones import mmcv_ext
from mlomae.backbones.mmcv_ops import COMPILED, install
from mlomae.common.errors import BackendError

pytest.importorskip("mmcv")
BACKEND = install()
from mmcv import ops  # noqa: E402

HEIGHT, WIDTH = 5, 7


@pytest.fixture(autouse=True, scope="module")
def stand_in() -> Iterator[None]:
    """The wrappers call the stand-in, whatever is installed here."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nms", "roi_align"):
            patch.setattr(sys.modules[f"mmcv.ops.{name}"], "ext_module", mmcv_ext)
        yield


def on_an_edge(rois_R5: Tensor, bins: tuple[int, int], scale: float, ratio: int, aligned: bool) -> bool:
    """Whether a sample lies where the definition jumps, so that the last bit decides."""
    for roi in rois_R5:
        axes = zip(sample_grid(roi[1:], bins, scale, ratio, aligned), (HEIGHT, WIDTH), strict=True)
        for coordinates, size in axes:
            if any(min(abs(v + 1), abs(v - size)) < 1e-9 for values in coordinates for v in values):
                return True
    return False


coordinate = st.one_of(st.integers(-4, 18).map(float), st.floats(-9, 30))  # whole ones: empty, inverted and equal boxes
roi = st.tuples(st.integers(0, 1).map(float), coordinate, coordinate, coordinate, coordinate)
setting = st.tuples(
    st.tuples(st.integers(1, 3), st.integers(1, 3)), st.sampled_from([1.0, 0.5, 0.25]), st.integers(0, 2), st.booleans()
)


@given(st.lists(roi, min_size=1, max_size=4), setting, st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_roi_align_and_its_adjoint_are_the_published_definition(rois, how, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 2, HEIGHT, WIDTH, dtype=torch.float64, generator=generator, requires_grad=True)
    rois_R5 = torch.tensor(rois, dtype=torch.float64).reshape(-1, 5)
    bins, scale, ratio, aligned = how
    assume(not on_an_edge(rois_R5, *how))
    out = ops.roi_align(features, rois_R5, bins, scale, ratio, "avg", aligned)
    torch.testing.assert_close(out, plain_roi_align(features.detach(), rois_R5, *how), rtol=1e-9, atol=1e-9)
    weight = torch.randn(out.shape, dtype=torch.float64, generator=generator)
    (gradient,) = torch.autograd.grad((out * weight).sum(), features)
    # Linear in the features: the adjoint of the published operator, not only of the one that ran.
    probe = torch.randn(features.shape, dtype=torch.float64, generator=generator)
    expected = (plain_roi_align(probe, rois_R5, *how) * weight).sum()
    torch.testing.assert_close((gradient * probe).sum(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_gradcheck_of_the_layer(aligned: bool, ratio: int) -> None:
    features = torch.randn(2, 2, HEIGHT, WIDTH, dtype=torch.float64, requires_grad=True)
    rois_R5 = torch.tensor([[0, 1, 1, 9, 7], [1, -3, 2, 4, 2], [1, 8, 8, 3, 4]], dtype=torch.float64)
    layer = ops.RoIAlign((2, 3), 0.5, ratio, "avg", aligned)
    assert torch.autograd.gradcheck(lambda x: layer(x, rois_R5), (features,))


def test_roi_align_in_closed_form() -> None:
    ramp = torch.arange(WIDTH, dtype=torch.float32).expand(1, 1, HEIGHT, WIDTH)
    box = torch.tensor([[0.0, 1, 1, 5, 3]])
    # On f(x) = x a bin's mean is f at its middle: the centres of four bins of width 1 from x = 1, less half a pixel.
    assert ops.roi_align(ramp, box, (1, 4), 1.0, 0, "avg", True).flatten().tolist() == [1, 2, 3, 4]
    assert ops.roi_align(ramp, box, (1, 4), 1.0, 0, "avg", False).flatten().tolist() == [1.5, 2.5, 3.5, 4.5]
    ones = torch.ones(1, 1, HEIGHT, WIDTH)
    on_the_edge = torch.tensor([[0.0, -1.5, -1.5, -0.5, -0.5], [0.0, -1.75, -1.75, -0.75, -0.75]])
    assert ops.roi_align(ones, on_the_edge, 1, 1.0, 1, "avg", False).flatten().tolist() == [1, 0]


def test_boxes_without_area_and_inverted_ones() -> None:
    ones = torch.ones(1, 1, HEIGHT, WIDTH, requires_grad=True)
    rois_R5 = torch.tensor([[0.0, 3, 3, 3, 3], [0, 2, 2, 2, 4], [0, 4, 2, 2, 4], [0, 2, 4, 4, 2], [0, 4, 4, 2, 2]])
    out = ops.roi_align(ones, rois_R5, 2, 1.0, 0, "avg", True)
    assert not out.any()
    assert not torch.autograd.grad(out.sum(), ones)[0].any()
    assert (ops.roi_align(ones, rois_R5, 2, 1.0, 0, "avg", False) == 1).all()
    assert rois_R5[2].tolist() == [0, 4, 2, 2, 4]  # the caller's boxes are left alone


@pytest.mark.parametrize("images", [0, 2])
def test_roi_align_without_boxes(images: int) -> None:
    features = torch.ones(images, 3, HEIGHT, WIDTH, requires_grad=True)
    out = ops.roi_align(features, torch.zeros(0, 5), (2, 3), 1.0, 0, "avg", True)
    assert out.shape == (0, 3, 2, 3)
    out.sum().backward()
    assert features.grad is not None
    assert features.grad.shape == features.shape
    assert not features.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_roi_align_in_half_precision_rounds_once(dtype: torch.dtype, autocast: bool) -> None:
    features = torch.randn(1, 4, 16, 16).to(dtype).requires_grad_()
    rois_R5 = torch.tensor([[0.0, 1, 2, 13, 11], [0, 0, 0, 16, 16]])
    with torch.autocast("cpu", dtype, enabled=autocast):
        out = ops.roi_align(features, rois_R5.to(dtype), 7, 1.0, 0, "avg", True)
        out.float().square().sum().backward()
    single = features.detach().float().requires_grad_()
    expected = ops.roi_align(single, rois_R5, 7, 1.0, 0, "avg", True)
    assert out.dtype == dtype
    assert torch.equal(out, expected.to(dtype))
    assert features.grad is not None
    assert features.grad.dtype == dtype
    (gradient,) = torch.autograd.grad(expected, single, 2 * out.detach().float())
    torch.testing.assert_close(features.grad, gradient.to(dtype))


corner, side = st.integers(0, 8).map(float), st.integers(0, 6).map(float)
box = st.tuples(corner, corner, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
scored = st.lists(st.tuples(box, st.integers(0, 5).map(lambda s: s / 5)), max_size=12)


@given(scored, st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0]), st.integers(0, 1))
@settings(max_examples=200, deadline=None)
def test_nms_is_greedy_suppression(pairs, threshold: float, offset: int) -> None:
    boxes, scores = [b for b, _ in pairs], [s for _, s in pairs]
    boxes_N4 = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    dets, kept = ops.nms(boxes_N4, torch.tensor(scores, dtype=torch.float64), threshold, offset)
    assert kept.dtype == torch.int64
    assert kept.tolist() == plain_nms(boxes, scores, threshold, offset)
    assert torch.equal(dets[:, :4], boxes_N4[kept])


def test_nms_offset_decides() -> None:
    """Neighbours that share an edge: disjoint as edges; as pixels they share a column: 5 of 25 + 25 - 5, 1/9."""
    boxes, scores = torch.tensor([[0.0, 0, 4, 4], [4, 0, 8, 4]]), torch.tensor([0.5, 0.9])
    assert ops.nms(boxes, scores, 0.1, offset=0)[1].tolist() == [1, 0]
    assert ops.nms(boxes, scores, 0.1, offset=1)[1].tolist() == [1]
    assert ops.nms(boxes, scores, 0.12, offset=1)[1].tolist() == [1, 0]
    dets, kept = ops.nms(boxes.numpy(), scores.numpy(), 0.1, score_threshold=0.6, max_num=1)
    assert isinstance(dets, np.ndarray)
    assert kept.tolist() == [1]


@pytest.mark.parametrize("dtypes", [(torch.float16,) * 2, (torch.bfloat16,) * 2, (torch.float32, torch.float16)])
def test_nms_in_half_precision(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    boxes, scores = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [6, 0, 8, 4]]), torch.tensor([0.25, 0.5, 0.75])
    dets, kept = ops.nms(boxes.to(dtypes[0]), scores.to(dtypes[1]), 0.5)
    assert kept.tolist() == [2, 1]
    assert dets.dtype == dtypes[0]


@given(scored, st.lists(st.integers(0, 2), min_size=12, max_size=12), st.sampled_from([2, 10_000]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_batched_nms_suppresses_within_a_class(pairs, classes: list[int], split: int, agnostic: bool) -> None:
    """``split`` 2 takes the path for many boxes, a class at a time."""
    boxes, scores = [b for b, _ in pairs], [s + i / 1000 for i, (_, s) in enumerate(pairs)]  # no ties
    classes = [0] * len(boxes) if agnostic else classes[: len(boxes)]
    assume(boxes)
    config = {"type": "nms", "iou_threshold": 0.5, "split_thr": split}
    _, kept = ops.batched_nms(
        torch.tensor(boxes), torch.tensor(scores), torch.tensor(classes), config, class_agnostic=agnostic
    )
    expected: list[int] = []
    for name in set(classes):
        members = [i for i, c in enumerate(classes) if c == name]
        chosen = plain_nms([boxes[i] for i in members], [scores[i] for i in members], 0.5, 0)
        expected += [members[i] for i in chosen]
    assert kept.tolist() == sorted(expected, key=lambda i: -scores[i])


def test_maximum_is_refused() -> None:
    features = torch.ones(1, 1, HEIGHT, WIDTH)
    with pytest.raises(BackendError, match=r"pool_mode='max' is not in torchvision; use pool_mode='avg' or install"):
        ops.RoIAlign(2, pool_mode="max")(features, torch.zeros(1, 5))


GPU = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")])


def results(device: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """What the operators give for 200 boxes: kept ones, pooled values and their gradients; in single precision."""
    generator = torch.Generator().manual_seed(0)
    corners = 40 * torch.rand(200, 2, generator=generator)
    boxes = torch.cat([corners, corners + 30 * torch.rand(200, 2, generator=generator)], dim=1).to(device, dtype)
    scores = torch.rand(200, generator=generator).to(device, dtype)
    rois_R5 = torch.cat([torch.randint(2, (200, 1), generator=generator).to(boxes), boxes], dim=1)
    features = torch.randn(2, 3, 20, 24, generator=generator).to(device, dtype).requires_grad_()
    out = [ops.nms(boxes, scores, t, offset)[1] for t in (0.3, 0.7) for offset in (0, 1)]
    for ratio, aligned in ((0, True), (0, False), (2, True), (2, False)):
        pooled = ops.roi_align(features, rois_R5, 7, 0.5, ratio, "avg", aligned)
        out += [pooled.detach().float(), torch.autograd.grad(pooled.square().sum(), features)[0].float()]
    assert all(tensor.device.type == device for tensor in out)
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("device", [GPU])
def test_a_gpu_agrees(device: str, dtype: torch.dtype) -> None:
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2  # half precision rounds values that differ in the last bit
    for ours, expected in zip(results(device, dtype), results("cpu", dtype), strict=True):
        torch.testing.assert_close(ours.cpu(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(BACKEND != COMPILED, reason="mmcv has no compiled operators here")
@pytest.mark.parametrize("device", ["cpu", GPU])
def test_compiled_operators_agree(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = results(device)
    for name in ("nms", "roi_align"):
        monkeypatch.setattr(sys.modules[f"mmcv.ops.{name}"], "ext_module", sys.modules["mmcv._ext"])
    for tensor, compiled in zip(ours, results(device), strict=True):
        torch.testing.assert_close(tensor, compiled, rtol=1e-4, atol=1e-4)
