"""One transfer of a backbone to a task: `run_transfer` is common to all tasks, `TransferSteps` is a task's own part."""

import shutil
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
from mlomae.backbones.config import C, DataConfig, TransferConfig, values_of
from mlomae.backbones.provenance import Provenance, check_unseen, describe_weights
from mlomae.backbones.task import Task
from mlomae.backbones.training import TASK, GatheringMetric, TransferStep, evaluate
from mlomae.common import system
from mlomae.common.atomic import replacing
from mlomae.common.errors import CheckpointError
from mlomae.common.numerics import Numerics, numerics_of
from mlomae.common.ownership import owned
from mlomae.config.plugins import recorded_plugins
from mlomae.data import check_classes, check_disjoint
from mlomae.data.content import Contents, describe_contents
from mlomae.data.copies import Digests, check_trained_on, digests_of, find_copies, load_digests, save_digests
from mlomae.models.weights import weights_path
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
    ``task``: its name. ``classes``: names of what the model tells apart."""

    config: TransferConfig
    source: Provenance
    work_dir: Path
    resume: bool
    git: tuple[str | None, bool | None]
    numerics: Numerics
    contents: Contents
    task: str = ""
    classes: Sequence[str] = ()

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
            resume=self.resume,
            check_resumed=check_origin,
        )
        trainer.train()
        with run_log(self.work_dir):
            evaluate(step.model, test_loader, metric, step.config.train.log_interval)
        return Outcome(trainer.logged, trainer.clock, trainer.iterations)

    def meta(self) -> dict[str, Any]:
        """The contents of a checkpoint besides the configuration; ``origin`` is compared on resume."""
        source = self.source
        weights = {**source.identity, "sha256": source.details.get("sha256")}
        run: dict[str, Any] = {"name": self.config.name, "seed": self.config.seed, "git_commit": self.git[0]}
        run |= {"numerics": self.numerics, "data": self.contents, "task": self.task}
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
    contents = describe_contents({"train": steps.train, "test": steps.test})
    run = TransferRun(config, source, work_dir, resume, git, numerics, contents, task.name, steps.train.classes)
    check_continues(work_dir, finished, config, run.meta(), TASK.format, TASK.free_to_change)
    copies, earlier = check_copies(config, steps) if is_main_process() else ({}, None)
    check_unseen(source.labelled, config.data.train, steps.test)
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


def check_copies(config: TransferConfig, steps: TransferSteps) -> tuple[dict[str, Any], Digests | None]:
    """Compare the test images with those that the model is trained on and those that its backbone was pretrained on.

    Returns the counts of copies under "training" and "pretraining", "unknown" for foreign weights, and the digests of
    the latter, if they are known. Raises DataError as `check_disjoint`.
    """
    allowed, spec = config.data.allow_near_copies, config.backbone.weights or ""
    copies: dict[str, Any] = {"training": check_disjoint(steps.train, steps.test, allowed).counts()}
    earlier = None
    if not spec.startswith("random"):
        path, where = weights_path(spec), f"; pretraining of '{spec}'"
        if config.data.allow_seen:
            earlier = load_digests(path)
            counts = None if earlier is None else find_copies(earlier, digests_of(steps.test)).counts()
        else:
            earlier, counts = check_trained_on(path, steps.test, where, allowed)
        copies["pretraining"] = counts or "unknown"
    return copies, earlier


def place_name(name: str, method: str, seed: int) -> str:
    """The file of a transfer's record in a folder of records."""
    return f"{name}_{records.slug(method)}_seed{seed}.json"


def write_results(
    record: records.Record, work_dir: Path, records_dir: Path | None, predictions: Path | None
) -> records.Record:
    """Write the record into the run's folder, replacing the same run's, and into ``records_dir``, replacing nothing;
    returns it, or the one of the same results that is there already.

    ``predictions``: a file of the run's folder that is copied into the folder ``predictions`` of ``records_dir``
    before the record is written, so that no record is without its predictions.
    """
    name = place_name(record["name"], record["method"], record["seed"])
    place = None if records_dir is None else records_dir / name
    record = placing.keep_record(record, work_dir, place)
    if records_dir is None or place is None:
        return record
    with owned(records_dir, patience=60):  # the record and its predictions are of one run
        if predictions is not None and not place.exists():  # never replace those of an existing record
            with replacing(records.predictions_of(place.name, records_dir)) as temporary:
                shutil.copyfile(predictions, temporary)
        placing.place_record(record, place)
    return record


def open_pair(data: DataConfig, build: Callable[[dict[str, Any]], AnyImages]) -> tuple[AnyImages, AnyImages]:
    """``data.train`` and ``data.test`` as ``build`` makes them.

    Raises DataError if their classes differ, and what ``build`` raises.
    """
    with values_of("data.train and data.test"):
        train, test = build(data.train), build(data.test)
    check_classes(train, test)
    return train, test


def described(config: TransferConfig, source: Provenance) -> dict[str, Any]:
    """The configuration as a record keeps it: it identifies the backbone by its content, not by its path."""
    plain = fitted(config, source).to_dict()
    plain["backbone"]["weights"] = source.identity
    return dict(records.strip_paths(plain))


def fitted(config: C, source: Provenance) -> C:
    """The configuration with what follows from the backbone, so that its hash is the same whether that was written out
    or left out."""
    given = (config.backbone.model or {}).get("patch_size") or 16  # of "random"; other weights know theirs
    return config.fitted(source.patch_size or given)


def _describe_images(images: mlomae.data.Images) -> str:
    """A description of images and their number, without the path of their folder."""
    return f"{images.describe()}, {len(images)} images".replace(images.root, Path(images.root).name)
