"""``mlomae masks``: the masks of several strategies side by side, on the same images, as a picture and as numbers.

A row is a configuration, whose model is untrained, or a checkpoint. Images are training images or a folder of
pictures; evaluation images are not read. Which images and which draws are functions of the seed.

The numbers go into a JSON file next to the picture. It holds the images too, so that a figure can be drawn again
without data set and checkpoints. A mask is a string, "1" where a patch is removed; weights are given where they differ.

Shape legend: B images, L patches, S image side in pixels.
"""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mlomae.common import random_keys
from mlomae.common.atomic import write_text
from mlomae.common.errors import ConfigError
from mlomae.common.registry import check_range
from mlomae.config.schema import PretrainConfig, load_config
from mlomae.data import Stream, build_augment, build_training_source
from mlomae.data.sets.own_images import Pictures
from mlomae.diagnostics.diagnose import object_options
from mlomae.diagnostics.pictures import MaskRow, mask_sheet, photographs, save_figure
from mlomae.pretraining.devices import to_device, training_device
from mlomae.pretraining.influence import Batch
from mlomae.pretraining.load import LoadedRun, load_run
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.records import config_hash, strip_paths


@dataclass
class Row:
    """A row of the picture; ``run`` is None for a model before training."""

    config: PretrainConfig
    run: LoadedRun | None = None

    @property
    def iteration(self) -> int:
        return 0 if self.run is None else self.run.iteration

    def build_model(self) -> Pretrainer:
        """Its feedback, on which no mask depends, keeps its initial weights."""
        torch.manual_seed(self.config.seed)
        if self.run is not None:
            return self.run.build_model()
        model = Pretrainer(self.config, 2)
        if self.config.init_from:
            model.start_from(self.config.init_from)
        return model.to(training_device()).eval()


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
    objects: str | None = None,
    object_values: list[int] | None = None,
) -> list[str]:
    """Write a picture whose first row is the images and whose others are strategies; returns the labels of those.

    Its numbers go into a file of the same name that ends in .json.

    Args:
        checkpoints: one whose run has the name of a configuration replaces its row, others follow.
        images: a folder of pictures of any size; else ``data.train`` of the first row, ``data_root`` its root.
        count: images, or all where there are fewer. draws: masks, rows, of each strategy.
        progress: for strategies with a schedule; by default that of the checkpoint, 0 for an untrained model.
        objects, object_values: a folder of masks of the images, and the values that are objects in them.

    Raises ConfigError for wrong options and for configurations of different image sizes, DataError for images that
    cannot be read, CheckpointError for a file that is no checkpoint.
    """
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out '{out}' must end in .png")
    if images is not None and data_root is not None:
        raise ConfigError("--images and --data both name images; give one of them")
    check_range("", "[1, inf)", count=count, draws=draws)
    if progress is not None:
        check_range("", "[0, 1)", progress=progress)
    rows = _rows(configs, checkpoints)
    root = {} if data_root is None else {"root": data_root}
    known = object_options(objects, object_values)
    training = rows[0].config.data.train | root | known
    source = Pictures(str(images), **known) if images is not None else build_training_source(training)
    for note in source.notes():
        print(f"{source.describe()}: {note}")
    size = rows[0].config.model.img_size
    stream = Stream(source, None, build_augment({"type": "Plain", "size": size}), seed, "masks")
    batch: Batch = stream.batch(0, min(count, len(stream)))
    shown: list[MaskRow] = []
    written = []
    iterations, when = [row.iteration for row in rows], ""
    labels = [row.config.method + (f", {n} iterations" if n else "") for row, n in zip(rows, iterations, strict=True)]
    if len(rows) > 1 and iterations[0] and len(set(iterations)) == 1:  # then the title says it
        labels, when = [row.config.method for row in rows], f", after {iterations[0]} outer iterations"
    for row, name in zip(rows, labels, strict=True):
        model = row.build_model()
        model.set_progress(row.iteration)
        if progress is not None:
            model.progress = progress
        for draw in range(draws):
            drawn = to_device({**batch, "key": random_keys.fold(batch["key"], draw)}, next(model.parameters()).device)
            with torch.no_grad():
                mask = model.choose_mask(model.mae.encoder.embed(drawn["image"]), drawn)
            label, grid = name if not draw else f"draw {draw + 1}", model.mae.encoder.grid
            shown.append((label, mask.mask, mask.weight, grid))
            weighted = not torch.equal(mask.weight, torch.ones_like(mask.weight))
            weights = [[float(f"{w:.4g}") for w in weight_L] for weight_L in mask.weight.tolist()]
            entry = {
                "label": label,
                "config_hash": config_hash(strip_paths(row.config.to_dict())),
                "seed": row.config.seed,
                "iteration": row.iteration,
                "grid": list(grid),
                "mask": ["".join("1" if m > 0.5 else "0" for m in mask_L) for mask_L in mask.mask.tolist()],
                "weight": weights if weighted else None,
            }
            written.append(entry)
    images_text = f"{source.name} {source.split}"
    legend = "; outlined: objects" if "object" in batch else ""
    title = f"{images_text}, seed {seed}{when}{legend}"
    names = [source.relative_path(i) for i in batch["index"].tolist()]
    save_figure(mask_sheet(batch["image"], shown, object_BSS=batch.get("object"), title=title, names=names), out)
    pictures = []
    for image_SS3 in (255 * photographs(batch["image"])).round().astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(image_SS3).save(file, format="PNG", optimize=True)
        pictures.append(base64.b64encode(file.getvalue()).decode("ascii"))
    numbers = {"source": images_text, "seed": seed, "images": pictures, "rows": written}
    write_text(out.with_suffix(".json"), json.dumps(numbers, indent=1) + "\n")
    return labels


def _rows(configs: Sequence[Path], checkpoints: Sequence[Path]) -> list[Row]:
    rows = [Row(load_config(path)) for path in configs]
    for path in checkpoints:
        run = load_run(path)
        trained = Row(run.config, run)
        same = [i for i, row in enumerate(rows) if row.run is None and row.config.name == trained.config.name]
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
                f"of {rows[0].config.model.img_size}; draw them separately, or set model.img_size"
            )
    return rows
