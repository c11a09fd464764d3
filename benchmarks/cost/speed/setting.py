"""What the speed benchmark runs: the size of model and batch, and random data of that size, made once."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlomae.common.errors import ConfigError
from mlomae.common.registry import check_choice
from mlomae.config.schema import PretrainConfig, config_from_dict

LOWER_STEPS = 2  # K, as in the paper
RATIO = 0.75
UPPER_EVERY = 5  # iterations from one step on φ to the next, in the pooled setting


@dataclass(frozen=True)
class Setting:
    """``batch`` is the size of the lower, the head and the upper batch alike; ``amp`` "none" (float32) or "bf16", for
    rows without a precision of their own."""

    name: str
    device: str
    model: dict[str, Any]
    batch: int
    classes: int
    amp: str = "none"

    def config(
        self, method: str, compiled: bool = False, amp: str | None = None, graphs: bool = False
    ) -> PretrainConfig:
        """The pretraining configuration of ``method``: "mae" (random masks), "mlomae" (learned masks, linear head) or
        "pooled" (learned weights and mask pooling, as ``configs/_base_/mlomae_pooled.py``)."""
        mask: dict[str, Any] = {"type": "random"}
        feedback: dict[str, Any] = {"type": "linear", "pooling": "cls", "dropout": 0.0}
        levels: dict[str, Any] = {"head_steps": 1, "solver": "one_step"}
        if method == "mlomae":
            mask = {"type": "learned", "arch": "token", "sampling": "gumbel_topk"}
        elif method == "pooled":
            mask = {"type": "learned", "arch": "token", "sampling": "random", "scale": 2.0, "normalize": "mask"}
            feedback = {"type": "nca", "temperature": 0.1, "pooling": "avg"}
            levels = {"solver": "explicit", "mask_pooling": True, "upper_every": UPPER_EVERY}
        values = {
            "name": f"speed-{method}",
            "method": method,
            "model": self.model,
            "data": {"batch_size": self.batch, "feedback_batch_size": self.batch},
            "mask": {**mask, "ratio": RATIO},
            "feedback": feedback,
            "levels": {"lower_steps": LOWER_STEPS, **levels},
            "train": {"amp": amp or self.amp, "compile": compiled, "cuda_graphs": graphs},
        }
        return config_from_dict(values)

    def batches(self) -> dict[str, Any]:
        """{"lower": K batches, "head", "upper"} of random images, labels and counter keys on the device."""
        generator = torch.Generator().manual_seed(0)

        def batch(number: int) -> dict[str, Tensor]:
            made = random_batch(self.batch, self.model["img_size"], self.classes, number, generator)
            return {k: t.to(self.device) for k, t in made.items()}

        return {"lower": [batch(k) for k in range(LOWER_STEPS)], "head": batch(90), "upper": batch(91)}


def random_batch(size: int, side: int, classes: int, number: int, generator: torch.Generator) -> dict[str, Tensor]:
    """``image`` (size, 3, side, side), ``label`` and ``key`` (size,), the keys those of batch ``number``."""
    return {
        "image": torch.randn(size, 3, side, side, generator=generator),
        "label": torch.randint(classes, (size,), generator=generator),
        "key": torch.arange(size) + number * size,
    }


def _model(img_size: int, patch: int, encoder: tuple[int, int, int], decoder: tuple[int, int, int]) -> dict[str, Any]:
    """Width, depth and heads of encoder and decoder as the section ``model`` of a configuration."""
    names = ("embed_dim", "depth", "num_heads")
    values = {"size": "base", "img_size": img_size, "patch_size": patch, **dict(zip(names, encoder, strict=True))}
    return values | {f"decoder_{name}": value for name, value in zip(names, decoder, strict=True)}


_VIT_B = _model(224, 16, (768, 12, 12), (512, 8, 16))  # ViT-B/16 and the decoder that MAE was published with
SETTINGS = {
    "cpu": Setting("cpu", "cpu", _model(32, 4, (192, 6, 3), (96, 2, 3)), batch=64, classes=10),
    "cpu-vit-b": Setting("cpu-vit-b", "cpu", _VIT_B, batch=16, classes=1000),
    "gpu": Setting("gpu", "cuda", _VIT_B, batch=64, classes=1000, amp="bf16"),
    "tiny": Setting("tiny", "cpu", _model(16, 4, (32, 2, 2), (16, 1, 2)), batch=4, classes=3),  # for the tests
}


def get_setting(name: str) -> Setting:
    """Raises ConfigError for an unknown name, or one whose device is missing."""
    check_choice("", SETTINGS, setting=name)
    if SETTINGS[name].device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"setting '{name}' needs a CUDA device and there is none; choose --setting cpu")
    return SETTINGS[name]
