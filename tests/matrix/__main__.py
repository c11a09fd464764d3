"""``python -m tests.matrix [--only 3.13-newest ...] [--python 3.13=PATH ...] [--out FILE] [--keep FOLDER]``

Needs uv on PATH, the Pythons, some 10 GB of disk for a cell and the network. Exit status 1 if a cell failed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.matrix.cells import CELLS, ROOT, try_cell
from tests.matrix.table import run_phrase, table


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    names = {f"{cell.python}-{cell.packages}": cell for cell in CELLS}
    parser.add_argument("--only", nargs="+", default=list(names), choices=names, metavar="CELL", help=", ".join(names))
    parser.add_argument("--python", nargs="+", default=[], metavar="VERSION=PATH", help="if uv does not find it")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "matrix.md", help="other rows in it stay")
    parser.add_argument("--keep", type=Path, help="folder for logs, by default a temporary one")
    parser.add_argument("--list", action="store_true", help="the cells")
    args = parser.parse_args(argv)
    pythons = dict(pair.split("=", 1) for pair in args.python)
    folder, run, failed = args.keep or Path(tempfile.mkdtemp(prefix="matrix-")), run_phrase(), 0
    for name in args.only:
        print(name, flush=True)
        if args.list:
            continue
        cell = names[name]
        tried = try_cell(cell, folder / name, pythons, lambda line: print(line, flush=True))
        failed += tried.state == "failed"
        print(f"  {tried.state}{f': {tried.why}' if tried.why else f', {tried.tests}'}", flush=True)
        before = args.out.read_text(encoding="utf-8") if args.out.exists() else ""
        args.out.write_text(table([tried], run, before), encoding="utf-8")
    if failed:
        print(f"{failed} failed; logs: {folder}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
