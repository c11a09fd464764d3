"""A pretraining run from its checkpoint: configuration, model and data; and the evaluation of its encoder."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlomae.common.checkpoint import WRITTEN, load_checkpoint, newest_checkpoint
from mlomae.common.errors import CheckpointError, ConfigError
from mlomae.config.schema import PretrainConfig, config_from_dict
from mlomae.data import Stream, build_augment, build_source, check_classes, check_disjoint
from mlomae.data.copies import check_trained_on
from mlomae.feedback import is_dense
from mlomae.models.architecture import check_declared
from mlomae.models.loading import load_strict
from mlomae.pretraining.devices import training_device
from mlomae.pretraining.evaluation import check_probe, evaluate
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import PretrainData, build_data, probe_batches


@contextmanager
def _config_of(path: Path) -> Iterator[None]:
    """Errors about a configuration name the checkpoint that it is from."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"checkpoint '{path}', config: {error}") from error


@dataclass
class LoadedRun:
    """A checkpoint of a pretraining run. Data and models are built from ``config``, which may be changed before.

    Attributes:
        path: of the checkpoint.
        state: all that the checkpoint holds (`mlomae.common.checkpoint`), on the CPU.
        config: the run's, with the overrides it was loaded with.
    """

    path: Path
    state: dict[str, Any]
    config: PretrainConfig

    @property
    def iteration(self) -> int:
        """Outer iterations done."""
        return int(self.state["iteration"])

    @property
    def folder(self) -> Path:
        """Of the run; of a checkpoint that was moved, the folder it is in."""
        return self.path.parents[1] if self.path.parent.name == "checkpoints" else self.path.parent

    @cached_property
    def data(self) -> PretrainData:
        """Sources, split and streams, opened on first use; errors as `build_data`."""
        with _config_of(self.path):
            return build_data(self.config)

    @cached_property
    def model(self) -> Pretrainer:
        """`build_model` without the number of classes: ``model.mae.encoder`` is the pretrained encoder."""
        return self.build_model()

    def build_model(self, num_classes: int | None = None) -> Pretrainer:
        """A new model with the checkpoint's weights, in evaluation mode, on the GPU if there is one.

        A strategy or feedback that ``config`` has replaced starts fresh. So do the parts with an output for each class,
        feedback and auxiliary loss, without ``num_classes``. Raises CheckpointError for weights that do not fit.
        """
        check_declared(self.path, vars(self.config.model), self.state["modules"].get("mae", {}))
        with _config_of(self.path):
            model = Pretrainer(self.config, num_classes or 2)
        own = config_from_dict(self.state["config"])
        replaced = {name for name in ("mask", "feedback") if getattr(own, name) != getattr(self.config, name)}
        skipped = replaced if num_classes else replaced | {"feedback", "auxiliary"}
        for name, module in model.saved_modules().items():
            if name not in skipped:
                if name not in self.state["modules"]:
                    raise CheckpointError(f"'{self.path}' lacks 'modules.{name}'; {WRITTEN}")
                try:
                    load_strict(module, self.state["modules"][name])
                except CheckpointError as error:
                    raise CheckpointError(f"'{self.path}' does not fit its configuration: {name} {error}") from error
        model.set_progress(self.iteration)
        return model.to(training_device()).eval()

    def stream(self, level: str, name: str) -> Stream:
        """Images and augmentation of "lower", "head" or "upper" as in training, in an order that ``name`` decides."""
        data, config = self.data, self.config
        if level == "lower":
            lower = data.batches.lower
            return Stream(lower.source, lower.indices, lower.augment, config.seed, name)
        indices = data.split.train_indices if level == "head" else data.split.val_indices
        augment = build_augment({"size": config.model.img_size, **config.data.feedback_augment})
        return Stream(data.feedback, indices, augment, config.seed, name, is_dense(config.feedback["type"]))


def load_run(path: str | Path, overrides: Mapping[str, Any] | None = None) -> LoadedRun:
    """Read a checkpoint, or the newest one of a run's folder.

    ``overrides``: keys of the configuration to change, e.g. {"data.train.root": "elsewhere"}. Raises CheckpointError
    for a file that is no checkpoint of a pretraining, ConfigError for an unknown key or a wrong value.
    """
    path = newest_checkpoint(Path(path))
    state = load_checkpoint(path)
    with _config_of(path):
        config = config_from_dict(state["config"])
    if overrides:
        values = config.to_dict()
        for key, value in overrides.items():
            *sections, last = key.split(".")
            place: Any = values
            for depth, section in enumerate(sections, 1):
                place = place.get(section)
                if not isinstance(place, dict):
                    missing = ".".join(sections[:depth])
                    raise ConfigError(f"'{path}' was trained without {missing}, so that {key} cannot be set")
            place[last] = value
        config = config_from_dict(values)
    return LoadedRun(path, state, config)


def evaluate_checkpoint(path: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, float]:
    """k-NN and linear probe of a checkpoint's encoder on the held-out set of its own configuration.

    Arguments and errors as `load_run`; what it returns as `mlomae.pretraining.evaluation.evaluate`. Raises DataError,
    too, if the weights or the probes were trained on images of that set.
    """
    run = load_run(path, overrides)
    data = run.config.data
    if not data.eval:
        raise ConfigError(f"'{path}' was trained without data.eval; nothing to evaluate on")
    with _config_of(run.path):
        train, evaluation = build_source(data.train), build_source(data.eval)
    check_classes(train, evaluation)
    known, _ = check_trained_on(run.path, evaluation, f"; training of '{path}'", data.allow_near_copies)
    if overrides or known is None:  # else these are the images that the weights were trained on
        check_disjoint(train, evaluation, data.allow_near_copies)
    probes = probe_batches(run.config, train, evaluation)
    check_probe(*probes, "add images of another class to data.train, or raise data.probe_limit")
    encoder = run.model.mae.encoder
    return evaluate(encoder, *probes, encoder.cls_token.device)
