"""Resources that run out: files, memory; and what waits for ever: a pipe among the images."""

import os
import random
import resource
from collections.abc import Iterator
from pathlib import Path

from tests.stress.commands import Command
from tests.stress.harness import Case, Check
from tests.stress.runs import CLASSIFICATION_FILES, PRETRAINING, PRETRAINING_FILES, Prepared

WHAT = "what a run lacks is said in one line: never a traceback or an endless wait"
SAMPLE = 12
SECONDS = 60.0


def cases(shared: Path, chance: random.Random) -> Iterator[Case]:
    for run in (PRETRAINING, PRETRAINING_FILES, CLASSIFICATION_FILES):
        prepared = run.prepared(shared)
        for name, (kind, value) in LIMITS.items():
            yield Case(f"resources, {run.name}: {name}", _limited(prepared, kind, value))
    prepared = PRETRAINING_FILES.prepared(shared)
    yield Case("pipes: a FIFO among the images", _with_fifo(prepared), SECONDS)


LIMITS = {
    **{f"ulimit -n {n}": (resource.RLIMIT_NOFILE, n) for n in (8, 12, 16, 24, 40)},
    **{f"ulimit -v, {m} MiB more than now": (resource.RLIMIT_AS, m << 20) for m in (1, 16, 256)},
}


def _limited(prepared: Prepared, kind: int, value: int) -> Check:
    """Refused in a line, or it does not need that much."""

    def limit() -> None:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        soft = value + (now if kind == resource.RLIMIT_AS else 0)
        resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))

    def check(folder: Path) -> None:
        ended = prepared.start(folder, limit, resume=False).wait()
        if ended.status:
            ended.refused()
        else:
            ended.well()

    return check


def _with_fifo(prepared: Prepared) -> Check:
    """It is left out or refused; nobody waits for somebody to write into it."""

    def check(folder: Path) -> None:
        own = folder / "own"
        own.mkdir()
        config = Path(prepared.argv[-1])
        root = own / "data"
        for path in (config.parent / "data").rglob("*.jpg"):
            target = root / path.relative_to(config.parent / "data")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        os.mkfifo(root / "train" / "auk" / "pipe.jpg")
        (own / "tiny.py").write_text(config.read_text().replace(str(config.parent), str(own)))
        ended = Command(*prepared.argv[:-1], own / "tiny.py", "--work-dir", folder / "work").wait(0.9 * SECONDS)
        if ended.status:
            ended.refused(r"pipe\.jpg")

    return check
