"""The resident memory of a process at the peak of an outer iteration; ``python -m peak_memory CONFIG.json ...``.

For each configuration it prints the most bytes by which the second iteration of kind "upper" exceeds the process before
the model was made. Library code and thread pools are there already: a small run of the same kind comes first.
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from mlomae.config.schema import PretrainConfig, config_from_dict
from mlomae.pretraining.optim import build_optimizers
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.step import PretrainStep

CLASSES = 10
# glibc gives memory back at once, or the peak would depend on what was freed before
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}


def resident(field: str) -> int:
    """VmRSS or VmHWM in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def batches(config: PretrainConfig, learned: bool, small: bool) -> dict[str, Any]:
    side = config.model.img_size

    def batch(size: int) -> dict[str, torch.Tensor]:
        size = 4 if small else size
        index = torch.arange(size)
        images = torch.randn(size, 3, side, side)
        return {"image": images, "label": index % CLASSES, "key": index, "index": index, "epoch": index // size}

    data: dict[str, Any] = {"lower": [batch(config.data.batch_size) for _ in range(config.levels.lower_steps)]}
    if learned:
        data |= {level: batch(config.data.feedback_batch_size) for level in ("head", "upper")}
    return data


def iterate(config: PretrainConfig, small: bool) -> int:
    """Two iterations; the peak of the second one."""
    model = Pretrainer(config, CLASSES).train()
    step = PretrainStep(model, build_optimizers(model.level_parameters(), config))
    if step.gate is not None:
        step.gate.begin = 0
    data = batches(config, model.mask.trainable, small)
    step(data, 0)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark begins anew
    step(data, config.levels.upper_every)
    return resident("VmHWM")


def peak(config: PretrainConfig) -> int:
    iterate(config, small=True)
    gc.collect()
    before = resident("VmRSS")
    return iterate(config, small=False) - before


def can_measure() -> bool:
    """Whether this is Linux with glibc, and the mark can be reset."""
    return sys.platform == "linux" and os.access("/proc/self/clear_refs", os.W_OK)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(peak(config_from_dict(json.loads(Path(path).read_text(encoding="utf-8")))))
