"""Which numbers the code had that made each record, `results/numerics.json`: `python -m tests.traces.numerics_file`.

The numbers of 1913902, whose code the first traces were recorded with, are 1. A commit whose code reproduces the traces
of a part has the same number, one that does not has a smaller one; commits that agree with each other share it. Records
whose numbers are equal may be compared. The file also holds the SHA-256 of these records, which `mlomae records seal`
writes: one that was edited is found. Later records hold both themselves.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlomae.records import read_seals, seal_records

from . import adapter

Values = dict[str, Any]
RESULTS = Path(__file__).parents[2] / "results"
FIRST = 1  # what the code of 1913902 computes; NUMERICS will be raised, the numbers of these records will not
# Every commit that made a record, by date, with the numbers that are not FIRST.
# 7ec7bde drew other textures, and on the same pixels its three levels round differently (losses by 1e-7; MAE and the
# evaluation have the same bits). What a commit could not run, because it came later, was left out.
COMMITS: dict[str, dict[str, int]] = {
    "7ec7bdec6072d3fcd11445d77cc15d4415b315d3": {"pretraining": 0, "data.textures": 0},
    "810855b517aa6264c85bcb7ce9c12b636e6a5c55": {},
    "ae4ab90c46ef2540351986193f362fa1b7d93abb": {},
    "d9f1dc04562fdfa10b10d11effba222c356719f7": {},
    "22973f6bddb46732286b114decaa5c6722720250": {},
    "e6348b6289b3ae66daa611b9d18bb9a9bbc2e9bd": {},
    "ffed34477346d219565dff8776006efef235d933": {},
    "b1f267f4f55f3ec684781a3ce2eba6b90286896f": {},
    "34555fee1b3aac2760875cb4eadaf11ab1fdf615": {},
    "8d431f12709dc6fb6205cb12421d686cc1be7d60": {},
}


def numbers_of(record: Values, others: dict[tuple[Any, Any], Values]) -> dict[str, int]:
    """By part; those of its backbone from the record of its pretraining among ``others``, by configuration and seed.

    Raises ValueError for a commit that was never compared with the traces.
    """
    if record["git_commit"] not in COMMITS:
        raise ValueError(f"commit {record['git_commit']} is not in COMMITS; run the traces on its code first")
    weights = record["config"].get("backbone", {}).get("weights") or {}
    made = others.get((weights.get("config_hash"), record.get("pretrained", {}).get("seed")))
    backbone = {} if made is None else numbers_of(made, others)
    own = COMMITS[record["git_commit"]]
    parts = adapter.parts_of(record["task"], record["config"], backbone)
    given = {f"backbone.{part.removeprefix('backbone.')}": number for part, number in backbone.items()}
    return {part: given.get(part, own.get(part, FIRST)) for part in parts}


def contents(runs: Path) -> Values:
    """Of the file: name of each record in ``runs`` without a digest -> its numbers, and the SHA-256 that is kept.

    Raises DataError for a record that was edited.
    """
    seal_records(runs)
    kept = read_seals(runs)
    records = {name: json.loads((runs / name).read_text()) for name in kept if (runs / name).is_file()}
    others = {(record["config_hash"], record["seed"]): record for record in records.values()}
    return {name: {**kept[name], "numerics": numbers_of(record, others)} for name, record in records.items()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.traces.numerics_file", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder with runs/ (default: results)")
    results = parser.parse_args(argv).results
    path = results / "numerics.json"
    before = path.read_text() if path.exists() else ""
    found = contents(results / "runs")
    text = json.dumps(found, indent=1, sort_keys=True) + "\n"
    same = before == text
    path.write_text(text)
    other = sum(any(n != FIRST for n in kept["numerics"].values()) for kept in found.values())
    print(f"{'unchanged' if same else 'wrote'} {path.name}: {len(found)} records, {other} of them of other numbers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
