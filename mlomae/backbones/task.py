"""A task that backbones are transferred to, and the registry of all tasks.

A task is one package. It registers its `Task` when it is imported: `benchmarks.tasks` imports every folder in it, and
`mlomae.classification`. Commands, suites, tables, the comparison and the report iterate `all_tasks`. Registering is
cheap: code that needs torch is named as "package.module:attribute" and imported on first use.

Shape suffixes: N images, F numbers an image, R replicates.
"""

import contextlib
import io
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlomae.common.errors import ConfigError, DataError
from mlomae.common.numerics import declare_numerics, number_of
from mlomae.common.registry import load_entry_points
from mlomae.records import config_hash

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A number in the records of a task.

    Attributes:
        name: its key in a record's ``metrics``. title: what tables call it.
        unit: of the value; differences of percentages are percentage points.
        higher_is_better: its direction.
        compared: whether the comparison of all methods shows it. The first metric of a task is always shown; add few
            others, because the correction for many comparisons weakens all of them.
    """

    name: str
    title: str
    unit: str = "%"
    higher_is_better: bool = True
    compared: bool = False


@dataclass(frozen=True)
class PublishedProtocol:
    """The published protocol that a recipe follows, in the terms of `results/published.csv`.

    ``metrics``: name of our metric -> the published one. ``note``: what the note of a published number must contain.
    """

    dataset: str
    metrics: Mapping[str, str]
    note: str = ""


@dataclass(frozen=True, eq=False)
class ImageSums:
    """A metric of one run that depends on the test images only through sums over them.

    Attributes:
        numbers_NF: int64 numbers of each image: whether it is correct, or how many pixels of each class are.
        metric: sums (R, F), and over how many images, -> the metric (R,).
    """

    numbers_NF: NDArray[np.int64]
    metric: Callable[[Floats, int], Floats]

    def whole(self) -> float:
        """The metric over the images as they are."""
        sums_F = self.numbers_NF.sum(axis=0, dtype=np.float64)
        return float(self.metric(sums_F[None], len(self.numbers_NF))[0])


@dataclass(frozen=True, eq=False)
class TestedRun:
    """The predictions of a run, in the form in which two runs are compared image by image.

    Attributes:
        file: name of the file. metric: the metric that ``sums`` give.
        run: `mlomae.records.run_phrase` of the run, None in files written before they held it.
        test_set: fingerprint of the test set. class_names: one for each class.
        index: (N,) which image of the test set. truth: (N, ...) its label, or its pixels of each class.
    """

    file: str
    metric: str
    sums: ImageSums
    run: str | None
    config_hash: str
    test_set: str
    class_names: tuple[str, ...]
    index: NDArray[np.int64]
    truth: NDArray[np.int64]


def check_same_test(a: TestedRun, b: TestedRun, remedy: str) -> None:
    """Raise DataError, with ``remedy``, unless both runs were tested on the same images with the same labels."""
    alike = {
        "test sets (fingerprints)": a.test_set == b.test_set,
        "classes": a.class_names == b.class_names,
        "images": np.array_equal(a.index, b.index),
        "labels": np.array_equal(a.truth, b.truth),
    }
    for what, same in alike.items():
        if not same:
            raise DataError(f"predictions '{a.file}' and '{b.file}' are of different {what}; {remedy}")


@dataclass(frozen=True)
class EmbeddedBench:
    """The transfers of a task to the embedded textures, which need no download. Suites with ``demo`` run them.

    Attributes:
        recipes: title of a transfer -> its configuration, a file of configs/TASK/ without suffix, and the processor
            seconds that it takes with a backbone of width 128 and depth 4 (AMD EPYC); the longest last.
        note: shown with the results; ``{train}`` and ``{test}`` are replaced by the numbers of images.
        outputs: lines that describe the files in the folder of a run.
        splits: name of a split -> options of `Textures`, for a task that reads files.
        write: "module:function" (folder, {split: textures}) that writes those files.
    """

    recipes: Mapping[str, tuple[str, float]]
    note: str
    outputs: tuple[str, ...]
    splits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    write: str = ""

    def effort(self, recipe: str) -> float:
        """The processor seconds of a recipe, 0 for one that is not among them."""
        return dict(self.recipes.values()).get(recipe, 0.0)

    def data_options(self, parent: Path) -> dict[str, str]:
        """Options by which the recipes find what `write_data` writes; the folder is named by what it holds."""
        if not self.splits:
            return {}
        digest = config_hash({"splits": self.splits, "numerics": number_of("data.textures")})
        root = str((parent / f"textures_{digest[:8]}").absolute())
        return {"data.train.root": root, "data.test.root": root}

    def write_data(self, parent: Path) -> None:
        """Write the images of ``splits`` below ``parent``, once."""
        from mlomae.data import Textures

        for root in {Path(root) for root in self.data_options(parent).values()}:
            if not root.is_dir():
                textures = {split: Textures(**options) for split, options in self.splits.items()}
                quietly_resolved(self.write)(root, textures)


def quietly_resolved(name: str) -> Any:
    """What "module:object" names. mmseg and mmdet print what they lack as they are imported, which is no news here."""
    with contextlib.redirect_stdout(io.StringIO()):
        return pkgutil.resolve_name(name)


@dataclass(frozen=True, eq=False)
class Task:
    """The description of a task for the rest of the project.

    Attributes:
        name: of the task in records, of its package, and of its folder below configs/. title: a heading.
        metrics: what its table shows; the first is the headline, in which methods are compared.
        config: "module:class" of its configuration, a `mlomae.backbones.config.TransferConfig`.
        steps: "module:class" of its `mlomae.backbones.run.TransferSteps`.
        outputs: the files of a finished run, for the last line of the command.
        averaged_over: what its metrics average over besides seeds.
        predictions: "module:function" (path) -> `TestedRun`, None if no file of predictions is kept with the records.
        predictor: "module:function" (`mlomae.backbones.load.LoadedTransfer`, images, folder, threshold), which writes
            what the trained model says of new images into the folder and returns the last line for the user; None if
            `mlomae predict` cannot use it.
        exporter: "module:function" (`LoadedTransfer`, folder), which writes the whole model for the library of its
            heads and returns a report. export_format: its name.
        numerics: version number of its results (`mlomae.common.numerics`); raise it when they may change.
        published: name of a recipe -> the published protocol that it follows.
        embedded: its transfers to the embedded textures.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    config: str
    steps: str
    outputs: str
    averaged_over: str = "test images"
    predictions: str | None = None
    predictor: str | None = None
    exporter: str | None = None
    export_format: str = ""
    numerics: int = 1
    published: Mapping[str, PublishedProtocol] = field(default_factory=dict)
    embedded: EmbeddedBench | None = None

    @property
    def headline(self) -> Metric:
        return self.metrics[0]

    @property
    def compared(self) -> list[Metric]:
        """The metrics that the comparison of all methods shows."""
        return [metric for metric in self.metrics if metric is self.headline or metric.compared]

    def load_config(self, path: str | Path, overrides: dict[str, Any] | None = None) -> Any:
        """Read an MMEngine Python config, apply ``--cfg-options`` style overrides, check it."""
        return quietly_resolved(self.config).load(path, overrides, f"configs/{self.name}/")

    def config_from_dict(self, values: dict[str, Any]) -> Any:
        """The configuration of plain values, as a checkpoint holds them, checked."""
        return pkgutil.resolve_name(self.config).from_dict(values)

    def create_steps(self, config: Any) -> Any:
        """The `TransferSteps` of a run; imports what the task needs to train."""
        return quietly_resolved(self.steps)(config)

    def read_predictions(self, path: Path) -> TestedRun | None:
        """The checked file of predictions; None for a task that keeps none. DataError for a file that is not usable."""
        return None if self.predictions is None else quietly_resolved(self.predictions)(path)


_TASKS: dict[str, Task] = {}


def register_task(task: Task) -> Task:
    """Register ``task`` under its name. Raises ValueError if the name is taken."""
    if task.name in _TASKS:
        raise ValueError(f"task '{task.name}' is registered twice")
    _TASKS[task.name] = task
    declare_numerics(task.name, task.numerics)
    return task


def all_tasks() -> list[Task]:
    """The registered tasks, those of installed plug-ins included, sorted by name."""
    load_entry_points()
    return [_TASKS[name] for name in sorted(_TASKS)]


def get_task(name: str, recipe: Path | None = None) -> Task:
    """The task of this name. One that is not registered may be among the ``custom_imports`` of its ``recipe``.

    Raises ConfigError, listing the registered tasks, for another name."""
    if name not in _TASKS:
        load_entry_points()
    if name not in _TASKS and recipe is not None and recipe.is_file():
        from mlomae.config.strict import read_config

        read_config(recipe, None, "configs/")
    if name not in _TASKS:
        raise ConfigError(f"unknown task '{name}'; choose one of {', '.join(sorted(_TASKS))}")
    return _TASKS[name]
