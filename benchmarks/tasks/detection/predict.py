"""`mlomae predict` with a detector: boxes and masks of the objects in new images, and pictures of them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.tasks.detection.metric import lines_of
from benchmarks.tasks.detection.pictures import save_found
from benchmarks.transfer.predict import NewImages, output_names, predictions
from mlomae.backbones.load import LoadedTransfer
from mlomae.common.atomic import replacing, write_text
from mlomae.common.errors import counted
from mlomae.data import FileSource

# isort: split
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS

_META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")


def predict(loaded: LoadedTransfer, images: FileSource, out: Path, threshold: float | None = None) -> str:
    """Write into ``out`` all detections with the names of files, as the table ``detections.csv`` (boxes in pixels) and
    as ``detections.json``, a file of COCO's annotations with scores; and ``pictures/NAME.png`` of those above the
    ``threshold``, by default the configuration's ``overlay_score``. The last line for the user."""
    config: Any = loaded.config
    model, classes = loaded.build_model(), loaded.classes
    least = config.overlay_score if threshold is None else threshold
    files = [images.relative_path(i) for i in range(len(images))]
    names, pictures, rows = output_names(files), [], []
    found: list[dict[str, Any]] = []
    numbered = NewImages(TRANSFORMS, config.data.evaluate, images, PackDetInputs(meta_keys=_META))
    ids = range(1, len(classes) + 1)
    for i, sample in enumerate(predictions(model, numbered)):
        height, width = sample.ori_shape
        pictures.append({"id": i, "file_name": files[i], "height": height, "width": width})
        lines = sorted(lines_of(sample, ids), key=lambda line: -line["score"])
        for line in lines:
            found.append({"id": len(found) + 1, **line, "area": line["bbox"][2] * line["bbox"][3], "iscrowd": 0})
            rows.append((files[i], classes[line["category_id"] - 1], line["score"], *line["bbox"]))
        shown = [{**line, "class": line["category_id"] - 1} for line in lines[::-1] if line["score"] >= least]
        image_HWC = images.image(i).permute(1, 2, 0).numpy()
        save_found(out / "pictures" / f"{names[i]}.png", image_HWC, shown, classes, least)
    categories = [{"id": id_, "name": name} for id_, name in zip(ids, classes, strict=True)]
    content = {"images": pictures, "categories": categories, "annotations": found}
    write_text(out / "detections.json", json.dumps(content))
    with replacing(out / "detections.csv") as file:
        columns = ["file", "label", "score", "x", "y", "width", "height"]
        pd.DataFrame(rows, columns=columns).to_csv(file, index=False, float_format="%.6g", lineterminator="\n")
    above = sum(row[2] >= least for row in rows)
    return (
        f"{out}: {counted(len(rows), 'detection')} in {counted(len(files), 'image')}, {above:,} with a score of "
        f"{least:g} or more in pictures; detections.csv, detections.json"
    )
