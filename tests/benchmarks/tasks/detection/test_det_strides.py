"""Anchors and regions lie where the backbone's maps have their cells, whatever its patch size."""

from pathlib import Path
from typing import Any

import det_runs
import pytest
import torch
from run_samples import one_line

from benchmarks.tasks.detection.model import build_detector
from mlomae.backbones.provenance import describe_weights
from mlomae.backbones.results import described
from mlomae.common.errors import ConfigError
from mlomae.records import config_hash

STRIDES = {2: ([1, 2, 4, 8], [1, 2, 4]), 4: ([2, 4, 8, 16], [2, 4, 8]), 8: ([4, 8, 16, 32], [4, 8, 16])}
PYRAMID = [
    {"type": "mmseg.Feature2Pyramid", "rescales": [4, 2, 1, 0.5], "norm_cfg": {"type": "BN"}},
    {"type": "FPN", "in_channels": [16] * 4, "out_channels": 32, "num_outs": 5},
]


def model_of(patch: int) -> dict[str, Any]:
    return {"patch_size": patch, "embed_dim": 16, "depth": 4, "num_heads": 2}


@pytest.mark.parametrize("patch", STRIDES)
def test_strides_follow_from_the_patch_size(patch: int, coco: Path) -> None:
    detector, _ = build_detector(det_runs.config(coco, backbone__model=model_of(patch)), det_runs.CLASSES)
    anchors, regions = STRIDES[patch]
    assert [width for width, _ in detector.rpn_head.prior_generator.strides] == anchors
    assert detector.roi_head.bbox_roi_extractor.featmap_strides == regions
    assert detector.roi_head.mask_roi_extractor.featmap_strides == regions
    sizes = [map_BChw.shape[-2:] for map_BChw in detector.extract_feat(torch.zeros(1, 3, 64, 64))]
    for boxes in detector.rpn_head.prior_generator.grid_priors(sizes, device="cpu"):
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        assert centres.max() >= 32, "anchors of a quarter of the image alone"
        assert centres.max() < 64


def test_a_pyramid_of_four_blocks_has_its_strides_and_the_hash_of_those_written_out(coco: Path) -> None:
    given = {"backbone__out_indices": [0, 1, 2, 3], "model__neck": PYRAMID, "backbone__model": model_of(8)}
    detector, _ = build_detector(det_runs.config(coco, **given), det_runs.CLASSES)
    assert [width for width, _ in detector.rpn_head.prior_generator.strides] == [2, 4, 8, 16, 32]
    written = {
        "model__rpn_head__anchor_generator__strides": [2, 4, 8, 16, 32],
        **{f"model__roi_head__{k}_roi_extractor__featmap_strides": [2, 4, 8, 16] for k in ("bbox", "mask")},
    }
    hashes = [
        config_hash(described(det_runs.config(coco, **given, **more), describe_weights("random")))
        for more in ({}, written)
    ]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    "key", ["rpn_head__anchor_generator__strides", "roi_head__mask_roi_extractor__featmap_strides"]
)
def test_strides_of_another_patch_size_are_refused_by_name_with_those_that_work(key: str, coco: Path) -> None:
    written, right = STRIDES[4]["roi" in key], STRIDES[8]["roi" in key]
    changes = {f"model__{key}": written, "backbone__model": model_of(8)}
    with pytest.raises(ConfigError, match=key.replace("__", ".")) as error:
        build_detector(det_runs.config(coco, **changes), det_runs.CLASSES)
    assert f"is {written}, but" in one_line(error.value)
    assert f"patch size 8 have strides {right}; set it to those" in one_line(error.value)
    build_detector(det_runs.config(coco, **{**changes, f"model__{key}": right}), det_runs.CLASSES)
