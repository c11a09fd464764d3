"""Every run that a suite asks for, resolved: its name, its command, the hash by which a record proves it."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.analysis.comparable import BASELINE, SAME_TIME
from benchmarks.process import ROOT
from benchmarks.suite.file import MethodEntry, Suite, TaskEntry
from benchmarks.tasks import get_task
from mlomae.backbones.provenance import Provenance
from mlomae.backbones.records import described
from mlomae.common.checkpoint import checkpoint_path
from mlomae.common.errors import ConfigError
from mlomae.config.schema import ModelConfig, load_config
from mlomae.models import SIZES
from mlomae.models.weights import Architecture
from mlomae.records import RANDOM, config_hash, slug, strip_paths

PRETRAIN = "pretrain"


@dataclass(frozen=True, eq=False)
class Job:
    """One run. ``title`` is its column in the grid; ``label`` names its folder and, with ``.json``, its record.

    ``options`` is what it changes in the configuration at ``path``; ``hash`` belongs to ``config`` as its record will
    have it. ``after``: the pretraining whose backbone it transfers.
    """

    task: str
    title: str
    method: str
    seed: int
    path: Path
    options: dict[str, Any]
    config: Any
    hash: str
    label: str
    after: Job | None = None

    def folder(self, work: Path) -> Path:
        return work / self.label

    def command(self, work: Path, records: Path | None) -> list[str]:
        """What runs it, and goes on with it if it was interrupted. Without ``records`` the record stays there."""
        start = ["mlomae.cli", "pretrain"] if self.task == PRETRAIN else ["mlomae.cli", "bench", self.task]
        command = [sys.executable, "-m", *start, str(self.path), "--work-dir", str(self.folder(work)), "--resume"]
        if records is not None:
            command += ["--records", str(records)]
        options = self.options if self.after is None else {**self.options, "backbone.weights": self.weights(work)}
        return [*command, "--cfg-options", *(f"{key}={value!r}" for key, value in options.items())]

    def weights(self, work: Path) -> str:
        """The backbone of a transfer, as its recipe takes it."""
        assert self.after is not None
        path = str(self.after.checkpoint(work))
        return f"random:{path}" if self.method == RANDOM else path

    def checkpoint(self, work: Path) -> Path:
        """The last checkpoint of a pretraining."""
        return checkpoint_path(self.folder(work), self.config.train.outer_iterations)


@dataclass
class Planner:
    """Resolves the entries of ``suite``. ``roots``: where data sets lie, by the type of their source; one that is not
    among them lies where its configuration says. ``seeds``: in place of the suite's own."""

    suite: Suite
    roots: dict[str, str] = field(default_factory=dict)
    seeds: list[int] | None = None

    def jobs(self) -> list[Job]:
        """All runs that are known from the start: pretrainings first, those that the same-time row waits for before all
        others, then transfers. Raises ConfigError for a wrong configuration or two runs of one label."""
        made = [job for entry in self._ordered() for job in self.pretrainings(entry)]
        if not made:
            raise ConfigError(f"suite '{self.suite.name}' has no run with seeds {self.seeds}; name others")
        made += [job for entry, found in self._with_transfers(made) for job in self.transfers(entry, found)]
        if self.suite.floor:
            made += self.floor([job for job in made if job.task == PRETRAIN])
        check_labels(made)
        return made

    @property
    def same_time_name(self) -> str:
        """The ``name`` of its records."""
        return f"{self.suite.name}_{slug(SAME_TIME)}"

    def same_time(self, length: int, made: list[Job]) -> list[Job]:
        """The same-time row: the baseline of ``made``, ``length`` outer iterations long, and its transfers."""
        entry = next(e for e in self.suite.methods if e.method == BASELINE)
        longer = MethodEntry(entry.config, SAME_TIME, {**entry.options, "train.outer_iterations": length}, entry.seeds)
        jobs = self.pretrainings(longer)
        jobs += self.transfers(longer, jobs)
        check_labels(made + jobs)
        return jobs

    def pretrainings(self, entry: MethodEntry) -> list[Job]:
        return [self._pretraining(entry, seed) for seed in self._seeds(entry.seeds)]

    def transfers(self, entry: MethodEntry, pretrained: list[Job]) -> list[Job]:
        """Of the backbones of ``pretrained``, the runs of one method."""
        if not entry.transfer:
            return []
        return [job for task, recipe in self._recipes(entry.method) for job in self._each(task, recipe, pretrained)]

    def floor(self, pretrained: list[Job]) -> list[Job]:
        """Random weights of the architecture of the first method's backbones, with its seeds."""
        first = [job for job in pretrained if job.method == pretrained[0].method]
        return [job for task, recipe in self._recipes(RANDOM) for job in self._each(task, recipe, first, RANDOM)]

    def _ordered(self) -> list[MethodEntry]:
        needed = (BASELINE, self.suite.same_time) if self.suite.same_time else ()
        return sorted(self.suite.methods, key=lambda entry: entry.method not in needed)

    def _with_transfers(self, made: list[Job]) -> list[tuple[MethodEntry, list[Job]]]:
        return [(entry, [job for job in made if job.method == entry.method]) for entry in self._ordered()]

    def _seeds(self, own: list[int] | None) -> list[int]:
        wanted = self.suite.seeds if own is None else own
        return wanted if self.seeds is None else [seed for seed in wanted if seed in self.seeds]

    def _recipes(self, method: str) -> list[tuple[TaskEntry, str]]:
        tasks = [task for task in self.suite.tasks if task.methods is None or method in task.methods]
        return [(task, recipe) for task in tasks for recipe in task.recipes]

    def _pretraining(self, entry: MethodEntry, seed: int) -> Job:
        options = {**self.suite.options, **entry.options}
        options |= {"name": f"{self.suite.name}_{slug(entry.method)}", "method": entry.method, "seed": seed}
        path = ROOT / entry.config
        config = load_config(path, options)
        sources = {part: getattr(config.data, part) for part in ("train", "eval", "feedback")}
        config = load_config(path, options := options | self._roots(sources))
        digest = config_hash(strip_paths(config.to_dict()))
        label = f"{config.name}_seed{seed}"
        return Job(PRETRAIN, PRETRAIN, entry.method, seed, path, options, config, digest, label)

    def _each(self, task: TaskEntry, recipe: str, pretrained: list[Job], method: str = "") -> list[Job]:
        wanted = [job for job in pretrained if task.seeds is None or job.seed in task.seeds]
        return [self._transfer(task, recipe, job, method or job.method) for job in wanted]

    def _transfer(self, task: TaskEntry, recipe: str, pretrained: Job, method: str) -> Job:
        options = {**task.options, "seed": pretrained.seed}
        if task.name:
            options["name"] = task.name
        path, load = ROOT / recipe, get_task(task.task).load_config
        config = load(path, options)
        sources = {part: getattr(config.data, part) for part in ("train", "test")}
        config = load(path, options := options | self._roots(sources))
        origin = floor_origin(pretrained.config.model) if method == RANDOM else origin_of(pretrained)
        digest = config_hash(described(config, origin))
        label = f"{config.name}_{slug(method)}_seed{pretrained.seed}"
        return Job(
            task.task, config.name, method, pretrained.seed, path, options, config, digest, label, after=pretrained
        )

    def _roots(self, sources: dict[str, Any]) -> dict[str, str]:
        found = {part: self.roots.get(str(source.get("type"))) for part, source in sources.items() if source}
        return {f"data.{part}.root": root for part, root in found.items() if root}


def origin_of(job: Job) -> Provenance:
    """What a transfer will say of the backbone that ``job`` makes; its file need not be there."""
    identity = {"method": job.method, "config_hash": job.hash, "iteration": job.config.train.outer_iterations}
    return Provenance(job.method, identity, {}, job.seed)


def floor_origin(model: ModelConfig) -> Provenance:
    """What a transfer will say of random weights of this architecture."""
    sizes = dict(zip(("embed_dim", "depth", "num_heads"), SIZES[model.size], strict=True))
    own = {key: value for key in sizes if (value := getattr(model, key)) is not None}
    architecture = asdict(Architecture(patch_size=model.patch_size, **(sizes | own)))
    del architecture["grid"]
    return Provenance(RANDOM, {"method": RANDOM, "architecture": architecture}, {})


def check_labels(jobs: list[Job]) -> None:
    """Raise ConfigError if two runs would share folder and record."""
    labels: dict[str, Job] = {}
    for job in jobs:
        other = labels.setdefault(job.label, job)
        if other is not job:
            raise ConfigError(
                f"'{job.label}' would be two runs ('{other.path.name}' and '{job.path.name}'); give one another name"
            )
