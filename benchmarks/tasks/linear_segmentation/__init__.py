"""Frozen linear segmentation: a linear classifier of single patches on the features of a frozen backbone."""

from dataclasses import replace

from benchmarks.tasks.segmentation import EMBEDDED, SEGMENTATION
from mlomae.backbones.task import register_task

register_task(
    replace(
        SEGMENTATION,
        name="linear_segmentation",
        title="Linear segmentation on frozen features",
        config=f"{__name__}.config:LinearSegmentationConfig",
        steps=f"{__name__}.run:LinearSegmentationSteps",
        exporter=None,  # its head reads frozen features by a segmentor of ours
        published={},
        embedded=replace(EMBEDDED, recipes={"linear segmentation": ("linear_textures", 35)}),
    )
)
