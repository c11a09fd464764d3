"""What a transfer to any task begins and ends with; between them are the data and the model that are the task's own."""

from __future__ import annotations

import datetime
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric

import mlomae.data
from mlomae import records
from mlomae.backbones.batches import ImageLoader
from mlomae.backbones.finetuned import check_unseen
from mlomae.backbones.origin import Origin, describe_weights
from mlomae.backbones.records import Images, Settings, check_folder, describe_images, described
from mlomae.backbones.training import TransferStep, train_transfer
from mlomae.common.atomic import replacing
from mlomae.pretraining.devices import join_process_group
from mlomae.pretraining.trainer import Trainer


@dataclass(frozen=True)
class TransferRun:
    """A transfer that `begin_transfer` began. ``git``: commit and whether the checkout was dirty then."""

    config: Settings
    origin: Origin
    work_dir: Path
    resume: bool
    records_dir: Path | None
    git: tuple[str | None, bool | None]

    def train(
        self,
        step: TransferStep,
        loader: ImageLoader,
        test_loader: ImageLoader,
        metric: BaseMetric,
        section: dict[str, Any] | None = None,
    ) -> Trainer:
        """Train to the end, from a checkpoint or not, and evaluate; arguments and errors as `train_transfer`'s.

        ``section``: the backbone's architecture, where checkpoints are to be backbones themselves."""
        meta = {**self.meta(), **({} if section is None else {"model": section})}
        return train_transfer(step, loader, test_loader, metric, self.work_dir, meta, self.resume)

    def meta(self) -> dict[str, Any]:
        """What the checkpoints of a run keep beside its configuration; ``origin`` is compared on resume."""
        origin = self.origin
        weights = {**origin.identity, "sha256": origin.details.get("sha256")}
        run = {"name": self.config.name, "seed": self.config.seed, "git_commit": self.git[0]}
        return {**run, "origin": weights, "pretrained": origin.details, "labelled": origin.labelled}

    def check_test(self, test: mlomae.data.Images) -> None:
        """Raise DataError for test images whose labels the backbone was fine-tuned on."""
        check_unseen(self.origin.labelled, self.config.data.train, test)

    def record(
        self,
        task: str,
        train: Images,
        test: Images,
        *,
        iterations: int,
        clock: dict[str, float],
        metrics: dict[str, Any],
    ) -> dict[str, Any]:
        """Schema of `mlomae.records`. ``clock``: wall and processor seconds.

        The record's ``pretrained`` says which backbone it was; what it is belongs to the configuration.
        """
        config, portable = self.config, described(self.config, self.origin)
        return {
            "schema": records.SCHEMA,
            "name": config.name,
            "method": self.origin.method,
            "task": task,
            "dataset": train.name,
            "demo": config.demo,
            "seed": config.seed,
            "config": portable,
            "config_hash": records.config_hash(portable),
            "versions": records.versions(),
            "hardware": records.hardware(),
            "images_seen": {"lower": iterations * config.data.batch_size, "head": 0, "upper": 0},
            "outer_iterations": iterations,
            "wall_clock_s": round(clock["wall"], 2),
            "cpu_s": round(clock["cpu"], 2),
            "split_hash": None,
            "train_source": describe_images(train),
            "eval_source": describe_images(test),
            "pretrained": self.origin.details,
            "metrics": metrics,
            "git_commit": self.git[0],
            "git_dirty": self.git[1],
            "finished_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }

    def identity(self) -> dict[str, str]:
        """``run`` and ``config_hash``, by which a file of predictions names the record it belongs to."""
        digest = records.config_hash(described(self.config, self.origin))
        name, seed = self.config.name, self.config.seed
        return {"run": records.run_phrase(self.origin.method, name, seed), "config_hash": digest}

    def write(self, record: dict[str, Any], predictions: Path | None = None) -> None:
        """Into the run's folder, replacing the same run's, and into ``records_dir``, where nothing is ever replaced.

        ``predictions``: the file of the run's folder that is copied into the folder ``predictions`` beside
        ``records_dir``, before the record is there: whoever finds a record finds all that belongs to it.
        """
        path = self.work_dir / "record.json"
        path.unlink(missing_ok=True)
        records.write_record(record, path)
        if self.records_dir is None:
            return
        place = self.records_dir / f"{record['name']}_{records.slug(record['method'])}_seed{record['seed']}.json"
        if predictions is not None and not place.exists():  # or they would replace those of the record that is there
            with replacing(records.predictions_of(place.name, self.records_dir)) as temporary:
                shutil.copyfile(predictions, temporary)
        records.write_record(record, place)


def begin_transfer(
    config: Settings, work_dir: Path, resume: bool, records_dir: Path | None, origin: Origin | None
) -> TransferRun:
    """Look at the weights and the folder, and join the other processes; nothing is written yet.

    ``origin``: of the configuration's weights, where the caller has read them already.
    Raises ConfigError if the folder already holds a run and ``resume`` is off, CheckpointError if it holds another one.
    """
    origin = origin or describe_weights(config.backbone.weights or "")
    check_folder(work_dir, resume, described(config, origin))
    join_process_group()
    git = records.git_state(Path(__file__).parent)  # now: the checkout may have moved on when the run ends
    return TransferRun(config, origin, work_dir, resume, records_dir, git)


def print_loaded(report: str) -> None:
    """Of what was loaded into a backbone, the counts and the notes, on the main process."""
    if is_main_process():
        counts, *others = report.splitlines()
        print("\n".join([counts, *(line for line in others if "note" in line)]))
