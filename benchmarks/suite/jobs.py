"""Every run that a suite asks for, resolved: its name, its command, the hash and NUMERICS that its record will have."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.analysis.comparable import BASELINE, SAME_TIME
from benchmarks.analysis.data_sets import nested_sources
from benchmarks.suite.backbones import Backbone
from benchmarks.suite.file import ROOT, MethodEntry, Suite, TaskEntry
from benchmarks.tasks import get_task
from mlomae.backbones.provenance import Provenance
from mlomae.backbones.results import described
from mlomae.common.checkpoint import checkpoint_path
from mlomae.common.errors import ConfigError
from mlomae.common.numerics import Numerics, numerics_of
from mlomae.common.processes import command_line
from mlomae.config.schema import load_config
from mlomae.models.architecture import MODEL_KEYS, Architecture, check_model_section
from mlomae.records import RANDOM, config_hash, slug, strip_paths

PRETRAIN = "pretrain"


@dataclass(frozen=True, eq=False)
class Job:
    """One run.

    Attributes:
        title: its column in the grid.
        options: its changes to the configuration at ``path``; ``config`` is the result.
        label: its name in messages and files. folder, record: where the run and its record lie.
        backbone: the one that is transferred; None for a pretraining. after: the pretraining that makes the backbone.
        effort: its share of the work of all runs; in a demo, processor seconds.
        cluster: what it asks for as a job of a cluster.
    """

    task: str
    title: str
    path: Path
    options: dict[str, Any]
    config: Any
    label: str
    folder: Path
    record: Path
    backbone: Backbone | None = None
    after: "Job | None" = None
    effort: float = 1.0
    cluster: dict[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return self.backbone.method if self.backbone else str(self.config.method)

    @property
    def seed(self) -> int:
        return int(self.config.seed)

    @property
    def short(self) -> str:
        """What it is, for a display."""
        return f"{self.title}, {self.method}"

    @cached_property
    def portable(self) -> dict[str, Any]:
        """The configuration as its record keeps it."""
        return described(self.config, self.backbone.source) if self.backbone else strip_paths(self.config.to_dict())

    @cached_property
    def numerics(self) -> Numerics:
        """The NUMERICS that its record will have."""
        made = self.backbone.source.details.get("numerics") if self.backbone else None
        return numerics_of(self.task, self.portable, made)

    def command(self, keep_record: bool = True) -> list[str]:
        """The command that starts it, or resumes it if it was interrupted. ``keep_record``: whether it is a result."""
        kind = [PRETRAIN] if self.task == PRETRAIN else ["bench", self.task]
        command = command_line(*kind, str(self.path), "--resume")
        command += ["--work-dir", str(self.folder)]
        if keep_record and self.record.parent != self.folder:
            command += ["--records", str(self.record.parent)]
        # "auto" would be another precision, and another run, on a machine with other processors
        options = {**self.options, "train.amp": self.config.train.amp}
        return [*command, "--cfg-options", *(f"{key}={value!r}" for key, value in options.items())]

    @cached_property
    def hash(self) -> str:
        """``config_hash`` of its record."""
        return config_hash(self.portable)

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint of a pretraining."""
        return checkpoint_path(self.folder, self.config.train.outer_iterations)


