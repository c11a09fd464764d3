"""What each trace runs: the smallest configurations that go through what the records went through.

A program is a function of a folder, which is empty, to values by part: what the trace guards (`record.NUMERICS`), and
below it names and numbers. It knows the code under test by `adapter` alone.
"""

import copy
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import adapter, drawn
from .recipes import DETECTION_MODEL, SEGMENTATION_AUGMENT, SEGMENTATION_MODEL

Values = dict[str, Any]
Program = Callable[[Path], dict[str, Values]]
FILES = {  # the type of source that a task's files are read by
    "classification": "imagefolder",
    "segmentation": "scene_folder",
    "linear_segmentation": "scene_folder",
    "detection": "coco_folder",
}

ITERATIONS, KILLED_AFTER = 20, 10
SHAPE = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
DENSE_SHAPE = {**SHAPE, "depth": 4}
TEXTURES = {"type": "textures", "size": 16, "classes": 8}
INTERVALS = {"amp": "none", "log_interval": 1, "checkpoint_interval": KILLED_AFTER, "keep_checkpoints": 2}
EVALUATION = (
    "knn_",
    "linear_",
    "chance",
    "n_train",
    "n_test",
)  # of the metrics of a pretraining, what `evaluate` gives

PRETRAINING: Values = {
    "name": "trace",
    "method": "trace",
    "seed": 3,
    "model": {"size": "tiny", "img_size": 16, **SHAPE}
    | {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2},
    "data": {
        "train": {**TEXTURES, "split": "train", "count": 96},
        "eval": {**TEXTURES, "split": "test", "count": 40},
        "augment": {"type": "PadCropFlip", "padding": 2},
        "feedback_augment": {"type": "RandomResizedCropFlip"},
        "batch_size": 8,
        "feedback_batch_size": 8,
    },
    "optim": {
        "theta": {"lr": 2e-3, "warmup": 0.2, "min_lr": 1e-5, "clip_grad": 1.0},
        "omega": {"lr": 3e-3, "min_lr": 1e-4},
        "phi": {"lr": 5e-3, "betas": [0.9, 0.99], "min_lr": 1e-3},
    },
    "levels": {"lower_steps": 2},
    "train": {"outer_iterations": ITERATIONS, "picture_interval": 1000, **INTERVALS},
}
MAE = {"mask": {"type": "random", "ratio": 0.75}}
# the published route of three levels
LINEAR = {
    "mask": {"type": "learned", "ratio": 0.75, "hidden": 16, "arch": "token", "sampling": "gumbel_topk"}
    | {"normalize": "mask"},
    "feedback": {"type": "linear", "pooling": "avg", "dropout": 0.1},
    "levels": {"lower_steps": 2, "head_steps": 2, "solver": "one_step"},
}
# masks are random until φ begins, and the feedback pools what σ weighs
POOLED = {
    "mask": {"type": "learned", "ratio": 0.75, "hidden": 16, "arch": "token", "sampling": "random", "scale": 2.0}
    | {"normalize": "mask"},
    "feedback": {"type": "nca", "temperature": 0.1, "pooling": "avg"},
    "levels": {"lower_steps": 2, "solver": "explicit", "mask_pooling": True, "upper_every": 2, "warmup": 3},
}
HPM = {"mask": {"type": "hpm", "ratio": 0.75, "hard": 0.5, "decay": 0.9, "decay_end": 0.97}}

