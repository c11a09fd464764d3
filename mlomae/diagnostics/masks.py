"""``mlomae masks``: the patterns of several strategies side by side, on the same images, as a picture and as numbers.

A row is a configuration, whose model is as training begins, or a checkpoint. Images are training images or a folder of
pictures; evaluation images are not opened. Which images and which draws are functions of the seed.

Shape legend: B images, L patches, S image side in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlomae.common import random_keys as counter
from mlomae.common.checkpoint import load_checkpoint
from mlomae.common.errors import CheckpointError, ConfigError, DataError, reason_of
from mlomae.config.schema import PretrainConfig, config_from_dict, load_config
from mlomae.data import FileSource, Source, Stream, build_augment, build_training_source
from mlomae.data.paths import LabelledFiles
from mlomae.data.reader import IMAGE_ENDINGS
from mlomae.diagnostics.mask_numbers import DrawnRow, mask_numbers, save_numbers
from mlomae.diagnostics.pictures import mask_sheet, save_figure
from mlomae.pretraining.devices import to_device
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.records import config_hash, strip_paths


@dataclass
class Row:
    """``state``: of a checkpoint, None for a model as training begins."""

    config: PretrainConfig
    state: dict[str, Any] | None = None

    @property
    def iteration(self) -> int:
        return 0 if self.state is None else int(self.state["iteration"])

    @property
    def config_hash(self) -> str:
        return config_hash(strip_paths(self.config.to_dict()))


def draw_masks(
    configs: Sequence[Path],
    checkpoints: Sequence[Path],
    out: Path,
    *,
    images: Path | None = None,
    data_root: str | None = None,
    count: int = 8,
    draws: int = 1,
    seed: int = 0,
    progress: float | None = None,
) -> list[str]:
    """Write a picture whose first row is the images and whose others are strategies; returns the labels of those.

    Its numbers go into a file of the same name that ends in .json (`mask_numbers`).

    Args:
        checkpoints: one whose run has the name of a configuration takes its row, others follow.
        images: a folder of pictures of any size; else ``data.train`` of the first row, ``data_root`` its root.
        count: images, or all where there are fewer. draws: masks, rows, of each strategy.
        progress: for strategies with a schedule; by default where the checkpoint is, 0 for a fresh model.

    Raises ConfigError for wrong options and for configurations of different image sizes, DataError for images that
    cannot be read, CheckpointError for a file that is no checkpoint.
    """
    _check(out, images, data_root, count, draws, progress)
    rows = _rows(configs, checkpoints)
    source = _folder(images) if images is not None else _training_images(rows[0].config, data_root)
    size = rows[0].config.model.img_size
    stream = Stream(source, None, build_augment({"type": "Plain", "size": size}), seed, "masks")
    batch: dict[str, Any] = stream.batch(0, min(count, len(stream)))
    drawn = []
    labels, when = _labels(rows)
    for row, name in zip(rows, labels, strict=True):
        model = _model(row)
        model.set_progress(row.iteration)
        if progress is not None:
            model.progress = progress
        for draw in range(draws):
            label = name if not draw else f"draw {draw + 1}"
            mask, weight = _mask(model, {**batch, "key": counter.fold(batch["key"], draw)})
            of = (row.config_hash, row.config.seed, row.iteration)
            drawn.append(DrawnRow(label, *of, mask, weight, model.mae.encoder.grid))
    words = f"{source.name} {source.split}"
    legend = "; darker: weighs more" if any(row.weighted for row in drawn) else ""
    shown = [(row.label, row.mask_BL, row.weight_BL, row.grid) for row in drawn]
    save_figure(mask_sheet(batch["image"], shown, title=f"{words}, seed {seed}{when}{legend}"), out)
    save_numbers(mask_numbers(batch["image"], drawn, words, seed), out.with_suffix(".json"))
    return labels


def _labels(rows: list[Row]) -> tuple[list[str], str]:
    """What rows are called. Of how many iterations they are is said once, in the title, where all are of as many."""
    iterations = [row.iteration for row in rows]
    if len(rows) > 1 and iterations[0] and len(set(iterations)) == 1:
        return [row.config.method for row in rows], f", after {iterations[0]} outer iterations"
    names = [row.config.method + (f", {n} iterations" if n else "") for row, n in zip(rows, iterations, strict=True)]
    return names, ""


def _check(
    out: Path, images: Path | None, data_root: str | None, count: int, draws: int, progress: float | None
) -> None:
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out '{out}' must end in .png")
    if images is not None and data_root is not None:
        raise ConfigError("--images and --data both name images; give one of them")
    if count < 1 or draws < 1:
        raise ConfigError(f"--count {count} and --draws {draws} must be at least 1")
    if progress is not None and not 0.0 <= progress < 1.0:
        raise ConfigError(f"--progress {progress} must be a share of the run inside [0, 1)")


def _rows(configs: Sequence[Path], checkpoints: Sequence[Path]) -> list[Row]:
    rows = [Row(load_config(path)) for path in configs]
    for path in checkpoints:
        state = load_checkpoint(path)
        trained = Row(config_from_dict(state["config"]), state)
        same = [i for i, row in enumerate(rows) if row.state is None and row.config.name == trained.config.name]
        if same:
            rows[same[0]] = trained
        else:
            rows.append(trained)
    if not rows:
        raise ConfigError("nothing to draw; name configurations of configs/pretrain/ or --checkpoints")
    for row in rows:
        if row.config.model.img_size != rows[0].config.model.img_size:
            raise ConfigError(
                f"'{row.config.name}' takes images of {row.config.model.img_size} pixels and '{rows[0].config.name}' "
                f"of {rows[0].config.model.img_size}; draw them apart, or set model.img_size"
            )
    return rows


def _folder(folder: Path) -> Source:
    """The pictures of a folder, without those of folders in it."""
    if not folder.is_dir():
        raise DataError(f"--images '{folder}' is not a folder; give one with pictures")
    files = sorted(file for file in os.listdir(folder) if file.lower().endswith(IMAGE_ENDINGS))
    if not files:
        raise DataError(f"--images '{folder}' holds no picture ({', '.join(IMAGE_ENDINGS)}); give a folder that does")
    place = folder.resolve()
    listed = LabelledFiles(place, files, np.zeros(len(files), dtype=np.int64))
    return FileSource("pictures", place.name, place, ["picture"], listed)


def _training_images(config: PretrainConfig, data_root: str | None) -> Source:
    root = {} if data_root is None else {"root": data_root}
    return build_training_source({**config.data.train, **root})


def _model(row: Row) -> Pretrainer:
    """The model of a row; its feedback, which no mask depends on, stays fresh and has two classes."""
    torch.manual_seed(row.config.seed)
    model = Pretrainer(row.config, 2)
    if row.state is not None:
        try:
            for name in ("mae", "mask"):
                getattr(model, name).load_state_dict(row.state["modules"][name])
        except (RuntimeError, KeyError) as error:
            name = row.config.name
            raise CheckpointError(
                f"the checkpoint of '{name}' does not fit its model ({reason_of(error)[:80]})"
            ) from error
    elif row.config.init_from:
        model.start_from(row.config.init_from)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


@torch.no_grad()
def _mask(model: Pretrainer, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Mask and weights, (B, L)."""
    batch = to_device(batch, next(model.parameters()).device)
    mask = model.choose_mask(model.mae.encoder.embed(batch["image"]), batch)
    return mask.mask, mask.weight
