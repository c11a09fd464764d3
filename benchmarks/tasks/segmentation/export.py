"""`mlomae export --format mmseg` of a segmenter: a folder for mmseg's own tools."""

from pathlib import Path
from typing import Any

from benchmarks.tasks.segmentation.model import segmentor_section
from benchmarks.transfer.mm_files import write_folder
from mlomae.backbones.load import LoadedTransfer


def export(loaded: LoadedTransfer, out: Path) -> str:
    """Write config.py and weights.pth into ``out``, for ``mmseg.apis.init_model``; the report."""
    segmentor: Any = loaded.build_model()
    config: Any = loaded.config
    section = segmentor_section(config, len(loaded.classes), segmentor.backbone)
    section["test_cfg"] = segmentor.test_cfg.to_dict()
    steps = [*config.data.evaluate, {"type": "mmseg.PackSegInputs"}]
    imports = ["mlomae.backbones.feature_vit"]
    return write_folder(loaded, segmentor, section, steps, imports, "mmseg.BaseSegDataset", out)