FINETUNE: Values = {
    "name": "trace",
    "protocol": "finetune",
    "seed": 3,
    "data": {
        "train": {**TEXTURES, "split": "train", "count": 80},
        "test": {**TEXTURES, "split": "test", "count": 40},
        "augment": {"type": "rand_augment", "scale": [0.35, 1.0], "reprob": 0.25},
        "evaluate": {"crop_pct": 1.0},
        "mix": {"mixup": 0.8, "cutmix": 1.0},
        "batch_size": 16,
    },
    "backbone": {"img_size": 24, "drop_path": 0.1, "model": SHAPE},  # of weights for 16 pixels
    "optim": {"lr": 5e-3, "layer_decay": 0.75, "warmup": 0.1, "clip_grad": 5.0},
    "train": {"epochs": 4, "label_smoothing": 0.1, "ema": 0.9, **INTERVALS},
}
LINEAR_PROBE: Values = {
    "name": "trace",
    "protocol": "linear",
    "pooling": "avg",
    "seed": 3,
    "data": {"augment": None, "evaluate": {"crop_pct": 1.0}, "batch_size": 8},
    "backbone": {"img_size": 24, "model": SHAPE},
    "optim": {"type": "sgd", "lr": 0.05, "weight_decay": 0.0, "warmup": 0.1},
    "train": {"epochs": 4, **INTERVALS},
}
SEGMENTATION: Values = {
    "name": "trace",
    "seed": 3,
    "data": {"augment": SEGMENTATION_AUGMENT, "batch_size": 4},
    "model": SEGMENTATION_MODEL,
    "backbone": {"img_size": 16, "out_indices": [0, 1, 2, 3], "model": DENSE_SHAPE},
    "optim": {"lr": 5e-3, "layer_decay": 0.75, "warmup": 0.1, "min_lr": 0.0},
    "train": {"iterations": ITERATIONS, "decay": "linear", **INTERVALS},
    "overlays": 0,
}
LINEAR_SEGMENTATION: Values = {
    **{key: value for key, value in SEGMENTATION.items() if key != "model"},
    "backbone": {"img_size": 16, "out_indices": [3], "model": DENSE_SHAPE},
    "optim": {"lr": 1e-2, "warmup": 0.1, "min_lr": 0.0},
}
DETECTION: Values = {
    "name": "trace",
    "seed": 3,
    "data": {
        "augment": [
            {"type": "RandomResize", "scale": (32, 32), "ratio_range": (0.8, 1.6), "keep_ratio": True},
            {"type": "RandomCrop", "crop_type": "absolute", "crop_size": (32, 32), "recompute_bbox": True},
            {"type": "FilterAnnotations", "min_gt_bbox_wh": (2.0, 2.0)},
            {"type": "RandomFlip", "prob": 0.5},
        ],
        "evaluate": [{"type": "Resize", "scale": (32, 32), "keep_ratio": True}],
        "pad_to": 8,
        "batch_size": 4,
    },
    "model": DETECTION_MODEL,
    "backbone": {"weights": "random", "img_size": 32, "window_size": 4, "global_blocks": [3], "out_indices": [3]}
    | {"model": DENSE_SHAPE},
    "optim": {"lr": 1e-2, "layer_decay": 0.75, "warmup": 0.1, "min_lr": 0.0},
    "train": {"iterations": ITERATIONS, "decay": "cosine", **INTERVALS},
    "overlays": 0,
}
PLAIN = {"type": "Plain", "size": 16}
CIFAR_SPLITS = {"train": "train", "eval": "test"}
SOURCES: dict[str, tuple[Values, Values]] = {  # of each kind the source and its augmentation
    "textures": ({"type": "textures", "split": "train", "count": 64}, {"type": "PadCropFlip", "size": 32}),
    "imagefolder": ({"type": "imagefolder", "split": "train"}, {"type": "RandomResizedCropFlip", "size": 16}),
    "cifar10": ({"type": "cifar10", "split": "train"}, {"type": "RandomResizedCropFlip", "size": 32}),
    "scene_folder": ({"type": "scene_folder", "split": "training"}, {"type": "RandomResizedCropFlip", "size": 12}),
}
WRITERS = {
    "imagefolder": drawn.write_class_folders,
    "cifar10": drawn.write_cifar10,
    "scene_folder": drawn.write_scenes,
}


def merged(values: Values, changes: Values) -> Values:
    """A deep copy of ``values`` in which the sections of ``changes`` replace those of the same name."""
    return {**copy.deepcopy(values), **copy.deepcopy(changes)}


def sha256(parts: Iterable[tuple[str, np.ndarray]]) -> str:
    """Of names, types, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name, array in sorted(parts, key=lambda pair: pair[0]):
        array = np.ascontiguousarray(array)
        total.update(f"{name} {array.dtype.newbyteorder('<').str} {array.shape}\n".encode())
        total.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return total.hexdigest()


def weights(state: dict[str, torch.Tensor]) -> Values:
    """A module's hash, and for where bits differ its projection on drawn numbers of mean 0 and variance 1."""
    arrays = {name: tensor.detach().numpy() for name, tensor in state.items()}
    floats = [(name, array) for name, array in arrays.items() if array.dtype.kind == "f"]
    drawn_for = {name: (drawn.uniform(f"projection {name}", *a.shape) - 0.5) * np.sqrt(12.0) for name, a in floats}
    parts = [np.sum(array * drawn_for[name], dtype=np.float64) for name, array in floats]
    return {"sha256": sha256(arrays.items()), "projection": float(np.sum(parts))}


def described(run: adapter.Run) -> Values:
    """A run as a trace keeps it; the hashes of modules without weights say so."""
    modules = {name: weights(state) for name, state in run.modules.items() if state}
    return {"losses": run.losses, "rates": run.rates, "weights": modules, "metrics": run.metrics}


