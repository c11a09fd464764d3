"""A tiny suite on disk, and a launcher that makes records without training."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record_samples import make_record

from benchmarks.suite.completed import CompletedRuns
from benchmarks.suite.file import load_suite
from benchmarks.suite.jobs import PRETRAIN, Job, Planner
from benchmarks.suite.runner import SuiteRunner
from mlomae.backbones.results import described
from mlomae.records import write_record

TEXTURES = {"type": "textures", "size": 16, "classes": 4}
PRETRAINING = f"""
model = dict(size="tiny", img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2,
             decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2)
data = dict(train=dict(split="train", count=96, **{TEXTURES}), eval=dict(split="test", count=32, **{TEXTURES}),
            batch_size=8, feedback_batch_size=8)
name = "tiny"
method = "tiny"
train = dict(outer_iterations=2, amp="none", log_interval=1, picture_interval=9, checkpoint_interval=1)
mask = dict(type="random", ratio=0.75)
"""
RECIPE = f"""
name = "knn_DATASET"
protocol = "knn"
data = dict(train=dict(split="train", count=64, **{TEXTURES}), test=dict(split="test", count=32, **{TEXTURES}),
            evaluate=dict(crop_pct=1.0))
backbone = dict(img_size=16)
knn = dict(k=NEIGHBOURS)
train = dict(amp="none")
"""
LEARNED = {"mask.type": "learned", "mask.hidden": 8, "feedback.type": "nca"}


def write_suite(folder: Path, **changes: Any) -> Path:
    """MAE and a learned mask, transferred with two recipes; ``changes`` replace keys."""
    config = folder / "tiny.py"
    config.write_text(PRETRAINING)
    for k, dataset in enumerate(("a", "b"), start=3):
        recipe = folder / "classification" / f"knn_{dataset}.py"
        recipe.parent.mkdir(exist_ok=True)
        recipe.write_text(RECIPE.replace("DATASET", dataset).replace("NEIGHBOURS", str(k)))
    values: dict[str, Any] = {
        "name": "suite",
        "seeds": [0, 1],
        "methods": [
            {"method": "MLO-MAE", "config": str(config), "options": LEARNED},
            {"method": "MAE", "config": str(config)},
        ],
        "tasks": [{"recipe": str(folder / "classification" / "knn_{dataset}.py"), "datasets": ["a", "b"]}],
    } | changes
    path = folder / "suite.py"
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in values.items()))
    return path


class Records:
    """A launcher: notes what was asked for and leaves what a run would, ``seconds`` of processor time by method."""

    def __init__(self, folder: Path, seconds: dict[str, float] | None = None) -> None:
        self.folder, self.seconds = folder, seconds or {}
        self.started: list[str] = []
        self.at_once = self.most = 0
        self.jobs: Callable[[], list[Job]] = list
        self.fails: set[str] = set()
        self.stopped: set[str] = set()  # by a signal
        self.lock = threading.Lock()

    def __call__(self, command: list[str], log: Path, parameters: dict[str, Any]) -> int:
        label = Path(command[command.index("--work-dir") + 1]).name
        with self.lock:
            self.started.append(label)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        log.write_text("a first line\n" * 20 + f"error: {label} broke; mend it\n")
        job = next(job for job in self.jobs() if job.label == label)
        threading.Event().wait(0.02)
        with self.lock:
            self.at_once -= 1
        if label in self.fails:
            return 2
        if label in self.stopped:
            return 75
        if "--records" in command:
            write_record(record_of(job, self.seconds.get(job.method, 20.0)), self.folder / f"{label}.json")
        if job.task == PRETRAIN:
            job.checkpoint.parent.mkdir(exist_ok=True)
            job.checkpoint.touch()
        return 0


def record_of(job: Job, seconds: float = 20.0, **changes: Any) -> dict[str, Any]:
    """The record that ``job`` would leave."""
    values = {
        "name": job.config.name,
        "method": job.method,
        "task": job.task,
        "seed": job.seed,
        "config": described(job.config, job.backbone.source) if job.backbone else job.config.to_dict(),
        "cpu_s": seconds,
        "outer_iterations": 0 if job.backbone else job.config.train.outer_iterations,
        "metrics": {"top1": 50.0, "top5": 90.0, "mean_per_class": 50.0, "knn_top1_avg": 40.0},
        "numerics": job.numerics,
    }
    return make_record(**{**values, **changes})


def planner_of(suite: Path, folder: Path, **options: Any) -> Planner:
    """The runs of a suite in ``folder``/work, their records in ``folder``/runs."""
    return Planner(load_suite(suite), folder / "work", folder / "runs", **options)


def runner_of(suite: Path, folder: Path, launch: Records, at_once: int = 2, **options: Any) -> tuple[SuiteRunner, list]:
    """A runner over ``folder``/runs and ``folder``/work, and what it says."""
    said: list[str] = []
    planner = planner_of(suite, folder, **options)
    runner = SuiteRunner(planner, CompletedRuns(planner.records), launch, at_once, said.append)
    launch.jobs = lambda: runner.jobs
    return runner, said
