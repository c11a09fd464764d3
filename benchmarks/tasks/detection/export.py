"""`mlomae export --format mmdet` of a detector: a folder for mmdet's own tools."""

from pathlib import Path
from typing import Any

from benchmarks.tasks.detection import model as modelling
from benchmarks.transfer.mm_files import write_folder
from mlomae.backbones.load import LoadedTransfer

_META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")


def export(loaded: LoadedTransfer, out: Path) -> str:
    """Write config.py and weights.pth into ``out``, for ``mmdet.apis.init_detector``; the report."""
    detector: Any = loaded.build_model()
    config: Any = loaded.config
    section = modelling.detector_section(config, len(loaded.classes), detector.backbone)
    steps = list(config.data.evaluate)
    if not any("Resize" in str(step.get("type")) for step in steps):  # mmdet wants to know the scale
        steps.append({"type": "mmdet.Resize", "scale_factor": 1.0})
    steps.append({"type": "mmdet.PackDetInputs", "meta_keys": _META})
    imports = [modelling.__name__]
    return write_folder(loaded, detector, section, steps, imports, "mmdet.CocoDataset", out)
