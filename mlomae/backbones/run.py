"""One transfer of a backbone to a task: `run_transfer` is common to all tasks, `TransferSteps` is a task's own part."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mmengine.dist import is_main_process
from torch import nn

import mlomae.data
from mlomae import placing, records
from mlomae.backbones.batches import EpochBatches, ImageLoader
from mlomae.backbones.config import DataConfig, TransferConfig, values_of
from mlomae.backbones.on_the_way import Tests, Validation
from mlomae.backbones.provenance import Provenance, check_unseen, describe_weights
from mlomae.backbones.results import check_copies, described, fitted, place_name, write_results
from mlomae.backbones.task import Task
from mlomae.backbones.training import TASK, GatheringMetric, TransferStep, evaluate
from mlomae.common import system
from mlomae.common.errors import CheckpointError, ConfigError, counted
from mlomae.common.numerics import Numerics, numerics_of
from mlomae.config.plugins import recorded_plugins
from mlomae.data import check_classes, check_disjoint
from mlomae.data.content import Contents, describe_contents
from mlomae.data.copies import save_digests
from mlomae.pretraining.continuing import check_continues, facts_of, finished_record
from mlomae.pretraining.devices import check_same_on_ranks, owned_by_run
from mlomae.pretraining.log import log_notes, run_log
from mlomae.pretraining.trainer import Trainer

AnyImages = TypeVar("AnyImages", bound=mlomae.data.Images)


@dataclass(frozen=True)
class Outcome:
    """The results of training and evaluation. ``clock``: wall-clock and processor seconds, without evaluation."""

    metrics: dict[str, Any]
    clock: dict[str, float]
    iterations: int = 0


@dataclass(frozen=True)
class TransferRun:
    """A transfer that has begun. ``git``: commit, and whether the checkout differed from it when the run began.
    ``classes``: names of what the model tells apart. ``on_the_way``: makes the loader of the images that
    ``train.eval_interval`` evaluates on, and their metric."""

    config: TransferConfig
    source: Provenance
    work_dir: Path
    resume: bool
    git: tuple[str | None, bool | None]
    numerics: Numerics
    contents: Contents
    task: Task | None = None
    classes: Sequence[str] = ()
    on_the_way: Tests | None = None

    def train(
        self,
        step: TransferStep,
        loader: ImageLoader,
        test_loader: ImageLoader,
        metric: GatheringMetric,
        section: dict[str, Any] | None = None,
    ) -> Outcome:
        """Train to the end, from a checkpoint or not, then evaluate with ``metric``; ``loader`` has the batches of the
        whole run. Under ``torchrun`` the process group must have been joined.

        ``section``: the backbone's architecture, for a task whose checkpoints are backbones themselves. The metrics
        returned are the losses that were logged last. Raises what `Trainer.train` raises, and CheckpointError on resume
        if the file of the backbone's weights has changed since.
        """
        batches = loader.batch_sampler
        assert isinstance(batches, EpochBatches)
        meta = {**self.meta(), **({} if section is None else {"model": section})}

        def batches_from(t: int) -> ImageLoader:
            options: dict[str, Any] = {"num_workers": loader.num_workers, "collate_fn": loader.collate_fn}
            return ImageLoader(loader.dataset, batch_sampler=batches.starting_at(t), **options)

        def check_origin(state: dict[str, Any]) -> None:
            if state["meta"]["origin"] != meta["origin"]:
                raise CheckpointError(
                    f"the backbone's weights are not those that the run in '{self.work_dir}' started from; put the "
                    "file back, or choose another work dir"
                )

        validation = self._validation(step)
        trainer = Trainer(
            TASK,
            step.config,
            self.work_dir,
            meta,
            model=step.model,
            modules=step.modules,
            optimizers={"model": step.optimizer},
            rates={"model": step.rates(batches.stop)},
            step=step,
            batches=batches_from,
            iterations=batches.stop,
            hooks=[validation] if validation else [],
            stateful={"validation": validation} if validation else {},
            resume=self.resume,
            check_resumed=check_origin,
        )
        chosen: dict[str, Any] = {}
        if validation:
            validation.trainer = trainer
        trainer.train()
        if validation and self.config.train.select == "best":
            chosen = validation.load_best()
        with run_log(self.work_dir):
            evaluate(step.model, test_loader, metric, step.config.train.log_interval)
        spent = validation.seconds if validation else {}
        clock = {kind: total - spent.get(kind, 0.0) for kind, total in trainer.clock.items()}
        return Outcome({**trainer.logged, **chosen}, clock, trainer.iterations)

    def _validation(self, step: TransferStep) -> Validation | None:
        train, what = self.config.train, "val" if self.config.data.val else "test"
        if not train.eval_interval or self.on_the_way is None or self.task is None:
            return None
        keep = train.select == "best"
        return Validation(step, self.on_the_way, what, self.task.headline, train.eval_interval, keep, self.work_dir)

    def meta(self) -> dict[str, Any]:
        """The contents of a checkpoint besides the configuration; ``origin`` is compared on resume."""
        source = self.source
        weights = {**source.identity, "sha256": source.details.get("sha256")}
        run: dict[str, Any] = {"name": self.config.name, "seed": self.config.seed, "git_commit": self.git[0]}
        run |= {"numerics": self.numerics, "data": self.contents, "task": self.task.name if self.task else ""}
        run |= {"classes": [str(name) for name in self.classes]}
        return {**run, "origin": weights, "pretrained": source.details, "labelled": source.labelled}

    def identity(self) -> dict[str, str]:
        """``run`` and ``config_hash``, by which a file of predictions names the record it belongs to."""
        digest = records.config_hash(described(self.config, self.source))
        name, seed = self.config.name, self.config.seed
        return {"run": records.run_phrase(self.source.method, name, seed), "config_hash": digest}


class TransferSteps(ABC):
    """The steps of a transfer that a task defines; `run_transfer` calls them in this order.

    ``train`` and ``test`` are the images that `open_data` returns.
    """

    train: Any
    test: Any

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def open_data(self) -> tuple[Any, Any]:
        """Training and test images, checked before anything is trained (`open_pair`)."""

    def open_images(self, source: dict[str, Any]) -> Any:
        """The images that a section such as ``data.val`` describes."""
        raise ConfigError(f"{type(self).__name__} reads no data.val; leave it out")

    @abstractmethod
    def build_model(self) -> tuple[nn.Module, str]:
        """The model, and the report of what was loaded into its backbone."""

    @abstractmethod
    def train_and_test(self, model: Any, run: TransferRun) -> Outcome:
        """Train, by `TransferRun.train` unless there is nothing to train, and evaluate on the test images."""

    def saved_modules(self, model: Any) -> Mapping[str, nn.Module]:
        """The modules that a checkpoint of ``model`` holds, by name."""
        saved: Mapping[str, nn.Module] = model.saved_modules()
        return saved

    def create_test(self) -> tuple[ImageLoader, GatheringMetric]:
        """A loader of the test images, each once over all ranks, and what measures a model on them
        (`mlomae.backbones.training.evaluate`)."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to test a trained model")

    @abstractmethod
    def save(self, run: TransferRun) -> Path | None:
        """Write predictions and pictures into the run's folder; the file of predictions to keep with the record."""


