"""Frozen linear segmentation: a linear classifier of single patches on the features of a frozen backbone."""

from mlomae.backbones.task import Metric, Task, register_task

register_task(
    Task(
        name="linear_segmentation",
        title="Linear segmentation on frozen features",
        metrics=(Metric("mIoU", "mIoU"), Metric("mAcc", "mAcc"), Metric("aAcc", "aAcc")),
        config=f"{__name__}.config:LinearSegmentationConfig",
        steps=f"{__name__}.run:LinearSegmentationSteps",
        outputs="record, pixel_counts.npz, overlays",
        averaged_over="pixels of all test images",
        predictions="benchmarks.tasks.segmentation.pixel_counts:read_tested",
    )
)
