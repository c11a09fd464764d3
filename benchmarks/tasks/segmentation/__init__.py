"""Transfer to semantic segmentation: a pretrained ViT under mmseg's heads (UperNet)."""

from mlomae.backbones.task import Metric, PublishedProtocol, Task, register_task

register_task(
    Task(
        name="segmentation",
        title="Transfer to semantic segmentation",
        metrics=(Metric("mIoU", "mIoU"), Metric("mAcc", "mAcc"), Metric("aAcc", "aAcc")),
        config=f"{__name__}.config:SegmentationConfig",
        steps=f"{__name__}.run:SegmentationSteps",
        outputs="record, pixel_counts.npz, overlays",
        averaged_over="pixels of all test images",
        predictions=f"{__name__}.pixel_counts:read_tested",
        published={
            f"upernet_vit-{size}_ade20k": PublishedProtocol("ade20k", {"mIoU": "miou"}) for size in ("base", "large")
        },
    )
)
