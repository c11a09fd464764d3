"""Transfer to object detection and instance masks: a pretrained ViT under mmdet's Mask R-CNN, nothing to compile."""

from mlomae.backbones.task import EmbeddedBench, Metric, PublishedProtocol, Task, register_task

_COCO = {"box_AP": "box_ap", "mask_AP": "mask_ap"}

register_task(
    Task(
        name="detection",
        title="Transfer to object detection",
        metrics=(
            Metric("box_AP", "box AP"),
            Metric("box_AP50", "box AP50"),
            Metric("mask_AP", "mask AP", compared=True),
            Metric("mask_AP50", "mask AP50"),
        ),
        config=f"{__name__}.config:DetectionConfig",
        steps=f"{__name__}.run:DetectionSteps",
        outputs="record, detections, image_shares.npz, overlays",
        predictions=f"{__name__}.image_shares:read_tested",
        exporter=f"{__name__}.export:export",
        export_format="mmdet",
        predictor=f"{__name__}.predict:predict",
        published={
            "mask_rcnn_fpn_vit-base_25e_coco": PublishedProtocol("coco", _COCO, note="25-epoch"),
            "mask_rcnn_vitdet_vit-base_coco": PublishedProtocol("coco", _COCO, note="ViTDet"),
            "mask_rcnn_vitdet_vit-large_coco": PublishedProtocol("coco", _COCO, note="ViTDet"),
        },
        embedded=EmbeddedBench(
            recipes={"Mask R-CNN": ("mask_rcnn_textures", 120)},
            note="AP of boxes and masks, 8 textures, on {test} that no pretraining saw, trained on {train}.",
            outputs=("overlays/*.png     truth and detections", "detections.*.json  in COCO's results format"),
            splits={  # no pretraining sees these parts of the textures
                "train": {"split": "val", "count": 1000, "mixed": True},
                "val": {"split": "test", "count": 300, "mixed": True},
            },
            write="mlomae.data:write_coco",
        ),
    )
)
