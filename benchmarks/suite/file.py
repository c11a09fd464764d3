"""The file of a suite: methods x tasks x data sets x seeds.

An MMEngine Python file. ``methods`` are pretraining configurations with changes, ``tasks`` the recipes with which every
backbone is transferred; ``{dataset}`` in a recipe's path is replaced by each of its ``datasets``. The file may lie
anywhere; paths in it are relative to its folder, or to the checkout's (``configs/...``). A suite names neither the
folders of the data nor the machine, so the same file works on a laptop and on a cluster.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.analysis.comparable import BASELINE, SAME_TIME
from benchmarks.tasks import all_tasks, get_task
from mlomae.common.errors import ConfigError
from mlomae.config.strict import build_dataclass, read_config
from mlomae.records import RANDOM, slug

ROOT = Path(__file__).parents[2]
EXAMPLES = "configs/suites/"


@dataclass
class MethodEntry:
    """A row: a pretraining configuration and what it changes in it.

    ``method``: the row's name, by default the configuration's. ``seeds``: by default the suite's. ``transfer``: whether
    its backbones are transferred to the tasks. ``cluster``: changes to the suite's for its pretrainings.
    """

    config: str
    method: str = ""
    options: dict = field(default_factory=dict)
    seeds: list | None = None
    transfer: bool = True
    cluster: dict = field(default_factory=dict)


@dataclass
class TaskEntry:
    """A recipe for each of ``datasets`` (one recipe, if there are none). ``methods``, ``seeds``: all by default.

    ``options``: changes to the recipe. ``name`` replaces the recipe's in tables and file names of records: give one
    where two suites whose methods have the same names use the same recipe. ``title``: of its columns in printed tables.
    ``task``: by default the name of the folder that the recipe is in. ``cluster``: changes to the suite's.
    """

    recipe: str
    datasets: list = field(default_factory=list)
    name: str = ""
    title: str = ""
    options: dict = field(default_factory=dict)
    methods: list | None = None
    seeds: list | None = None
    task: str = ""
    cluster: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.task = self.task or Path(self.recipe).parent.name

    @property
    def recipes(self) -> list[str]:
        return [self.recipe.replace("{dataset}", name) for name in self.datasets] or [self.recipe]

    def takes(self, method: str, seed: int) -> bool:
        """Whether a backbone is transferred with the recipe."""
        return (self.methods is None or method in self.methods) and (self.seeds is None or seed in self.seeds)


@dataclass
class Suite:
    """``same_time``: one of the methods; MAE trained for its processor time is added as a row. ``floor``: whether
    random weights are transferred too. ``options``: changes to all pretrainings. ``threads``: of each run, None for the
    machine's. ``cluster``: parameters of jobs for submitit's ``executor.update_parameters``; with ``nodes`` and
    ``gpus_per_node`` a job has a process for each GPU.

    ``demo``: a demonstration on the embedded textures, by default with the recipes of every task's `EmbeddedBench`. It
    has no methods: it transfers the backbones that the command names, or those that pretraining left in work_dirs. Its
    records stay in the folders of its runs and enter no table of results.
    """

    name: str
    methods: list = field(default_factory=list)
    seeds: list = field(default_factory=lambda: [0])
    tasks: list = field(default_factory=list)
    options: dict = field(default_factory=dict)
    same_time: str | None = None
    floor: bool = False
    threads: int | None = 1
    cluster: dict = field(default_factory=dict)
    demo: bool = False


def load_suite(path: Path) -> Suite:
    """Read and check a suite; ConfigError names what is wrong with it."""
    if not path.is_file():
        raise ConfigError(f"suite '{path}' does not exist; see {EXAMPLES} for the ones that ship")
    suite = build_dataclass(Suite, read_config(path, None, EXAMPLES))
    suite.methods = [build_dataclass(MethodEntry, values, f"methods[{i}]") for i, values in enumerate(suite.methods)]
    suite.tasks = [build_dataclass(TaskEntry, values, f"tasks[{i}]") for i, values in enumerate(suite.tasks)]
    for task in suite.tasks:
        task.recipe = _locate(task.recipe, task.recipes[0], path)
    if suite.demo and not suite.tasks:
        for known in all_tasks():  # the longest recipes first
            recipes = list(known.embedded.recipes.items()) if known.embedded else []
            suite.tasks += [TaskEntry(f"configs/{known.name}/{name}.py", title=t) for t, (name, _) in reversed(recipes)]
    for entry in suite.methods:
        entry.config = _locate(entry.config, entry.config, path)
        entry.method = entry.method or str(read_config(ROOT / entry.config, None, "configs/pretrain/")["method"])
    try:
        _check(suite)
    except ConfigError as error:
        raise ConfigError(f"suite '{path}': {error}") from error
    return suite


def _locate(named: str, example: str, suite: Path) -> str:
    """``named``, a path or a pattern of which ``example`` is one, in a suite's file: absolute if it is relative to that
    file, unchanged if it is relative to the checkout."""
    beside = suite.absolute().parent
    elsewhere = (ROOT / example).is_file() or Path(example).parts[:1] == ("configs",)
    return named if elsewhere and not (beside / example).is_file() else str(beside / named)


def _check(suite: Suite) -> None:
    names = [entry.method for entry in suite.methods]
    if bool(names) == suite.demo:
        raise ConfigError("it must have methods, or be a demo; give at least one pretraining configuration")
    _check_unique("method", names)
    for needed in (suite.same_time, BASELINE) if suite.same_time is not None else ():
        if needed not in names:
            raise ConfigError(f"same_time='{suite.same_time}' needs a method '{needed}'; add it")
    if taken := {SAME_TIME, RANDOM} & set(names):
        raise ConfigError(f"the name '{taken.pop()}' is that of a row that suites add; choose another")
    _check_seeds("seeds", suite.seeds)
    for entry in suite.methods:
        _check_seeds(f"seeds of '{entry.method}'", entry.seeds)
    rows = {*names, *([SAME_TIME] if suite.same_time else []), *([RANDOM] if suite.floor else [])}
    for task in suite.tasks:
        _check_task(task, rows)
    _check_unique("recipe", [task.name for task in suite.tasks if task.name])
    _check_unique("recipe", [recipe for task in suite.tasks if not task.name for recipe in task.recipes])


def _check_task(task: TaskEntry, rows: set[str]) -> None:
    try:
        get_task(task.task, ROOT / task.recipes[0])
    except ConfigError as error:
        raise ConfigError(f"recipe '{task.recipe}' needs task='...', or a folder named so ({error})") from error
    if ("{dataset}" in task.recipe) != bool(task.datasets):
        raise ConfigError(f"recipe '{task.recipe}' must contain {{dataset}} if it has datasets, and only then")
    if task.name and len(task.recipes) > 1:
        raise ConfigError(f"name='{task.name}' would name {len(task.recipes)} recipes; list them separately")
    _check_seeds(f"seeds of '{task.recipe}'", task.seeds)
    if unknown := [method for method in task.methods or [] if method not in rows]:
        raise ConfigError(f"recipe '{task.recipe}' is for '{unknown[0]}', which is not one of its methods")


def _check_unique(what: str, names: list[str]) -> None:
    twice = [name for name, count in Counter(map(slug, names)).items() if count > 1]
    if twice:
        raise ConfigError(f"it names {what} '{twice[0]}' twice (punctuation is ignored); rename one")


def _check_seeds(what: str, seeds: list[Any] | None) -> None:
    if seeds is None:
        return
    if not seeds or not all(type(s) is int and s >= 0 for s in seeds) or len(set(seeds)) < len(seeds):
        raise ConfigError(f"{what} must be distinct integers, at least 0; got {seeds!r}")
