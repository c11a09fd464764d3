"""The chain against one that nobody here wrote: torchvision's Mask R-CNN, and COCO's numbers as its references do them.

Shape suffixes: R boxes, K classes, C channels, P x P bins, H x W pixels.
"""

from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import det_runs
import numpy as np
import pytest
import torch
from coco_layouts import boxes_of, masks_of
from mmcv.ops import RoIAlign, batched_nms
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from pycocotools import mask as tools
from torch import Tensor, nn
from torchvision import ops
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator

from benchmarks.tasks.detection.metric import DetectionMetric
from mlomae.data import Textures, build_detections
from mlomae.data.write import write_coco

SIZE, COUNT, CLASSES, WIDTH, STRIDES = 192, 6, 8, 8, (4, 8)
FINEST = 16
"""Boxes of twice this side or more are pooled from the map of stride 8."""


class TinyBackbone(nn.Module):
    """Maps of strides 4 and 8."""

    out_channels = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.shallow, self.deep = nn.Conv2d(3, WIDTH, 7, 4, 3), nn.Conv2d(WIDTH, WIDTH, 3, 2, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        shallow = self.shallow(images)
        return OrderedDict({"0": shallow, "1": self.deep(shallow.relu())})


class Seen(NamedTuple):
    """Images in COCO's format; torchvision's model, its predictions, and what its parts were given."""

    root: Path
    model: Any
    predictions: list[dict[str, Tensor]]
    pooled: dict[str, tuple[dict[str, Tensor], list[Tensor], list[tuple[int, int]]]]
    scored: tuple[Tensor, Tensor, list[Tensor], list[tuple[int, int]]]


@pytest.fixture(scope="module")
def seen(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    textures = Textures("test", size=SIZE, count=COUNT, mixed=True, objects=(1, 4), radius=(0.12, 0.5))
    root = write_coco(tmp_path_factory.mktemp("torchvision") / "coco", {"val": textures})
    torch.manual_seed(0)
    pools = {
        f"{kind}_roi_pool": ops.MultiScaleRoIAlign(["0", "1"], bins, 2, canonical_scale=FINEST, canonical_level=2)
        for kind, bins in (("box", 7), ("mask", 14))
    }
    model = MaskRCNN(
        TinyBackbone(),
        CLASSES + 1,
        min_size=SIZE,
        max_size=SIZE,
        rpn_anchor_generator=AnchorGenerator(((16, 32), (48, 96)), ((0.5, 1.0, 2.0),) * 2),
        box_detections_per_img=20,
        rpn_post_nms_top_n_test=200,
        **pools,
    ).eval()
    predictor, heads = model.roi_heads.box_predictor, model.rpn.head
    for layer in (predictor.cls_score, predictor.bbox_pred, heads.cls_logits, heads.bbox_pred):
        nn.init.normal_(layer.weight, std=0.4)  # boxes of all sizes that move, scores above the threshold
    pooled, scored = {}, []
    for name in pools:
        pool = getattr(model.roi_heads, name)
        pool.register_forward_hook(lambda module, given, out, name=name: pooled.__setitem__(name, given))
    post = model.roi_heads.postprocess_detections
    model.roi_heads.postprocess_detections = lambda *given: scored.append(given) or post(*given)
    with torch.no_grad():
        predictions = model([textures.image(i).float() / 255 for i in range(COUNT)])
    assert all(len(found["boxes"]) for found in predictions)
    return Seen(root, model, predictions, pooled, scored[0])


def rois_of(boxes: list[Tensor]) -> Tensor:
    """(R, 5): image, x1, y1, x2, y2."""
    return torch.cat([torch.cat([torch.full((len(b), 1), float(i)), b], dim=1) for i, b in enumerate(boxes)])


def gradients(out: Tensor, maps: list[Tensor]) -> tuple[Tensor, ...]:
    weight = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    return torch.autograd.grad((out * weight).sum(), maps)


@pytest.mark.parametrize(("part", "bins"), [("box_roi_pool", 7), ("mask_roi_pool", 14)])
def test_pooled_features_are_those_of_torchvisions_model(part: str, bins: int, seen: Seen) -> None:
    """torchvision pools without the shift by half a pixel (aligned=False) and 2 x 2 samples a bin; so does mmdet when
    told to, and both take a box from the same map."""
    features, boxes, shapes = seen.pooled[part]
    maps = [features[name].clone().requires_grad_() for name in ("0", "1")]
    expected = getattr(seen.model.roi_heads, part)(OrderedDict(zip("01", maps, strict=True)), boxes, shapes)
    layer = {"type": "RoIAlign", "output_size": bins, "sampling_ratio": 2, "aligned": False}
    with DefaultScope.overwrite_default_scope("mmdet"):
        ours = SingleRoIExtractor(layer, WIDTH, list(STRIDES), finest_scale=FINEST)
    levels = ours.map_roi_levels(rois_of(boxes), 2)
    assert len(levels.unique()) == 2, "both maps are used"
    out = ours(maps, rois_of(boxes))
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    for a, b in zip(gradients(out, maps), gradients(expected, maps), strict=True):
        assert b.any()
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    with DefaultScope.overwrite_default_scope("mmdet"):
        shifted = SingleRoIExtractor({**layer, "aligned": True}, WIDTH, list(STRIDES), finest_scale=FINEST)
    assert float((shifted(maps, rois_of(boxes)) - expected).detach().abs().max()) > 1e-3, "the shift is seen"


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_is_torchvisions(aligned: bool, ratio: int, seen: Seen) -> None:
    """The layer of our recipes is aligned=True with sampling_ratio=0: as many samples as the box has pixels, which
    torchvision calls -1."""
    features, boxes, _ = seen.pooled["box_roi_pool"]
    map_ = features["1"].clone().requires_grad_()
    out = RoIAlign(7, 1 / STRIDES[1], ratio, "avg", aligned)(map_, rois_of(boxes))
    expected = ops.roi_align(map_, boxes, 7, 1 / STRIDES[1], ratio or -1, aligned)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients(out, [map_])[0], gradients(expected, [map_])[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("count", [1, 100, 3000])
def test_suppression_by_class_is_torchvisions(count: int, threshold: float) -> None:
    torch.manual_seed(count)
    corners = 100 * torch.rand(count, 2)
    boxes, scores = torch.cat([corners, corners + 5 + 40 * torch.rand(count, 2)], dim=1), torch.rand(count)
    classes = torch.randint(CLASSES, (count,))
    expected = ops.batched_nms(boxes, scores, classes, threshold)
    found, kept = batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": threshold})
    assert kept.tolist() == expected.tolist()
    assert torch.equal(found, torch.cat([boxes, scores[:, None]], dim=1)[expected])
    if count > 100:
        assert kept.numel() > ops.nms(boxes, scores, threshold).numel(), "classes matter"


def test_detections_from_scores_and_deltas_are_torchvisions(seen: Seen) -> None:
    """mmdet's head on what torchvision's was given: decoding, threshold, suppression, the best 20. Its background is
    the last class, torchvision's the first and with deltas that nobody reads."""
    scores, deltas, proposals, shapes = seen.scored
    coder = {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": [0.1, 0.1, 0.2, 0.2]}
    with DefaultScope.overwrite_default_scope("mmdet"):
        head = Shared2FCBBoxHead(in_channels=WIDTH, roi_feat_size=7, num_classes=CLASSES, bbox_coder=coder)
    settings = {"score_thr": 0.05, "nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 20}
    counts = [len(boxes) for boxes in proposals]
    found = head.predict_by_feat(
        rois_of(proposals).split(counts),
        scores.roll(-1, dims=1).split(counts),
        deltas[:, 4:].contiguous().split(counts),
        [{"img_shape": shape} for shape in shapes],
        ConfigDict(settings),
    )
    for ours, theirs in zip(found, seen.predictions, strict=True):
        assert (ours.labels + 1).tolist() == theirs["labels"].tolist()
        torch.testing.assert_close(ours.scores, theirs["scores"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.bboxes, theirs["boxes"], rtol=1e-5, atol=1e-4)
    assert len({int(label) for theirs in seen.predictions for label in theirs["labels"]}) > 2


# --- COCO's numbers ---------------------------------------------------------------------------------------------------


def detections(seen: Seen, shift: int = 0) -> list[dict[str, Any]]:
    """For each image torchvision's (R, 4) boxes, (R,) scores and labels from 1, (R, H, W) masks; among them the truth,
    moved, partly in other classes, partly lost. All ``shift`` pixels to the right."""
    draw = np.random.default_rng(0)
    source = build_detections({"type": "coco_folder", "root": str(seen.root), "split": "val"})
    made = []
    for i, found in enumerate(seen.predictions):
        shown = [k for k in range(len(boxes_of(source, i))) if draw.uniform() < 0.9]
        boxes, masks, labels = [], [], []
        for k in shown:
            x, y = draw.integers(-3, 4, size=2).tolist()
            left, top, width, height = boxes_of(source, i)[k].tolist()
            boxes.append([left + x, top + y, left + x + width * draw.uniform(0.9, 1.1), top + y + height])
            masks.append(masks_of(source, i)[k].roll((y, x), dims=(0, 1)))
            labels.append(1 + (source.annotations(i)[k]["category"] + int(draw.uniform() < 0.2)) % CLASSES)
        near = {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}
        near["scores"] = torch.from_numpy(draw.uniform(0.1, 1.0, len(shown)).astype(np.float32))
        near["masks"] = torch.stack(masks) if masks else torch.zeros(0, SIZE, SIZE, dtype=torch.bool)
        whole = {**found, "masks": found["masks"][:, 0] > 0.5}
        both = {key: torch.cat([near[key], whole[key]]) for key in near}
        both["boxes"] = both["boxes"].float() + torch.tensor([shift, 0, shift, 0])
        made.append({**both, "masks": both["masks"].roll(shift, dims=2), "image": int(source.image_ids[i])})
    return made


def ours(seen: Seen, found: list[dict[str, Any]]) -> dict[str, float]:
    metric = DetectionMetric(det_runs.opened(det_runs.annotation_file(seen.root, "val")))
    for image in found:
        instances = {"bboxes": image["boxes"], "scores": image["scores"], "labels": image["labels"] - 1}
        pred = InstanceData(**instances, masks=image["masks"])
        metric.process([SimpleNamespace(img_id=image["image"], pred_instances=pred)])
    return metric.evaluate(COUNT)


def theirs(seen: Seen, found: list[dict[str, Any]], kind: str) -> dict[str, float]:
    """As torchvision's references/detection/coco_eval.py prepares results: widths in float32, masks run by run."""
    lines = []
    for image in found:
        x0, y0, x1, y1 = image["boxes"].unbind(1)
        boxes = torch.stack((x0, y0, x1 - x0, y1 - y0), dim=1).tolist()
        for box, label, score, mask in zip(boxes, image["labels"], image["scores"], image["masks"], strict=True):
            runs = tools.encode(np.array(mask.numpy()[:, :, None], dtype=np.uint8, order="F"))[0]
            runs["counts"] = runs["counts"].decode("utf-8")
            lines.append({"image_id": image["image"], "category_id": label.item(), "score": score.item()})
            lines[-1] |= {"bbox": box, "segmentation": runs}
    return det_runs.coco_numbers(det_runs.annotation_file(seen.root, "val"), lines, kind)


def test_numbers_are_those_of_pycocotools_as_torchvision_runs_it(seen: Seen) -> None:
    found = detections(seen)
    numbers, moved = ours(seen, found), ours(seen, detections(seen, shift=3))
    for kind in ("box", "mask"):
        expected = theirs(seen, found, kind)
        reported = {name: 100 * expected[name] for name in expected if name not in ("AR1", "AR10")}
        assert {k: v for k, v in numbers.items() if k.startswith(kind)} == pytest.approx(
            {f"{kind}_{name}": value for name, value in reported.items() if value >= 0}, abs=1e-9
        )
        assert 10 < numbers[f"{kind}_AP"] < 90
        assert {f"{kind}_AP_{size}" for size in ("small", "medium", "large")} <= numbers.keys()
        shifted = theirs(seen, detections(seen, shift=3), kind)
        assert numbers[f"{kind}_AP"] - moved[f"{kind}_AP"] > 1, "three pixels are seen"
        assert moved[f"{kind}_AP"] == pytest.approx(100 * shifted["AP"], abs=1e-9)
