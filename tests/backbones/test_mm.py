"""mmdet's and mmseg's own command lines and apis, after one line: `mlomae.mm`, imported or in their config."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from backbone_samples import write_checkpoint
from PIL import Image

pytest.importorskip("mmdet")
import mmdet
import mmseg

BACKBONE = """
    backbone=dict(type="mlomae.FeatureViT", weights="{weights}", img_size=32, out_indices=(1,)),
"""
RUN = """
custom_imports = dict(imports=["mlomae.mm"])
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=1e-3), constructor="TimmLayerDecay",
                     paramwise_cfg=dict(layer_decay=0.7))
train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=2)
val_cfg, test_cfg = dict(type="ValLoop"), dict(type="TestLoop")
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=2, by_epoch=False))
env_cfg = dict(mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
"""
DETECTOR = """
default_scope = "mmdet"
model = dict(
    type="FasterRCNN",
    data_preprocessor=dict(type="DetDataPreprocessor", mean=[0.0] * 3, std=[255.0] * 3, pad_size_divisor=4),
    {backbone}
    neck=None,
    rpn_head=dict(type="RPNHead", in_channels=24, feat_channels=8,
        anchor_generator=dict(type="AnchorGenerator", scales=[4], ratios=[1.0], strides=[4]),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder"), loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True),
        loss_bbox=dict(type="L1Loss")),
    roi_head=dict(type="StandardRoIHead",
        bbox_roi_extractor=dict(type="SingleRoIExtractor", out_channels=24, featmap_strides=[4],
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0)),
        bbox_head=dict(type="Shared2FCBBoxHead", in_channels=24, fc_out_channels=8, roi_feat_size=7, num_classes=1,
            bbox_coder=dict(type="DeltaXYWHBBoxCoder"), loss_cls=dict(type="CrossEntropyLoss"),
            loss_bbox=dict(type="L1Loss"))),
    train_cfg=dict(
        rpn=dict(assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.3, min_pos_iou=0.3),
            sampler=dict(type="RandomSampler", num=8, pos_fraction=0.5, add_gt_as_proposals=False),
            pos_weight=-1, allowed_border=-1, debug=False),
        rpn_proposal=dict(nms_pre=50, max_per_img=10, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5),
            sampler=dict(type="RandomSampler", num=8, pos_fraction=0.5, add_gt_as_proposals=True),
            pos_weight=-1, debug=False)),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=10, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=5)))
steps = [dict(type="mlomae.LoadImage"), dict(type="LoadAnnotations", with_bbox=True), dict(type="PackDetInputs")]
keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
test = [dict(type="mlomae.LoadImage"), dict(type="Resize", scale=(32, 32)),
        dict(type="LoadAnnotations", with_bbox=True), dict(type="PackDetInputs", meta_keys=keys)]
data = dict(type="CocoDataset", data_root="{root}/", ann_file="coco.json", data_prefix=dict(img="images/"),
            metainfo=dict(classes=("square",), palette=[(9, 9, 9)]))
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=True),
                        dataset=dict(pipeline=steps, **data))
val_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False),
                      dataset=dict(pipeline=test, test_mode=True, **data))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type="CocoMetric", ann_file="{root}/coco.json", metric="bbox")
"""
SEGMENTER = """
default_scope = "mmseg"
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", mean=[0.0] * 3, std=[255.0] * 3, size=(32, 32)),
    {backbone}
    decode_head=dict(type="FCNHead", in_channels=24, channels=8, num_convs=1, num_classes=2, in_index=0,
        loss_decode=dict(type="CrossEntropyLoss")),
    train_cfg=dict(), test_cfg=dict(mode="whole"))
steps = [dict(type="mlomae.LoadImage"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
data = dict(type="BaseSegDataset", data_root="{root}", data_prefix=dict(img_path="images", seg_map_path="masks"),
            img_suffix=".png", seg_map_suffix=".png", pipeline=steps,
            metainfo=dict(classes=("ground", "square"), palette=[[0, 0, 0], [9, 9, 9]]))
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type="InfiniteSampler"), dataset=data)
val_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False), dataset=data)
test_dataloader = val_dataloader
test_pipeline = [dict(type="mlomae.LoadImage"), dict(type="PackSegInputs")]
val_evaluator = test_evaluator = dict(type="IoUMetric")
"""
CONFIGS = {"mmdet": DETECTOR, "mmseg": SEGMENTER}
APIS = {
    "mmdet": "from mmdet.apis import inference_detector as run, init_detector as init",
    "mmseg": "from mmseg.apis import inference_model as run, init_model as init",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures with a square each, its mask and its box, and a pretrained ViT."""
    root = tmp_path_factory.mktemp("squares")
    images, boxes = [], []
    for part in ("images", "masks"):
        (root / part).mkdir()
    for i in range(4):
        left = 4 + 4 * i
        image, mask = Image.new("RGB", (32, 32), (60, 90, 60)), Image.new("L", (32, 32))
        image.paste((200, 40, 40), (left, 8, left + 12, 20))
        mask.paste(1, (left, 8, left + 12, 20))
        image.save(root / "images" / f"{i}.png")
        mask.save(root / "masks" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 32, "height": 32})
        boxes.append(
            {"id": i + 1, "image_id": i, "category_id": 1, "bbox": [left, 8, 12, 12], "area": 144, "iscrowd": 0}
        )
    coco = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "square"}]}
    (root / "coco.json").write_text(json.dumps(coco))
    write_checkpoint(root / "iter_7.pth")
    return root


def tool(library: object, name: str) -> Path:
    return Path(str(library.__file__)).parent / ".mim" / "tools" / name  # type: ignore[attr-defined]


def run(*argv: object) -> str:
    done = subprocess.run([sys.executable, *map(str, argv)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_it_may_come_after_mmdet() -> None:
    """As in its command lines, which read the config last: what mmdet has kept in place of operators is replaced."""
    script = """
import mmdet.apis, mmdet.evaluation
from mmdet.structures.mask import structures
import mlomae.mm
import mmcv.ops, mmdet.registry
assert structures.roi_align is mmcv.ops.roi_align
assert mmdet.apis.inference.RoIPool is mmcv.ops.RoIPool
print(mlomae.mm.OPERATORS)
"""
    said = run("-c", script)
    assert "compiled" in said or "torchvision stand-in" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_the_command_lines_and_the_api(name: str, root: Path, tmp_path: Path) -> None:
    backbone = BACKBONE.format(weights=root / "iter_7.pth")
    text = CONFIGS[name].replace("{backbone}", backbone).replace("{root}", str(root))
    (tmp_path / "config.py").write_text(RUN + text)
    library = {"mmdet": mmdet, "mmseg": mmseg}[name]
    work = ("--work-dir", tmp_path / "work")
    run(tool(library, "train.py"), tmp_path / "config.py", *work)
    weights = tmp_path / "work" / "iter_2.pth"
    said = run("-m", "mlomae.mm", tool(library, "test.py"), tmp_path / "config.py", weights, *work)
    assert ("bbox_mAP" if name == "mmdet" else "mIoU") in said
    script = f"""
import mlomae.mm
{APIS[name]}
model = init("{tmp_path / "config.py"}", "{weights}", device="cpu")
found = run(model, "{root / "images" / "0.png"}")
print("found", len(found.pred_instances.scores) if "{name}" == "mmdet" else tuple(found.pred_sem_seg.data.shape))
"""
    assert ("found 5" if name == "mmdet" else "found (1, 32, 32)") in run("-c", script)
