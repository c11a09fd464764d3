"""`mlomae.pretrain`: a pretraining from Python, with a strategy object or images in place of those of the config."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from mlomae.common.errors import ConfigError
from mlomae.config.schema import PretrainConfig, config_from_dict, load_config
from mlomae.data.images import Source
from mlomae.data.paths import existing_folder, subfolders
from mlomae.data.registry import registered_dataset
from mlomae.data.sets.own_images import TorchDataset, folder_config
from mlomae.masking.base import MaskingStrategy, registered
from mlomae.pretraining.loggers import logging_to
from mlomae.pretraining.run import run_pretraining
from mlomae.records import Record

Given = Dataset[Any] | str | os.PathLike[str]


def pretrain(
    config: PretrainConfig | Mapping[str, Any] | str | os.PathLike[str],
    *,
    strategy: MaskingStrategy | type[MaskingStrategy] | None = None,
    data: Given | None = None,
    eval_data: Given | None = None,
    overrides: Mapping[str, Any] | None = None,
    work_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    records_dir: str | os.PathLike[str] | None = None,
    log_to: Sequence[str] = (),
) -> Record:
    """Pretrain, evaluate on the held-out images, and return the record that is written to ``work_dir/record.json``.

    Args:
        config: a config file's path, its values, or a `PretrainConfig`. ``overrides``: changes to a file's values, by
            dotted keys, {"train.outer_iterations": 100}.
        strategy: used in place of ``mask.type``, at the config's ratio: an object, which is trained in place if it has
            parameters, or a class, which is called with (embed_dim, grid).
        data: training images in place of ``data.train``: a torch Dataset of (image, label), a folder of class folders
            or of pictures without labels, or a folder that holds ``train`` and perhaps ``test`` or ``val``.
        eval_data: held-out images for k-NN and linear probe in place of ``data.eval``; with ``data`` and without this
            nothing is evaluated, unless the folder has them.
        work_dir: of checkpoints, pictures and the record; default work_dirs/NAME_seedN. ``resume``: continue the run
            that it holds. ``records_dir``: write the record there as well. ``log_to``: loggers beside TensorBoard,
            "wandb", "mlflow" or "trackio" (`mlomae.pretraining.loggers`).

    Under torchrun the record is {} on all processes but the first. A folder of images is part of the config, so the run
    can be repeated by the command line. Of a strategy or a torch Dataset, the record and the checkpoints hold only the
    name of its class: to resume such a run, call this again with an equal object; `load_run` reads its checkpoint once
    the class is registered under its own name. The backbone needs neither: `embed`, `export` and `create_backbone` take
    the checkpoint as it is.

    Raises ConfigError for a configuration that is not usable or a folder that holds another run, DataError for images
    that cannot be read or that are used for training and evaluation, TrainingError if the training diverges.
    """
    if isinstance(config, str | os.PathLike):
        config = load_config(Path(config), dict(overrides or {}))
    elif overrides:
        raise ConfigError("overrides are for a config file; change the values of a config that you pass")
    values = config.to_dict() if isinstance(config, PretrainConfig) else dict(config)
    with ExitStack() as stack:
        if strategy is not None:
            builder = strategy if isinstance(strategy, type) else _builder_of(strategy)
            name, ratio = builder.__name__, values.get("mask", {}).get("ratio", 0.75)
            stack.enter_context(registered(name, builder))
            values["mask"] = {"type": name, "ratio": ratio}
        if data is not None or eval_data is not None:
            values["data"] = {**values.get("data", {}), **_sections(data, eval_data, stack)}
        run = config_from_dict(values)
        stack.enter_context(logging_to(log_to))
        folder = Path(work_dir or f"work_dirs/{run.name}_seed{run.seed}")
        return run_pretraining(run, folder, resume, None if records_dir is None else Path(records_dir))


def _builder_of(strategy: MaskingStrategy) -> Callable[..., MaskingStrategy]:
    """A builder for the registry of strategies, with the attributes that it asks a class for."""

    def build(embed_dim: int, grid: tuple[int, int]) -> MaskingStrategy:
        if strategy.grid != grid:
            raise ConfigError(f"the strategy is made for a patch grid {strategy.grid}, the model's is {grid}")
        return strategy

    build.__module__, build.__name__ = type(strategy).__module__, type(strategy).__name__
    for name in ("trainable", "adaptive", "scheduled"):
        setattr(build, name, getattr(strategy, name))
    return build


def _sections(data: Given | None, eval_data: Given | None, stack: ExitStack) -> dict[str, Any]:
    """What describes these images in the section ``data``; datasets are registered as long as ``stack`` is open."""
    given = {"train": data, "eval": eval_data}
    sections: dict[str, Any] = {} if data is None else {"eval": None, "feedback": None}
    datasets: dict[str, dict[str, Dataset[Any]]] = {}
    for part, images in given.items():
        if isinstance(images, str | os.PathLike):
            sections |= {part: folder_config(images)}
            base = existing_folder(images, "images")
            if part == "train" and "train" in (inner := subfolders(base)):
                held_out = next((name for name in ("test", "val") if name in inner), None)
                train = {"type": "imagefolder", "root": str(base), "split": "train"}
                sections |= {"train": train, "eval": {**train, "split": held_out} if held_out else None}
        elif images is not None:
            name, split = type(images).__name__, "train" if part == "train" else "test"
            datasets.setdefault(name, {})[split] = images
            sections[part] = {"type": name, "split": split}
    for name, splits in datasets.items():
        stack.enter_context(registered_dataset(name, _class_of(splits)))
    return sections


def _class_of(splits: dict[str, Dataset[Any]]) -> type[Source]:
    """A data set whose splits are these torch Datasets."""

    class Splits(TorchDataset):
        def __init__(self, split: str) -> None:
            super().__init__(splits[split], split)

    Splits.__module__ = type(next(iter(splits.values()))).__module__
    return Splits
