"""``python -m tests.stress [--full] [--seed S] [--only KIND ...] [--case TEXT] [--jobs N] [--out FILE]``

Without ``--full`` a sample of each kind. Prints the faults as they are found, each with the command that repeats it,
then the table; exit status 1 if there is a fault.
"""

import argparse
import importlib
import os
import pkgutil
import random
import shlex
import shutil
import sys
import tempfile
import time
import zlib
from pathlib import Path
from types import ModuleType

import torch

from tests.stress import kinds
from tests.stress.harness import Case, Result, run, sample
from tests.stress.table import run_phrase, table

KINDS = sorted(module.name for module in pkgutil.iter_modules(kinds.__path__))


def kind_of(name: str) -> ModuleType:
    return importlib.import_module(f"tests.stress.kinds.{name}")


def chosen(kind: str, shared: Path, seed: int, full: bool, text: str = "") -> list[Case]:
    """The cases of a kind that a full run or a sample has, or all those with ``text`` in their name."""
    module = kind_of(kind)
    cases = list(module.cases(shared, random.Random(zlib.crc32(f"{kind} {seed}".encode()))))
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), f"{kind}: two cases of one name"
    if text:
        return [case for case in cases if text in case.name]
    return sample(cases, getattr(module, "FULL", len(cases)) if full else module.SAMPLE, random.Random(seed))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--full", action="store_true", help="all cases, not a sample")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of all random moments and bits")
    parser.add_argument("--only", nargs="+", default=KINDS, choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--case", default="", metavar="TEXT", help="only cases with TEXT in their name")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time, one thread each (default: 2)")
    parser.add_argument("--out", type=Path, help="the table; other kinds in it stay (with --full: results/stress.md)")
    parser.add_argument("--list", action="store_true", help="the names of the cases")
    parser.add_argument("--keep", type=Path, help="folder for all files, by default a temporary one")
    args = parser.parse_args(argv)
    everything = args.full and not args.case and args.only == KINDS
    args.out = args.out or (Path("results/stress.md") if everything else None)
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    folder = args.keep or Path(tempfile.mkdtemp(prefix="stress-"))
    results: dict[str, list[Result]] = {}
    began, phrase = time.time(), run_phrase(args.seed, "all cases" if args.full else "a sample")
    for kind in args.only:
        (shared := folder / kind / "shared").mkdir(parents=True, exist_ok=True)
        cases = chosen(kind, shared, args.seed, args.full, args.case)
        if args.list:
            print("\n".join(f"{kind}: {case.name}" for case in cases))
            continue
        results[kind] = []
        for result in run(cases, folder / kind, args.jobs):
            results[kind].append(result)
            if result.fault is not None:
                which = f"--seed {args.seed} --only {kind} --case {shlex.quote(result.case.name)}"
                print(f"FAULT {kind}: {result.case.name}: {result.fault}")
                print(f"    again: python -m tests.stress {which}", flush=True)
        faults = sum(result.fault is not None for result in results[kind])
        print(f"{kind}: {len(cases) - faults} of {len(cases)}, {time.time() - began:.0f} s since the start", flush=True)
        if args.out:
            before = args.out.read_text(encoding="utf-8") if args.out.exists() else ""
            args.out.write_text(_table({kind: results[kind]}, phrase, before), encoding="utf-8")
    faults = sum(result.fault is not None for found in results.values() for result in found)
    if results:
        print(f"\n{_table(results, phrase)}")
    if not faults and args.keep is None:
        shutil.rmtree(folder)
    elif faults:
        print(f"{faults} faults; what the cases left: {folder}", file=sys.stderr)
    return 1 if faults else 0


def _table(results: dict[str, list[Result]], phrase: str, before: str = "") -> str:
    return table(results, {kind: kind_of(kind).WHAT for kind in results}, phrase, before)


if __name__ == "__main__":
    sys.exit(main())
