"""What figures are made from: the records that one panel may show together."""

import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.figure import Figure

from benchmarks.analysis.comparable import pool_key, setting_of
from mlomae.common.errors import DataError
from mlomae.records import Record, config_hash, grouped

RATIO = 0.75  # the paper's mask ratio: where several were run, only the figure of ratios shows the others
NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "tiny_imagenet": "Tiny-ImageNet", "imagenet": "ImageNet"}


class NothingToDrawError(Exception):
    """There are no records for a figure; the message says which runs are missing."""


@dataclass(frozen=True)
class Drawn:
    """A figure, the name of its files, and the files it was made from."""

    name: str
    figure: Figure
    sources: list[str]


def settings(records: list[Record]) -> dict[str, list[Record]]:
    """{title: runs that may be compared}, in a stable order; equal titles are numbered, that of most runs is not."""
    found = sorted(grouped(records, setting_of).values(), key=lambda runs: (_title(runs[0]), -len(runs)))
    titles = [_title(runs[0]) for runs in found]
    numbered = [
        f"{title}, setting {rank}" if (rank := titles[: i + 1].count(title)) > 1 else title
        for i, title in enumerate(titles)
    ]
    return dict(zip(numbered, found, strict=True))


def _title(record: Record) -> str:
    name = str(NAMES.get(record["dataset"], record["dataset"]))
    count = re.search(r"(\d[\d,]*) images", record["train_source"])
    return f"{name}, {int(count[1].replace(',', '')):,} training images" if count else name


def sweeps(records: list[Record]) -> list[dict[float, list[Record]]]:
    """Ratio -> runs by seed, for configurations that differ only in the mask ratio and their names.

    Only those with two ratios or more, in a stable order. DataError for a seed that occurs twice at a ratio.
    """
    alike: dict[tuple[str, str], dict[float, list[Record]]] = {}
    for r in sorted(records, key=lambda r: (r["method"], r["config_hash"], r["seed"])):
        mask = r["config"].get("mask")
        ratio = mask.get("ratio") if isinstance(mask, dict) else None
        if isinstance(ratio, int | float):
            rest = {k: v for k, v in mask.items() if k != "ratio"}
            same = config_hash({**r["config"], "mask": rest, "method": ""}) + pool_key(r)
            runs = alike.setdefault((setting_of(r), same), {}).setdefault(float(ratio), [])
            if any(other["seed"] == r["seed"] for other in runs):
                raise DataError(
                    f"two records hold seed {r['seed']} of {r['method']} at mask ratio {ratio:g} on {r['dataset']}; "
                    f"remove '{r['name']}'"
                )
            runs.append(r)
    return [dict(sorted(by_ratio.items())) for by_ratio in alike.values() if len(by_ratio) > 1]


def at_one_ratio(records: list[Record]) -> list[Record]:
    """``records``; where ratios were varied, only those at the ratio nearest to `RATIO`."""
    left_out: set[int] = set()
    for by_ratio in sweeps(records):
        kept = min(by_ratio, key=lambda ratio: abs(ratio - RATIO))
        left_out |= {id(r) for ratio, runs in by_ratio.items() if ratio != kept for r in runs}
    return [r for r in records if id(r) not in left_out]


def mean_and_bar(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, which is 0 for one seed: no bar."""
    found = list(values)
    return statistics.fmean(found), statistics.stdev(found) if found[1:] else 0.0


def count_phrase(found: Iterable[list[Record]]) -> str:
    """How many seeds groups have: "n = 5 seeds", "n = 1 to 5 seeds"."""
    counts = sorted({len(runs) for runs in found})
    if counts == [1]:
        return "n = 1 seed"
    return f"n = {counts[0]} seeds" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]} seeds"