def run_transfer(
    task: Task,
    config: TransferConfig,
    work_dir: Path,
    resume: bool = False,
    records_dir: Path | None = None,
    source: Provenance | None = None,
) -> records.Record:
    """Transfer, evaluate on the test split, write record, predictions and pictures into ``work_dir``.

    ``records_dir``: also write the record there, and predictions beside it. ``source``: of the
    configuration's weights, where the caller has read them already. Returns the record on the main process, {} on
    others.

    Raises ConfigError if the folder already holds a run and ``resume`` is off, or one that is still going on, or if
    another process makes the run that ``records_dir`` is to have a record of; CheckpointError if the folder holds
    another run, DataError for test images whose labels the backbone was fine-tuned on, and what the steps of the task
    raise.
    """
    source = source or describe_weights(config.backbone.named_weights())
    place = records_dir and records_dir / place_name(config.name, source.method, config.seed)
    with owned_by_run(work_dir, *placing.owned_places(described(config, source), place)):
        return _run(task, config, work_dir, resume, place, source)


def _run(
    task: Task,
    config: TransferConfig,
    work_dir: Path,
    resume: bool,
    place: Path | None,
    source: Provenance,
) -> records.Record:
    config = fitted(config, source)
    finished = finished_record(work_dir, resume, described(config, source), TASK.free_to_change)
    git = system.git_state(Path(__file__).parent)  # now: the checkout may have moved on when the run ends
    plugins = recorded_plugins(config.to_dict(), task.steps.partition(":")[0])
    numerics = numerics_of(task.name, config.to_dict(), source.details.get("numerics"))
    steps: TransferSteps = task.create_steps(config)
    steps.train, steps.test = steps.open_data()
    on_the_way, parts = steps, {"train": steps.train, "test": steps.test}
    if config.data.val:
        parts["val"] = steps.open_images(config.data.val)
        on_the_way = copy.copy(steps)
        on_the_way.test = parts["val"]
        check_classes(steps.train, on_the_way.test)
    contents = describe_contents(parts)
    tests = on_the_way.create_test if config.train.eval_interval else None
    run = TransferRun(config, source, work_dir, resume, git, numerics, contents, task, steps.train.classes, tests)
    check_continues(work_dir, finished, config, run.meta(), TASK.format, TASK.free_to_change)
    copies, earlier = check_copies(config, steps.train, steps.test) if is_main_process() else ({}, None)
    if on_the_way is not steps and is_main_process():  # what is learned by heart would choose, or what is tested
        for training, evaluation in ((steps.train, on_the_way.test), (on_the_way.test, steps.test)):
            check_disjoint(training, evaluation, config.data.allow_near_copies)
    check_unseen(source.labelled, config.data.train, steps.test, config.data.allow_near_copies)
    describe: Callable[..., records.Record] = partial(
        records.make_record,
        task=task.name,
        name=config.name,
        method=source.method,
        dataset=steps.train.title,
        demo=config.demo,
        seed=config.seed,
        config=described(config, source),
        train_source=_describe_images(steps.train),
        eval_source=_describe_images(steps.test),
        git=git,
        numerics=numerics,
        data=contents,
        copies=copies,
        pretrained=source.details,  # which backbone it was; what it is belongs to the configuration
        **plugins,
    )
    seen = {"lower": 0, "head": 0, "upper": 0}
    names = {"classes": dict.fromkeys(steps.test.classes, 0.0)}  # as metrics may hold them
    to_be = describe(images_seen=seen, outer_iterations=0, clock={"wall": 0.0, "cpu": 0.0}, metrics=names)
    placing.check_place(to_be, work_dir, place, resume)
    model, report = steps.build_model()
    unknown = "pretraining images unknown: the backbone may have seen test images"
    log_notes(work_dir, [steps.train, steps.test], *([unknown] if copies.get("pretraining") == "unknown" else []))
    if is_main_process():
        counts, *others = report.splitlines()
        print("\n".join([counts, *(line for line in others if "note" in line)]))
    images = {"training images": len(steps.train), "test images": len(steps.test)}
    check_same_on_ranks(facts_of(config, run.meta()) | images)  # not all tasks train
    outcome = steps.train_and_test(model, run)
    if not is_main_process():
        return {}
    save_digests(work_dir, [steps.train], earlier)
    record = describe(
        images_seen={**seen, "lower": outcome.iterations * config.data.batch_size},
        outer_iterations=outcome.iterations,
        clock={kind: round(seconds, 2) for kind, seconds in outcome.clock.items()},
        metrics=outcome.metrics,
    )
    return write_results(record, work_dir, place and place.parent, steps.save(run))


def open_pair(data: DataConfig, build: Callable[[dict[str, Any]], AnyImages]) -> tuple[AnyImages, AnyImages]:
    """``data.train`` and ``data.test`` as ``build`` makes them.

    Raises DataError if their classes differ, and what ``build`` raises.
    """
    with values_of("data.train and data.test"):
        train, test = build(data.train), build(data.test)
    check_classes(train, test)
    return train, test


def _describe_images(images: mlomae.data.Images) -> str:
    """A description of images and their number, without the path of their folder."""
    return f"{images.describe()}, {counted(len(images), 'image')}".replace(images.root, Path(images.root).name)
