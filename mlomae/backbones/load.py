"""A transfer from its checkpoint: configuration, model and data; and the evaluation of its model."""

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import nn

from mlomae.backbones.config import TransferConfig
from mlomae.backbones.finetuned import architecture_of, load_transfer_state
from mlomae.backbones.run import TransferSteps
from mlomae.backbones.task import Task, all_tasks, get_task
from mlomae.backbones.training import evaluate
from mlomae.common.checkpoint import newest_checkpoint
from mlomae.common.errors import CheckpointError, ConfigError, MlomaeError
from mlomae.config.strict import merged
from mlomae.data import Images
from mlomae.data.content import describe_content
from mlomae.data.copies import check_trained_on, digests_of, find_copies, load_digests
from mlomae.models.loading import load_strict
from mlomae.models.places import sha256, weights_path
from mlomae.pretraining.devices import training_device
from mlomae.pretraining.log import warn


@dataclass
class LoadedTransfer:
    """A checkpoint of a transfer.

    Attributes:
        path: of the checkpoint. state: all that it holds (`mlomae.common.checkpoint`).
        task: what was learned. config: the run's, with the overrides it was loaded with.
    """

    path: Path
    state: dict[str, Any]
    task: Task
    config: TransferConfig

    @property
    def classes(self) -> list[str]:
        """Names of what the model tells apart; CheckpointError for a checkpoint of a version that kept none."""
        if not (names := self.state["meta"].get("classes")):
            raise CheckpointError(f"'{self.path}' names no classes, as it is of an early version; train it again")
        return list(names)

    def create_steps(self) -> TransferSteps:
        """The steps of its task, without data."""
        steps: TransferSteps = self.task.create_steps(self.config)
        return steps

    def build_model(self, steps: TransferSteps | None = None) -> nn.Module:
        """The trained model, in evaluation mode, on the GPU if there is one.

        ``steps``: with open data; without them the model gets the classes that the checkpoint names. Raises
        CheckpointError if the weights do not fit, or a frozen backbone, which a checkpoint does not hold, has changed
        since.
        """
        steps = steps or self.create_steps()
        if not hasattr(steps, "train"):
            steps.train = SimpleNamespace(classes=self.classes)
        steps.config = self._with_weights()
        try:
            model, _ = steps.build_model()
            for name, module in steps.saved_modules(model).items():
                load_strict(module, self.state["modules"][name])
        except (MlomaeError, KeyError) as error:
            raise CheckpointError(f"checkpoint '{self.path}' cannot be rebuilt: {error}") from error
        finally:
            steps.config = self.config
        return model.to(training_device()).eval()

    def _with_weights(self) -> TransferConfig:
        """The configuration, with a backbone that the checkpoint's weights replace, or the file of a frozen one."""
        backbone, meta = self.config.backbone, self.state["meta"]
        if "head" in self.state["modules"]:
            self._check_frozen(backbone.named_weights(), meta.get("origin", {}))
            return self.config
        if "backbone" in self.state["modules"]:
            model = architecture_of(self.path, self.state)
        elif not (model := dict(meta.get("model", {}))):
            return self.config
        return replace(self.config, backbone=replace(backbone, weights="random", model=model))

    def _check_frozen(self, weights: str, origin: dict[str, Any]) -> None:
        known, path = origin.get("sha256"), weights_path(weights)
        if known is None:  # of timm, or random
            return
        if not path.is_file():
            raise CheckpointError(f"it is a head on the frozen backbone '{weights}', which is gone; put the file back")
        if sha256(path) != known:
            raise CheckpointError(f"it is a head on the frozen backbone '{weights}', which has changed; put it back")


def load_transfer(path: str | Path, overrides: Mapping[str, Any] | None = None) -> LoadedTransfer:
    """Read a checkpoint, or the newest one of a run's folder.

    ``overrides``: keys of the configuration to change, e.g. {"data.test.root": "elsewhere"}. Raises CheckpointError for
    a file that is no checkpoint of a transfer, ConfigError for an unknown key, a wrong value or a task that is not
    registered.
    """
    path = newest_checkpoint(Path(path))
    state = load_transfer_state(path)
    meta = state["meta"]
    name = meta.get("task") or next((t.name for t in all_tasks() if t.name in meta.get("numerics", {})), "")
    try:
        task = get_task(name)
    except ConfigError as error:
        raise CheckpointError(
            f"'{path}' is of the task '{name}', which is not known here; the checkout of the repository has "
            "segmentation and detection, a plug-in is named with --custom-imports"
        ) from error
    try:
        config = task.config_from_dict(merged(state["config"], dict(overrides or {})))
    except ConfigError as error:
        raise ConfigError(f"checkpoint '{path}', config: {error}") from error
    return LoadedTransfer(path, state, task, config)


def evaluate_transfer(path: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, float]:
    """The metrics of a checkpoint's model on the test images of its own configuration.

    Arguments and errors as `load_transfer`, DataError for images that cannot be read, or that the model was trained on:
    a folder that is split by its files has other held-out images once some are added. Where ``data.allow_seen`` lets
    pretraining have seen them, which is not told apart here, that is a warning.
    """
    loaded = load_transfer(path, overrides)
    steps = loaded.create_steps()
    steps.train, steps.test = steps.open_data()
    _check_untrained(loaded, steps.test)
    model = loaded.build_model(steps)
    loader, metric = steps.create_test()
    evaluate(model, loader, metric, loaded.config.train.log_interval)
    return metric.summary


def _check_untrained(loaded: LoadedTransfer, test: Images) -> None:
    """Of other test images than those of the run, which it has compared itself."""
    tested, data = loaded.state["meta"].get("data", {}).get("test"), loaded.config.data
    if tested is not None and tested["content"] == describe_content(test)["content"]:
        return
    if not data.allow_seen:
        check_trained_on(loaded.path, test, f"; training of '{loaded.path}'", data.allow_near_copies)
    elif (known := load_digests(loaded.path)) is not None and (copies := find_copies(known, digests_of(test)).equal):
        warn(f"{len(copies):,} of {len(test):,} test images were among those of the training or the pretraining")


def export_transfer(loaded: LoadedTransfer, out: Path, fmt: str) -> str:
    """Write the whole model of a dense transfer for mmseg or mmdet, into the folder ``out``; the report.

    Raises ConfigError for another format than that of its task, or a folder that holds other things.
    """
    name = loaded.task.name
    if loaded.task.exporter is None:
        raise ConfigError(f"a model of {name} is exported to no other library; `mlomae predict` uses it")
    if fmt != loaded.task.export_format:
        raise ConfigError(f"a model of {name} is exported whole: --format {loaded.task.export_format}; got '{fmt}'")
    if out.exists() and (not out.is_dir() or {p.name for p in out.iterdir()} - {"config.py", "weights.pth"}):
        raise ConfigError(f"export target '{out}' holds other things; name a new folder")
    report: str = pkgutil.resolve_name(loaded.task.exporter)(loaded, out)
    return report
