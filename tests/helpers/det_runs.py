"""The smallest transfers to detection: textures of 32 pixels as COCO files, a ViT of width 16, the small heads."""

import contextlib
import copy
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from run_samples import changed

from benchmarks.tasks import get_task
from benchmarks.tasks.detection.config import DetectionConfig
from benchmarks.tasks.detection.run import DetectionSteps
from mlomae import cli
from mlomae.backbones import run
from mlomae.backbones.batches import ImageLoader
from mlomae.data import Detections, Textures, build_detections
from mlomae.data.write import write_coco

ROOT = Path(__file__).parents[2]
COUNTS = {"train": 16, "val": 6}
CLASSES = 8
STATS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100")
"""The first nine of COCO's twelve numbers; the others are recalls by size."""

TASK = get_task("detection")
run_transfer = partial(run.run_transfer, TASK)


def main(arguments: list[str]) -> int:
    """The command line of this task."""
    return cli.main(["bench", TASK.name, *arguments])


def write_data(root: Path) -> Path:
    parts = {"train": "val", "val": "test"}
    return write_coco(root, {k: Textures(parts[k], count=n, mixed=True) for k, n in COUNTS.items()})


def values(root: Path, **changes: Any) -> dict[str, Any]:
    """The recipe of the textures, shorter; ``train__amp="bf16"`` sets a nested key."""
    given = DetectionConfig.load(ROOT / "configs" / "detection" / "mask_rcnn_textures.py").to_dict()
    given["data"] |= {"batch_size": 4, "augment": [{"type": "RandomFlip", "prob": 0.5}]}
    given["data"]["train"]["root"] = given["data"]["test"]["root"] = str(root)
    model = {"patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2}
    given["backbone"] |= {"weights": "random", "model": model}
    given["train"] |= {"iterations": 4, "log_interval": 2, "checkpoint_interval": 2, "keep_checkpoints": 9}
    return changed({**given, "name": "tiny", "overlays": 2, "overlay_score": 0.0}, changes)


def train_loader(settings: DetectionConfig, source: Detections) -> ImageLoader:
    steps = DetectionSteps(settings)
    steps.train = source
    return steps.loader(train=True)


def config(root: Path, **changes: Any) -> DetectionConfig:
    return DetectionConfig.from_dict(values(root, **changes))


def write_config(path: Path, root: Path, **changes: Any) -> Path:
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in values(root, **changes).items()))
    return path


def detections(work: Path) -> list[dict[str, Any]]:
    """All that a run has written: each with its box and its mask."""
    boxes, masks = (json.loads((work / f"detections.{kind}.json").read_text()) for kind in ("bbox", "segm"))
    return [{**box, **mask} for box, mask in zip(boxes, masks, strict=True)]


def annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}.json"


def opened(annotations: Path) -> Detections:
    """The data set whose annotation file this is."""
    split = annotations.stem.removeprefix("instances_")
    return build_detections({"type": "coco_folder", "root": str(annotations.parents[1]), "split": split})


def truth(annotations: Path) -> dict[str, Any]:
    """What detections are scored against."""
    return opened(annotations).to_coco()


def edit(root: Path, split: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite an annotation file after ``change`` has changed its content in place."""
    content = json.loads(annotation_file(root, split).read_text())
    change(content)
    annotation_file(root, split).write_text(json.dumps(content))


def coco_numbers(
    annotations: Path, found: list[dict[str, Any]], kind: str, categories: Sequence[int] = ()
) -> dict[str, float]:
    """Nine of pycocotools' numbers, as torchvision's references compute them: results of one kind, no further key.
    ``categories``: ids of those to look at, if not all."""
    form = {"box": "bbox", "mask": "segmentation"}[kind]
    lines = [{k: copy.deepcopy(d[k]) for k in ("image_id", "category_id", form, "score")} for d in found]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluator = COCOeval(truth, truth.loadRes(lines), iouType={"box": "bbox", "mask": "segm"}[kind])
        evaluator.params.imgIds = sorted(truth.imgs)
        evaluator.params.catIds = list(categories) or evaluator.params.catIds
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return dict(zip(STATS, evaluator.stats.tolist(), strict=False))
