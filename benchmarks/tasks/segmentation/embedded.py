"""The default of `make bench-seg`: UperNet on the embedded textures, written as image and annotation files.

python -m benchmarks.tasks.segmentation.embedded [--runs work_dirs] [--jobs 2]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.tasks.segmentation.config import SegmentationConfig
from benchmarks.transfer.embedded import Bench, embedded_main
from benchmarks.transfer.textures import write_textures
from mlomae.data import write_scenes
from mlomae.records import Record

SPLITS: dict[str, dict[str, Any]] = {  # no pretraining sees these parts of the textures
    "training": {"split": "val", "count": 1000, "mixed": True},
    "validation": {"split": "test", "count": 500, "mixed": True},
}


def write_data(out: Path) -> dict[str, Any]:
    """The images in the layout of a real data set (`write_textures`)."""
    return write_textures(out, SPLITS, write_scenes)


def _explain(record: Record) -> list[str]:
    train, test = (record[key].split(", ")[-1] for key in ("train_source", "eval_source"))
    classes = len(record["metrics"]["class_iou"])
    return [
        f"Background and textures ({classes} classes) on {test} that no pretraining saw, trained on {train}.",
        "One run a row: it shows that the transfer works, not which method is better.",
    ]


BENCH = Bench(
    task="segmentation",
    load_config=SegmentationConfig.load,
    recipes={"UperNet": "upernet_textures"},
    columns={"mIoU": ("UperNet", "mIoU"), "mAcc": ("UperNet", "mAcc"), "aAcc": ("UperNet", "aAcc")},
    seconds=100,  # AMD EPYC, backbone of width 128 and depth 4
    explain=_explain,
    outputs=["OUT/overlays/*.png   image, labels, prediction", "OUT/pixel_counts.npz pixels of every image and class"],
    prepare=write_data,
)


def main(argv: list[str] | None = None) -> int:
    """Command line of `benchmarks.transfer.embedded`."""
    return embedded_main(BENCH, __doc__.splitlines()[0], "work_dirs/bench-seg", argv)


if __name__ == "__main__":
    sys.exit(main())
