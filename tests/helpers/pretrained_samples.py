"""Runs of pretraining on the textures for the defaults of the benchmarks to find, and copies with other content."""

from pathlib import Path
from typing import Any

from mlomae.common.checkpoint import load_checkpoint, save_atomically
from mlomae.config.schema import config_from_dict
from mlomae.pretraining.run import run_pretraining

ITERATIONS = 2


def pretrain(folder: Path, method: str = "MAE", seed: int = 0, width: int = 16, depth: int = 2) -> Path:
    """A run of two iterations; returns its last checkpoint."""
    textures = {"type": "textures", "split": "train", "count": 64, "size": 16}
    shape = {"size": "tiny", "img_size": 16, "patch_size": 4, "embed_dim": width, "depth": depth, "num_heads": 2}
    values = {
        "name": "tiny",
        "method": method,
        "seed": seed,
        "model": {**shape, "decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2},
        "data": {"train": textures, "eval": None, "batch_size": 8},
        "mask": {"type": "random", "ratio": 0.75},
        "train": {"outer_iterations": ITERATIONS, "amp": "none", "checkpoint_interval": 1, "keep_checkpoints": 2},
    }
    run_pretraining(config_from_dict(values), folder)
    return folder / "checkpoints" / f"iter_{ITERATIONS}.pth"


def put(source: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a checkpoint as a run in ``folder``, keys of its content or, with ``__``, of its config changed."""
    state = load_checkpoint(source)
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = state["config"] if sections else state
        for section in sections[1:]:
            place = place[section]
        place[last] = value
    target = folder / "checkpoints" / f"iter_{state['iteration']}.pth"
    save_atomically(state, target)
    return target


def table_rows(printed: str) -> list[str]:
    """The rows of the table that a default prints."""
    lines = printed.splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:1] == ["backbone"]) + 1
    return lines[first : lines.index("", first)]
