"""Images per second and core of data loading (`make bench-data`): this checkout, an older one, and others' loaders.

Each loader has a process and one thread of its own; they take turns, in an order that rotates, so that other load on
the machine affects all of them. A ratio is the median over rounds of the ratio of processor seconds within a round,
with an interval that covers the median 95 times in 100. Images are the embedded textures as JPEG files, or a folder of
one's own. Loaders in memory have no files to read and are compared with the same stream of files.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import torchvision

from benchmarks.cost.loading.loaders import LOADERS, write_jpegs
from benchmarks.cost.median import median_interval
from mlomae.common import system
from mlomae.common.atomic import replacing
from mlomae.common.errors import ConfigError, DataError, exit_status
from mlomae.common.registry import check_choice, check_range

BATCHES = {32: 512, 64: 256, 224: 128}
"""Images of a batch by their side in pixels."""
OLD = "mlomae_1913902"
OLD_COMMIT = "1913902"


@contextmanager
def older_checkout(folder: Path | None) -> Iterator[Path | None]:
    """``folder``, or a checkout of OLD_COMMIT that is removed afterwards; None where there is no git history."""
    if folder is not None:
        yield folder
        return
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as made:
        git = ["git", "-C", str(here), "worktree"]
        added = subprocess.run([*git, "add", "--detach", f"{made}/old", OLD_COMMIT], capture_output=True)
        try:
            yield None if added.returncode else Path(made) / "old"
        finally:
            if not added.returncode:
                subprocess.run([*git, "remove", "--force", f"{made}/old"], capture_output=True)


class LoaderProcess:
    """One loader in a process of its own, with the protocol of `benchmarks.cost.loading.loaders`."""

    def __init__(self, name: str, root: Path, side: int, checkout: Path, log: Any) -> None:
        script = Path(__file__).parent / "loaders.py"
        command = [sys.executable, "-W", "ignore", str(script), name, str(root), str(side), str(BATCHES[side])]
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if not name.startswith(OLD):
            environment.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        self.name, self.log = name, log
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )

    def ask(self, line: str) -> dict[str, float]:
        """Raises DataError, with the last line of what it printed, if the loader fails."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
            answer: dict[str, float] = json.loads(self.process.stdout.readline())
        except (OSError, ValueError) as error:
            self.process.wait()
            self.log.seek(0)
            said = self.log.read().strip().splitlines() or ["no message"]
            raise DataError(f"loader '{self.name}' failed ({said[-1]}); leave it out with --loaders") from error
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def measure(root: Path, side: int, names: list[str], rounds: int, old: Path | None) -> list[dict[str, Any]]:
    """One row a loader: images per second and core, ratios to the others, bytes an image, memory of a worker."""
    own = Path(__file__).parents[3]
    names = [name for name in names if name != OLD or old is not None]
    with ExitStack() as stack:
        loaders = {}
        for name in names:
            log = stack.enter_context(tempfile.TemporaryFile("w+"))
            checkout = old if name == OLD and old is not None else own
            loaders[name] = LoaderProcess(name, root, side, checkout, log)
            stack.callback(loaders[name].close)
        for loader in loaders.values():
            loader.ask("2")  # warm up
        times: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds):
            first = turn % len(names)
            for name in [*names[first:], *names[:first]]:
                times[name].append(loaders[name].ask("2")["cpu_s"])
        rows = []
        for name in names:
            row: dict[str, Any] = {"side": side, "loader": name}
            rates = [2 * BATCHES[side] / t for t in times[name]]
            row["images_per_s"], row["images_per_s_low"], row["images_per_s_high"] = median_interval(rates)
            if name != names[0]:
                ratios = [theirs / ours for theirs, ours in zip(times[name], times[names[0]], strict=True)]
                row[f"{names[0]}_is_faster_by"], row["low"], row["high"] = median_interval(ratios)
            rows.append(row | loaders[name].ask("worker"))
    return rows


@exit_status
def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost.loading", description="Speed of data loading.")
    parser.add_argument("--sides", default="32,64,224", help="sides of the images in pixels, comma-separated")
    parser.add_argument("--loaders", default=",".join(LOADERS), help="comma-separated; the first is compared with all")
    parser.add_argument("--rounds", type=int, default=31, help="timed turns of every loader")
    parser.add_argument(
        "--root", type=Path, help="folder with train/<class>/*.jpg to read instead; with one of --sides"
    )
    parser.add_argument("--old", type=Path, help=f"a checkout of {OLD_COMMIT}; default: made from the git history")
    parser.add_argument("--out", type=Path, help="CSV file to write the numbers into")
    arguments = parser.parse_args(argv)
    names = [name for name in arguments.loaders.split(",") if name]
    for name in names:
        check_choice("", LOADERS, loaders=name)
    if "lightly" in names and not find_spec("lightly"):
        print("lightly: left out, because it is not installed (the extra 'peers')")
        names.remove("lightly")
    check_range("", "[1, inf)", rounds=arguments.rounds)
    sides = [int(side) if side.isdecimal() else 0 for side in arguments.sides.split(",")]
    if not sides or any(side not in BATCHES for side in sides) or (arguments.root and len(sides) > 1):
        raise ConfigError(f"--sides takes {', '.join(map(str, BATCHES))}, and one of them with --root")
    rows = []
    with older_checkout(arguments.old) as old, tempfile.TemporaryDirectory() as folder:
        if old is None and OLD in names:
            print(f"{OLD}: left out, because this is no git checkout with its history; --old names one")
        for side in sides:
            root = arguments.root or Path(folder) / str(side)
            if arguments.root is None:
                write_jpegs(root, side, 2 * BATCHES[side])
            rows += measure(root, side, names, arguments.rounds, old)
    frame = pd.DataFrame(rows)
    hardware, git = system.hardware(), system.git_state(Path(__file__).parent)
    print(frame.to_string(index=False, float_format=lambda value: f"{value:,.4g}"))
    print(f"{hardware['cpu']}, one thread; {arguments.rounds} rounds; torchvision {torchvision.__version__}")
    if arguments.out:
        frame = frame.assign(cpu=hardware["cpu"], commit=(git[0] or "")[:7], rounds=arguments.rounds)
        with replacing(arguments.out) as temporary:
            frame.to_csv(temporary, index=False, float_format="%.5g")


if __name__ == "__main__":
    sys.exit(main())
