"""`make gpu-evidence`: all that a CUDA device is needed for, in one command of limited length.

In this order: the tests that need a device, the speed of a step, the speed of loading, then CIFAR-10 at ViT-Tiny, seed
by seed: MAE, the learned mask, joint labels, and MAE for the learned mask's time. What is done is not repeated, and
what was stopped goes on, if the command is given again. It fetches nothing and makes no environment: packages that are
missing come from a folder of wheels. At the end there is one archive of records, tables and logs.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from mlomae.common.atomic import replacing, write_text
from mlomae.common.errors import ConfigError, exit_status
from mlomae.common.installing import installed
from mlomae.common.registry import check_range

ROOT = Path(__file__).parents[2]
SUITE = "configs/suites/gpu_cifar10.py"
ROWS = "mae,pooled,one_step,authors,mae_reference"  # of the speed of a step: a process each, which takes a while
LOADING = ["--rounds", "5", "--loaders", "mlomae,torchvision_pillow,timm"]
SEEDS = range(5)  # of that suite
MODULES = ("torch", "torchvision", "timm", "mmengine", "simplejpeg", "pandas", "sklearn", "threadpoolctl", "pytest")
MOST_EPOCHS = 200
IMAGES, STEPS = 50_000, 2  # of an epoch; of an outer iteration
RUNS = 4.3  # a seed, in runs of MAE: itself, 1.15 with joint labels, and two of the learned mask's length
EVALUATION = 20.0  # seconds of k-NN and linear probe, a run
LARGEST = 16_000_000  # bytes of the archive


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part that is not repeated once it has ended by itself. ``most``: of the time that is left."""

    name: str
    command: list[str]
    most: float


def stages(out: Path, setting: str, sides: str) -> list[Stage]:
    python, records = [sys.executable, "-m"], ["--records", str(out / "runs")]
    table = ["--out", str(out / "loading.csv")]
    return [
        Stage("tests", [*python, "tests.gpu_check"], 0.35),
        Stage("speed", [*python, "benchmarks.cost.speed", "--setting", setting, "--rows", ROWS, *records], 0.4),
        Stage("loading", [*python, "benchmarks.cost.loading", "--sides", sides, *LOADING, *table], 0.25),
    ]


