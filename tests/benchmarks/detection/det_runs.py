"""The smallest transfers to detection: textures of 32 pixels as COCO files, a ViT of width 16, the small heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from run_samples import changed

from benchmarks.detection.config import DetectionConfig, config_from_dict, load_config
from mlomae.data import Textures, write_coco

ROOT = Path(__file__).parents[3]
COUNTS = {"train": 16, "val": 6}
CLASSES = 8


def write_data(root: Path) -> Path:
    parts = {"train": "val", "val": "test"}
    return write_coco(root, {k: Textures(parts[k], count=n, mixed=True) for k, n in COUNTS.items()})


def values(root: Path, **changes: Any) -> dict[str, Any]:
    """The recipe of the textures, shorter; ``train__amp="bf16"`` sets a nested key."""
    given = load_config(ROOT / "configs" / "detection" / "mask_rcnn_textures.py").to_dict()
    given["data"] |= {"batch_size": 4, "augment": [{"type": "RandomFlip", "prob": 0.5}]}
    given["data"]["train"]["root"] = given["data"]["test"]["root"] = str(root)
    model = {"patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2}
    given["backbone"] |= {"weights": "random", "model": model}
    given["train"] |= {"iterations": 4, "log_interval": 2, "checkpoint_interval": 2, "keep_checkpoints": 9}
    return changed({**given, "name": "tiny", "overlays": 2, "overlay_score": 0.0}, changes)


def config(root: Path, **changes: Any) -> DetectionConfig:
    return config_from_dict(values(root, **changes))
