"""THE ADAPTER: all that the traces know of the code under test. A redesign rewrites this file and no other of them.

What it hands over is in terms that outlive any code: plain dicts of configuration go in; the losses of every iteration,
the arrays of the last checkpoint and the numbers of the record come out. Imports of the project stay in functions, so
that a part that cannot be imported fails the traces that need it and no others.
"""

import json
import os
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Values = dict[str, Any]
CLOCKS = {"time", "data_time", "reading_share", "memory", "step"}  # of a line of the log: no function of training
YOUNGER = {
    "reconstruction_error",
    "feature_rank",
    "feature_spread",
    "knn_top1_middle",
    "linear_top1_middle",
}  # metrics that were not there when the traces were recorded


@dataclass(frozen=True)
class Run:
    """A finished run. ``losses`` and ``rates``: by name, one number an iteration (None where there was none);
    ``modules``: the state of every trained module by its name in the checkpoint; ``metrics``: the record's."""

    losses: dict[str, list[float | None]]
    rates: dict[str, list[float | None]]
    modules: dict[str, dict[str, torch.Tensor]]
    metrics: dict[str, Any]


def numerics(kinds: Iterable[str]) -> dict[str, int]:
    """The present number of every part; of data, of these kinds of sources."""
    import mlomae.pretraining  # noqa: F401
    from benchmarks.tasks import all_tasks
    from mlomae.common.numerics import number_of

    parts = ["pretraining", "evaluation", *(task.name for task in all_tasks()), *(f"data.{kind}" for kind in kinds)]
    return {part: number_of(part) for part in parts}


def parts_of(task: str, config: Values, backbone: dict[str, int]) -> list[str]:
    """The parts that a run of ``config`` depends on; those of its backbone begin with "backbone."."""
    import mlomae.pretraining
    from benchmarks.tasks import all_tasks
    from mlomae.common.numerics import numerics_of

    assert all_tasks()
    assert mlomae.pretraining
    return list(numerics_of(task, config, backbone))


def run_pretraining(values: Values, work_dir: Path, stop_after: int | None = None, resume: bool = False) -> Run | None:
    """A pretraining of ``values`` in ``work_dir``, to its end; None if it is to die after ``stop_after`` iterations."""
    from mlomae.config.schema import config_from_dict
    from mlomae.pretraining.run import run_pretraining

    def train() -> Any:
        return run_pretraining(config_from_dict(values), work_dir, resume=resume)

    return _finish(train, work_dir, stop_after)


def run_transfer(
    task: str, values: Values, work_dir: Path, stop_after: int | None = None, resume: bool = False
) -> Run | None:
    """As `run_pretraining`, for a transfer to ``task``: "classification", "segmentation" or "detection"."""
    from benchmarks.tasks import get_task
    from mlomae.backbones.run import run_transfer

    kind = get_task(task)

    def train() -> Any:
        return run_transfer(kind, pkgutil.resolve_name(kind.config).from_dict(values), work_dir, resume=resume)

    return _finish(train, work_dir, stop_after)


def predictions_of(task: str, work_dir: Path) -> dict[str, NDArray[Any]]:
    """What a finished transfer says of every test image: the numbers of its file of predictions, or its detections."""
    if task != "detection":
        name = "predictions.npz" if task == "classification" else "pixel_counts.npz"
        with np.load(work_dir / name, allow_pickle=False) as file:
            return {key: file[key] for key in file.files if file[key].dtype.kind in "fiu"}
    lines, masked = (json.loads((work_dir / f"detections.{kind}.json").read_text()) for kind in ("bbox", "segm"))
    rows = [(line["image_id"], line["category_id"], line["score"], *line["bbox"]) for line in lines]
    masks = "\n".join(line["segmentation"]["counts"] for line in masked)
    return {"detections": np.array(rows), "masks": np.frombuffer(masks.encode(), np.uint8)}