@dataclass
class Planner:
    """Resolves the entries of ``suite``.

    Attributes:
        work: folder of the runs' folders. records: folder of their records; None to leave them in the runs' folders.
        roots: folders of data sets by the type of their source; others are where the configurations say.
        seeds: those of the suite's seeds to run, None for all.
        backbones: those of a demo. options: changes to the recipes of all transfers.
    """

    suite: Suite
    work: Path = Path("work_dirs")
    records: Path | None = None
    roots: dict[str, str] = field(default_factory=dict)
    seeds: list[int] | None = None
    backbones: list[Backbone] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def jobs(self) -> list[Job]:
        """All runs that are known from the start: pretrainings, beginning with those that the same-time row waits for,
        then transfers. Raises ConfigError for a wrong configuration or two runs of one label."""
        needed = (BASELINE, self.suite.same_time) if self.suite.same_time else ()
        entries = sorted(self.suite.methods, key=lambda entry: entry.method not in needed)
        pretrained = [(entry, self.pretrainings(entry)) for entry in entries]
        jobs = [job for _, runs in pretrained for job in runs]
        jobs += [job for entry, runs in pretrained for job in self.transfers(entry, runs)]
        if self.suite.floor:
            first = next((runs for _, runs in pretrained if runs), [])
            jobs += self._transfers([(floor_backbone(job), job) for job in first])
        jobs += self._transfers([(backbone, None) for backbone in self.backbones])
        if not jobs:
            which = f"with seeds {self.seeds}" if self.seeds is not None else "of these tasks"
            remedy = "; its tasks are those with an EmbeddedBench" if self.suite.demo else ""
            raise ConfigError(f"suite '{self.suite.name}' has no run {which}{remedy}")
        check_labels(jobs)
        return jobs

    def same_time(self, length: int, others: list[Job]) -> list[Job]:
        """The same-time row: the baseline, ``length`` outer iterations long, and its transfers."""
        entry = next(e for e in self.suite.methods if e.method == BASELINE)
        options = {**entry.options, "train.outer_iterations": length}
        longer = MethodEntry(entry.config, SAME_TIME, options, entry.seeds, cluster=entry.cluster)
        jobs = self.pretrainings(longer)
        jobs += self.transfers(longer, jobs)
        check_labels(others + jobs)
        return jobs

    def pretrainings(self, entry: MethodEntry) -> list[Job]:
        """One run per seed of a method."""
        jobs, path = [], ROOT / entry.config
        for seed in self.suite.seeds if entry.seeds is None else entry.seeds:
            if self.seeds is None or seed in self.seeds:
                options = {**self.suite.options, **entry.options}
                options |= {"name": f"{self.suite.name}_{slug(entry.method)}", "method": entry.method, "seed": seed}
                config = load_config(path, options)
                label = f"{config.name}_seed{seed}"
                jobs.append(self._job(PRETRAIN, PRETRAIN, path, options, config, label, entry.cluster))
        return jobs

    def transfers(self, entry: MethodEntry, pretrained: list[Job]) -> list[Job]:
        """The transfers of the backbones that ``pretrained``, the runs of a method, will make."""
        backbones: list[tuple[Backbone, Job | None]] = []
        for job in pretrained if entry.transfer else []:
            identity = {"method": job.method, "config_hash": job.hash, "iteration": job.config.train.outer_iterations}
            patch = job.config.model.patch_size
            source = Provenance(job.method, identity, {"numerics": job.numerics}, job.seed, patch_size=patch)
            backbones.append((Backbone(str(job.checkpoint), source, job.seed), job))
        return self._transfers(backbones)

    def _transfers(self, backbones: list[tuple[Backbone, Job | None]]) -> list[Job]:
        return [
            self._transfer(task, recipe, backbone, after)
            for task in self.suite.tasks
            for recipe in task.recipes
            for backbone, after in backbones
            if task.takes(backbone.method, backbone.seed)
        ]

    def _transfer(self, entry: TaskEntry, recipe: str, backbone: Backbone, after: "Job | None") -> Job:
        options = {**entry.options, "seed": backbone.seed, **({"name": entry.name} if entry.name else {})}
        task, path = get_task(entry.task), ROOT / recipe
        if self.suite.demo and task.embedded:
            options |= {"demo": True, **task.embedded.data_options(self.data_folder)}
        options |= {**self.options, "backbone.weights": backbone.weights}
        config = task.load_config(path, options)
        label = f"{config.name}_{slug(backbone.method)}_seed{backbone.seed}"
        if self.suite.demo:
            one_task = len({entry.task for entry in self.suite.tasks}) == 1
            label = f"{'' if one_task else f'{task.name}/'}{backbone.folder}/{path.stem.removesuffix('_textures')}"
        effort = task.embedded.effort(path.stem) if self.suite.demo and task.embedded else 1.0
        more, title = (backbone, after, effort), entry.title or config.name
        return self._job(task.name, title, path, options, config, label, entry.cluster, *more)

    def _job(
        self,
        task: str,
        title: str,
        path: Path,
        options: dict[str, Any],
        config: Any,
        label: str,
        cluster: dict[str, Any],
        backbone: Backbone | None = None,
        after: Job | None = None,
        effort: float = 1.0,
    ) -> Job:
        """The run of ``config``, its sources in the folders of ``roots``; ``cluster``: changes to the suite's."""
        for part in ("train", "eval", "test", "feedback"):
            for key, source in nested_sources(f"data.{part}", getattr(config.data, part, None) or {}):
                if source.get("type") in self.roots:
                    options[f"{key}.root"] = source["root"] = self.roots[source["type"]]
        folder = self.work / label
        record = folder / "record.json" if self.records is None else self.records / f"{label}.json"
        asked = {**self.suite.cluster, **cluster}
        return Job(task, title, path, options, config, label, folder, record, backbone, after, effort, asked)

    @property
    def data_folder(self) -> Path:
        """Where a demo writes the data of the tasks that read files."""
        return self.work / "data"


def floor_backbone(job: Job) -> Backbone:
    """Random weights of the architecture that the pretraining ``job`` has."""
    section = check_model_section({key: getattr(job.config.model, key) for key in MODEL_KEYS})
    identity = {"method": RANDOM, "architecture": Architecture(**section).section()}
    source = Provenance(RANDOM, identity, {}, patch_size=job.config.model.patch_size)
    return Backbone(f"random:{job.checkpoint}", source, job.seed)


def check_labels(jobs: list[Job]) -> None:
    """Raise ConfigError if two runs would share a folder and a record."""
    labels: dict[str, Job] = {}
    for job in jobs:
        if (other := labels.setdefault(job.label, job)) is not job:
            raise ConfigError(
                f"'{job.label}' would be two runs ('{other.path.name}' and '{job.path.name}'); rename one of them"
            )
