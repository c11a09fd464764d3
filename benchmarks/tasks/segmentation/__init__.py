"""Transfer to semantic segmentation: a pretrained ViT under mmseg's heads (UperNet)."""

from mlomae.backbones.task import EmbeddedBench, Metric, PublishedProtocol, Task, register_task

EMBEDDED = EmbeddedBench(
    recipes={"UperNet": ("upernet_textures", 45)},
    note="Background and 8 textures on {test} that no pretraining saw, trained on {train}.",
    outputs=(
        "overlays/*.png     image, labels, prediction",
        "predictions/*.png  labels of every image, as annotations have them",
        "pixel_counts.npz   pixels of every image and class",
    ),
    splits={  # no pretraining sees these parts of the textures
        "training": {"split": "val", "count": 1000, "mixed": True},
        "validation": {"split": "test", "count": 500, "mixed": True},
    },
    write="mlomae.data:write_scenes",
)
SEGMENTATION = register_task(
    Task(
        name="segmentation",
        title="Transfer to semantic segmentation",
        metrics=(Metric("mIoU", "mIoU"), Metric("mAcc", "mAcc"), Metric("aAcc", "aAcc")),
        config=f"{__name__}.config:SegmentationConfig",
        steps=f"{__name__}.run:SegmentationSteps",
        outputs="record, predictions, pixel_counts.npz, overlays",
        averaged_over="pixels of all test images",
        predictions=f"{__name__}.pixel_counts:read_tested",
        exporter=f"{__name__}.export:export",
        export_format="mmseg",
        predictor=f"{__name__}.predict:predict",
        published={
            f"upernet_vit-{size}_ade20k": PublishedProtocol("ade20k", {"mIoU": "miou"}) for size in ("base", "large")
        },
        embedded=EMBEDDED,
    )
)