class Evidence:
    """The folder of the command, what is done in it, and when it has to stop."""

    def __init__(self, out: Path, minutes: float) -> None:
        self.out, self.deadline = out, time.monotonic() + 60 * minutes
        self.out.mkdir(parents=True, exist_ok=True)
        path = out / "state.json"
        self.state: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
        paths = [str(out / "site"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    def keep(self, name: str, **numbers: float) -> None:
        self.state[name] = numbers
        write_text(self.out / "state.json", json.dumps(self.state, indent=1) + "\n")

    def run(self, name: str, command: list[str], seconds: float) -> int | None:
        """The status of ``command``, whose output goes into a log; None if it was stopped after ``seconds``."""
        log = self.out / f"{name}.log"
        print(f"{name}: at most {seconds:.0f} s, log in {log}", flush=True)
        with log.open("ab") as file:
            file.write(f"$ {shlex.join(command)}\n".encode())
            file.flush()
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                return process.wait(max(1.0, seconds))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGTERM)  # a run keeps a checkpoint
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                return None

    def run_stage(self, stage: Stage) -> None:
        if stage.name in self.state:
            print(f"{stage.name}: done, status {self.state[stage.name]['status']:.0f}")
            return
        if self.left <= 0:
            return
        started = time.monotonic()
        status = self.run(stage.name, stage.command, stage.most * self.left)
        print(f"{stage.name}: {'stopped' if status is None else f'status {status}'}", flush=True)
        if status is not None:
            self.keep(stage.name, status=status, seconds=round(time.monotonic() - started, 1))

    def install(self, wheels: Path | None) -> None:
        """Put the ``wheels`` of packages that are not installed into the folder ``site``. Raises ConfigError for a
        package that is missing then."""
        sys.path.insert(0, str(self.out / "site"))
        for wheel in sorted(wheels.glob("*.whl")) if wheels else []:
            name = wheel.name.partition("-")[0]
            if installed(name) is None:
                command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
                subprocess.run([*command, "--target", str(self.out / "site"), str(wheel)], check=True)
        importlib.invalidate_caches()
        if missing := [name for name in MODULES if importlib.util.find_spec(name) is None]:
            remedy = "put their wheels into a folder and name it with --wheels"
            raise ConfigError(f"missing packages: {', '.join(missing)}; {remedy}")

    def archive(self) -> Path:
        """Records, tables, logs and state as one file beside the folder. Raises ConfigError if it is too large."""
        path = self.out.with_name(f"{self.out.name}.tar.gz")
        with replacing(path) as temporary:
            with tarfile.open(temporary, "w:gz") as file:
                for part in sorted(self.out.iterdir()):
                    if part.name not in ("site", "work"):
                        file.add(part, f"{self.out.name}/{part.name}")
            if (size := temporary.stat().st_size) > LARGEST:
                raise ConfigError(f"the archive would have {size / 1e6:.0f} MB; remove the largest files of {self.out}")
        return path


def choose_iterations(seconds_each: float, seconds: float, batch: int) -> int:
    """Outer iterations of a run, such that one seed of all rows takes ``seconds``, where one of MAE takes
    ``seconds_each``; at most those of `MOST_EPOCHS`."""
    most = MOST_EPOCHS * IMAGES // (STEPS * batch)
    return max(1, min(most, int((seconds - RUNS * EVALUATION) / (RUNS * seconds_each))))


def time_mae(data: str, options: dict[str, object]) -> tuple[float, int]:
    """Seconds of an outer iteration of the suite's MAE here, and its batch size."""
    from benchmarks.suite.file import load_suite
    from benchmarks.suite.jobs import Planner
    from mlomae.pretraining.dry_run import timed_steps
    from mlomae.pretraining.pretrainer import Pretrainer
    from mlomae.pretraining.run import build_data

    suite = load_suite(ROOT / SUITE)
    suite.options |= options
    config = Planner(suite, roots={"cifar10": data}, seeds=[suite.seeds[0]]).jobs()[0].config
    loaded = build_data(config)
    each, *_ = timed_steps(config, loaded, Pretrainer(config, loaded.num_classes))
    return each, config.data.batch_size


def write_suite(path: Path, options: dict[str, object]) -> None:
    """The suite with ``options`` changed, as a file of its own."""
    lines = [f"_base_ = {os.path.relpath(ROOT / SUITE, path.parent)!r}", f"options = {options!r}"]
    write_text(path, "\n".join(lines) + "\n")


@exit_status
def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite.gpu_evidence", description=__doc__)
    parser.add_argument("--data", required=True, help="folder of CIFAR-10")
    parser.add_argument("--wheels", type=Path, help="folder with wheels of packages that are missing here")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/gpu_evidence"), help="folder of what is written")
    parser.add_argument("--minutes", type=float, default=8.0, help="when to stop (default: 8)")
    parser.add_argument("--setting", default="gpu", help="of the speed of a step (default: gpu)")
    parser.add_argument("--sides", default="32,224", help="of the images whose loading is timed")
    parser.add_argument("--cfg-options", nargs="*", default=[], metavar="KEY=VALUE", help="changes to the pretrainings")
    args = parser.parse_args(argv)
    check_range("", "(0, inf)", minutes=args.minutes)
    if not Path(args.data).is_dir():
        raise ConfigError(f"--data '{args.data}' does not exist; give the folder of CIFAR-10")
    evidence = Evidence(args.out.absolute(), args.minutes)
    evidence.install(args.wheels)
    from mlomae.config.strict import overrides

    options = overrides(args.cfg_options)
    for stage in stages(evidence.out, args.setting, args.sides):
        evidence.run_stage(stage)
    if "length" not in evidence.state and evidence.left > 0:
        each, batch = time_mae(args.data, options)
        length = choose_iterations(each, 0.9 * evidence.left, batch)
        evidence.keep("length", outer_iterations=length, seconds_each=round(each, 5))
        print(f"cifar10: {length} outer iterations of {STEPS} x {batch} images a run, {each:.3g} s each", flush=True)
    if "length" in evidence.state:
        options["train.outer_iterations"] = int(evidence.state["length"]["outer_iterations"])
        write_suite(evidence.out / "suite.py", options)
    for seed in SEEDS:  # all rows of one before the next
        command = [sys.executable, "-m", "mlomae", "suite", "run", str(evidence.out / "suite.py"), "--jobs", "1"]
        command += ["--data", f"cifar10={args.data}", "--records", str(evidence.out / "runs"), "--seeds", str(seed)]
        evidence.run_stage(Stage(f"seed {seed}", [*command, "--work-dir", str(evidence.out / "work")], 1.0))
    if unfinished := [f"seed {seed}" for seed in SEEDS if f"seed {seed}" not in evidence.state]:
        print(f"not finished: {', '.join(unfinished)}; give the command again to go on")
    print(f"written: {evidence.archive()}")
    failed = [name for name, found in evidence.state.items() if found.get("status")]
    print(f"failed: {', '.join(failed)}" if failed else "all that has ended has passed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