def pretrain(changes: Values) -> Program:
    """A pretraining that dies halfway and is resumed."""

    def program(folder: Path) -> dict[str, Values]:
        values = merged(PRETRAINING, changes)
        adapter.run_pretraining(values, folder / "run", stop_after=KILLED_AFTER)
        found = adapter.run_pretraining(values, folder / "run", resume=True)
        assert found is not None
        run = described(found)
        evaluation = {k: run["metrics"].pop(k) for k in list(run["metrics"]) if k.startswith(EVALUATION)}
        return {"pretraining": run, "evaluation": evaluation}

    return program


def transfer(task: str, values: Values, files: Callable[[Path], Path] | None, splits: tuple[str, str]) -> Program:
    """A transfer that dies halfway and is resumed, on ``files`` of the type that the configuration does not name."""

    def program(folder: Path) -> dict[str, Values]:
        config = copy.deepcopy(values)
        if files is not None:
            kind = FILES[task]
            root = str(files(folder / "data"))
            for part, split in zip(("train", "test"), splits, strict=True):
                config["data"][part] = {"type": kind, "root": root, "split": split}
        shape = config["backbone"]["model"]
        if "weights" not in config["backbone"]:
            size = {"img_size": 16, **{k: v for k, v in shape.items() if k != "num_heads"}}
            config["backbone"]["weights"] = str(drawn.write_backbone(folder / "backbone.pth", **size))
        adapter.run_transfer(task, config, folder / "run", stop_after=KILLED_AFTER)
        found = adapter.run_transfer(task, config, folder / "run", resume=True)
        assert found is not None
        run = described(found)
        said = adapter.predictions_of(task, folder / "run")
        run["predictions"] = {"sha256": sha256(said.items())}
        run["predictions"]["means"] = {name: float(array.mean(dtype=np.float64)) for name, array in said.items()}
        return {task: run}

    return program


def evaluation(folder: Path) -> dict[str, Values]:
    """The frozen evaluation of weights that no training has made, of images that no code here has drawn."""
    values = merged(PRETRAINING, MAE)
    root = str(drawn.write_cifar10(folder / "data"))
    values["data"] |= {part: {"type": "cifar10", "root": root, "split": split} for part, split in CIFAR_SPLITS.items()}
    values["model"]["img_size"] = 32
    return {"evaluation": adapter.evaluate_weights(values, drawn.encoder_weights(32, 4, embed_dim=16, depth=2))}


def data(folder: Path) -> dict[str, Values]:
    """Of each kind of source the first images: as decoded, as augmented, as evaluated, and in which order they come."""
    found: dict[str, Values] = {}
    for kind, (source, augment) in SOURCES.items():
        if kind in WRITERS:
            source = {**source, "root": str(WRITERS[kind](folder / kind))}
        pixels = kind == "scene_folder"
        decoded, augmented = adapter.first_images(source, augment, 16, pixels)
        _, plain = adapter.first_images(source, {**PLAIN, "size": augment["size"]}, 16, pixels)
        images = augmented.pop("image")
        found[kind] = {
            "decoded": {"sha256": sha256((f"{i:03d}", a) for i, a in enumerate(decoded))},
            "augmented": {"sha256": sha256([("image", images)]), "maps": sha256(augmented.items())},
            "plain": {"sha256": sha256(plain.items())},
            "split": {"sha256": sha256(adapter.split_of(source).items())},
        }
        found[kind]["decoded"]["means"] = [float(a.mean(dtype=np.float64)) for a in decoded]
        found[kind]["augmented"]["means"] = images.mean(axis=(1, 2, 3), dtype=np.float64).tolist()
    return {"data": found}


PROGRAMS: dict[str, Program] = {
    "data": data,
    "evaluation": evaluation,
    "pretrain_mae": pretrain(MAE),
    "pretrain_mlomae_linear": pretrain(LINEAR),
    "pretrain_mlomae_nca_pooled": pretrain(POOLED),
    "pretrain_hpm": pretrain(HPM),
    "classification_finetune": transfer("classification", FINETUNE, None, ("", "")),
    "classification_linear": transfer("classification", LINEAR_PROBE, drawn.write_class_folders, ("train", "test")),
    "segmentation_upernet": transfer("segmentation", SEGMENTATION, drawn.write_scenes, ("training", "validation")),
    "linear_segmentation": transfer(
        "linear_segmentation", LINEAR_SEGMENTATION, drawn.write_scenes, ("training", "validation")
    ),
    "detection_mask_rcnn": transfer("detection", DETECTION, drawn.write_objects, ("train", "val")),
}