def first_images(
    source: Values, augment: Values, count: int, pixels: bool = False
) -> tuple[list[NDArray[np.uint8]], dict[str, NDArray[Any]]]:
    """The first ``count`` images of ``source`` as decoded, (3, H, W) each, and the first batch of as many of the lower
    level, augmented: "image" (B, 3, S, S), "index" (B,), and maps of objects or classes where there are any."""
    from mlomae.data import Stream, build_augment, build_training_source

    opened = build_training_source(source)
    stream = Stream(opened, None, build_augment(augment), 0, "lower", pixels)
    batch = stream.batch(0, count)
    kept = ("image", "index", "label", "object", "pixel_label")
    return [opened.image(i).numpy() for i in range(count)], {k: batch[k].numpy() for k in kept if k in batch}


def split_of(source: Values) -> dict[str, NDArray[np.int64]]:
    """The images of ``source`` that the head sees, "train", and those of the upper level, "val", by their indices."""
    from mlomae.data import build_training_source, split_train

    split = split_train(build_training_source(source), 0.2, 0)
    return {"train": np.asarray(split.train_indices), "val": np.asarray(split.val_indices)}


def evaluate_weights(values: Values, weights: dict[str, torch.Tensor]) -> dict[str, float]:
    """k-NN and linear probe of an encoder with ``weights``, as the pretraining of ``values`` evaluates its own."""
    from mlomae.config.schema import config_from_dict
    from mlomae.data import build_source
    from mlomae.pretraining.evaluation import PlainBatches, evaluate
    from mlomae.pretraining.pretrainer import Pretrainer

    config = config_from_dict(values)
    size, train = config.model.img_size, build_source(config.data.train)
    encoder = Pretrainer(config, len(train.classes)).mae.encoder
    encoder.load_state_dict(weights)
    found = evaluate(encoder, PlainBatches(train, size), PlainBatches(build_source(config.data.eval or {}), size))
    return {name: value for name, value in found.items() if name not in YOUNGER}


def _finish(train: Callable[[], Any], work_dir: Path, stop_after: int | None) -> Run | None:
    if stop_after is not None:
        return _die_after(train, stop_after)
    train()
    losses, rates = _read_log(work_dir)
    path = max((work_dir / "checkpoints").glob("iter_*.pth"), key=lambda p: int(p.stem.partition("_")[2]))
    modules = torch.load(path, map_location="cpu", weights_only=True)["modules"]
    metrics = json.loads((work_dir / "record.json").read_text())["metrics"]
    return Run(losses, rates, modules, {name: value for name, value in metrics.items() if name not in YOUNGER})


class _Killed(BaseException):
    """No Exception, so that nothing but `_die_after` catches it."""


def _die_after(train: Callable[[], Any], iterations: int) -> None:
    """Leave the run alone, without any farewell, once the checkpoint of ``iterations`` is in place.

    Not in a forked process: the threads of OpenMP do not survive a fork, and with more than one the child would hang.
    """
    replace = os.replace

    def replace_and_die(source: Any, target: Any, **options: Any) -> None:
        replace(source, target, **options)
        if Path(target).name == f"iter_{iterations}.pth":
            raise _Killed

    os.replace = replace_and_die
    try:
        train()
    except _Killed:
        return
    finally:
        os.replace = replace
    raise RuntimeError(f"the run that was to die after {iterations} iterations went on to its end")


def _read_log(work_dir: Path) -> tuple[dict[str, list[float | None]], dict[str, list[float | None]]]:
    """Losses and rates of all iterations.

    The log that the traces were recorded from repeated the last value of a loss in iterations without one, until the
    run was killed; this one does not, and here they are filled in.
    """
    from .programs import KILLED_AFTER

    rows = [json.loads(line) for line in (work_dir / "log.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert steps == list(range(1, len(rows) + 1)), f"the log has the iterations {steps}"
    names = {name for row in rows for name in row}
    columns = {name: [row.get(name) for row in rows] for name in sorted(names - CLOCKS)}
    for column in columns.values():
        for step in range(1, len(rows)):
            if column[step] is None and step != KILLED_AFTER:
                column[step] = column[step - 1]
    rates = {name: column for name, column in columns.items() if name.endswith("lr")}
    return {name: column for name, column in columns.items() if "loss" in name}, rates
