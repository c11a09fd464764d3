"""The default of `make bench-det`: Mask R-CNN on the embedded textures, written as COCO files.

python -m benchmarks.tasks.detection.embedded [--runs work_dirs] [--jobs 2]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.tasks.detection.config import DetectionConfig
from benchmarks.transfer.embedded import Bench, embedded_main
from benchmarks.transfer.textures import write_textures
from mlomae.data.textures.write import write_coco
from mlomae.records import Record

SPLITS: dict[str, dict[str, Any]] = {  # no pretraining sees these parts of the textures
    "train": {"split": "val", "count": 1000, "mixed": True},
    "val": {"split": "test", "count": 300, "mixed": True},
}


def write_data(out: Path) -> dict[str, Any]:
    """The images in the layout of a real data set (`write_textures`)."""
    return write_textures(out, SPLITS, write_coco)


def _explain(record: Record) -> list[str]:
    train, test = (record[key].split(", ")[-1] for key in ("train_source", "eval_source"))
    return [
        f"AP of boxes and masks, 8 textures, on {test} that no pretraining saw, trained on {train}.",
        "One run a row: it shows that the transfer works, not which method is better.",
    ]


BENCH = Bench(
    task="detection",
    load_config=DetectionConfig.load,
    recipes={"Mask R-CNN": "mask_rcnn_textures"},
    columns={
        "box AP": ("Mask R-CNN", "box_AP"),
        "box AP50": ("Mask R-CNN", "box_AP50"),
        "mask AP": ("Mask R-CNN", "mask_AP"),
        "mask AP50": ("Mask R-CNN", "mask_AP50"),
    },
    seconds=120,  # AMD EPYC, backbone of width 128 and depth 4
    explain=_explain,
    outputs=["OUT/overlays/*.png     truth and detections", "OUT/detections.json    in COCO's results format"],
    prepare=write_data,
)


def main(argv: list[str] | None = None) -> int:
    """Command line of `benchmarks.transfer.embedded`."""
    return embedded_main(BENCH, __doc__.splitlines()[0], "work_dirs/bench-det", argv)


if __name__ == "__main__":
    sys.exit(main())
