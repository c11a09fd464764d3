"""What a method is compared with, by how much the two differ, and how much of an oracle's gain it captures."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.analysis.comparable import (
    BASELINE,
    EQUAL_IMAGES,
    SAME_TIME,
    Methods,
    differences,
    may_compare,
    names_precision,
    others_of,
    pool_key,
    same_images,
    seed_pairs,
)
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.statistics import Estimate, bootstrap_interval, seed_interval
from mlomae.backbones.task import check_same_test
from mlomae.records import RANDOM, Record

MIN_HEADROOM = 3.0  # percentage points; below it a share is noise over noise and is not given
FROZEN = "frozen at random"
UNGUIDED = ("random", "random_ratio", "block", "grid", "simmim", "colormae")  # random masks of any shape or ratio
COST_TOLERANCE = 0.15  # relative; runs further apart in processor time are not "same processor time" to each other


def reference_of(runs: list[Record], methods: Methods, evidence: Evidence) -> list[Record]:
    """The runs of MAE that ``runs`` are compared with; [] without one. Of several, the one with most common seeds."""
    method, images = runs[0]["method"], evidence.mean_cost(runs, "images_seen")
    if images is None:
        return []
    fits: list[tuple[float, float, str, list[Record]]] = []
    for others in others_of(methods, BASELINE, runs):
        seen, pairs = evidence.mean_cost(others, "images_seen"), len(seed_pairs(runs, others))
        if seen is None or not pairs:
            continue
        name = f"{others[0]['config_hash']} {pool_key(others[0])}"
        if method == SAME_TIME:
            if seen <= images * (1 + EQUAL_IMAGES):
                fits.append((seen, pairs, name, others))
        elif method == RANDOM or same_images(images, seen):
            fits.append((pairs, seen, name, others))
    return max(fits, key=lambda fit: fit[:3], default=(0.0, 0.0, "", []))[3]


def references_of(runs: list[Record], methods: Methods, evidence: Evidence) -> Iterator[list[Record]]:
    """The runs of every reference of a pretraining, among the methods of its setting: MAE of the same images, the same
    network frozen at random, MAE of the same processor time, and the strongest unguided mask."""
    if runs[0]["method"] in (BASELINE, SAME_TIME):
        return
    if baseline := reference_of(runs, methods, evidence):
        yield baseline
    if runs[0]["config"].get("mask", {}).get("type") == "learned":
        images = mean_or_nan(runs, "images_seen", evidence)
        for others in others_of(methods, FROZEN, runs):
            if same_images(images, mean_or_nan(others, "images_seen", evidence)):
                yield others
    for others in others_of(methods, SAME_TIME, runs):
        ours, theirs = ([pair[i] for pair in seed_pairs(runs, others)] for i in (0, 1))  # clocks of the same days
        ratio = mean_or_nan(theirs, "cpu_s", evidence) / mean_or_nan(ours, "cpu_s", evidence) if ours else math.nan
        if abs(ratio - 1.0) <= COST_TOLERANCE:
            yield others
    if strongest := _strongest(runs, methods, evidence):
        yield strongest


def mean_or_nan(runs: list[Record], cost: str, evidence: Evidence) -> float:
    """`Evidence.mean_cost`, NaN if it is unknown: no number is close to that."""
    known = evidence.mean_cost(runs, cost)
    return math.nan if known is None else known


def _strongest(runs: list[Record], methods: Methods, evidence: Evidence) -> list[Record]:
    """The best of the unguided masks that cost no more than ``runs``, by the linear probe over two common seeds or
    more; [] if it is MAE or its longer run, which are references anyway, and for an unguided mask."""
    if _unguided(runs):
        return []
    limit, found = mean_or_nan(runs, "cpu_s", evidence) * (1 + COST_TOLERANCE), []
    for others in methods:
        rival = _unguided(others) and not names_precision(others[0])
        if rival and mean_or_nan(others, "cpu_s", evidence) <= limit and len(pairs := seed_pairs(runs, others)) > 1:
            found.append((statistics.fmean(b["metrics"]["linear_top1_avg"] for _, b in pairs), others))
    best = max(found, key=lambda pair: pair[0], default=(0.0, []))[1]
    return best if best and best[0]["method"] not in (BASELINE, SAME_TIME) else []


def _unguided(runs: list[Record]) -> bool:
    config = runs[0]["config"]
    return config.get("mask", {}).get("type") in UNGUIDED and config.get("auxiliary") is None


def estimate(pairs: list[tuple[Record, Record]], metric: str, evidence: Evidence) -> Estimate:
    """The difference within ``pairs`` of the same seed, resampling images too where all runs have predictions.

    Raises DataError for predictions on different images.
    """
    tested = [(evidence.tested_of(a), evidence.tested_of(b)) for a, b in pairs]
    known = [(a, b) for a, b in tested if a and b and a.metric == metric]
    if len(known) < len(pairs):
        return seed_interval(differences(pairs, metric))
    remedy = "their records name the same data: give what differs a recipe of its own"
    for a, b in known:
        check_same_test(known[0][0], a, remedy)
        check_same_test(a, b, remedy)
    compared = ((a["config_hash"], b["config_hash"], str(a["seed"])) for a, b in pairs)
    found = bootstrap_interval([(a.sums, b.sums) for a, b in known], "|".join([metric, *map("|".join, compared)]))
    mean = statistics.fmean(differences(pairs, metric))  # bit for bit the mean that the task's own table rounds
    return replace(found, mean=mean)


def captured(
    runs: list[Record], baseline: list[Record], oracles: Sequence[list[Record]], metric: str, sign: int = 1
) -> tuple[float, float, list[Record]]:
    """(gain over MAE, share of the headroom, the best oracle's runs) over the seeds in common.

    ``oracles``: the runs of each. ``sign``: -1 for a metric of which lower is better. NaN where there is no seed in
    common, no oracle with all of them, or no headroom.
    """
    baseline = [r for r in baseline if may_compare(r, runs[0])]
    seeds = {r["seed"] for r in runs} & {r["seed"] for r in baseline}
    if not seeds:
        return math.nan, math.nan, []

    def mean(found: list[Record]) -> float:
        return statistics.fmean(r["metrics"][metric] for r in found if r["seed"] in seeds)

    paired = [[r for r in found if r["seed"] in seeds] for found in oracles if may_compare(found[0], runs[0])]
    complete = [found for found in paired if len(found) == len(seeds)]
    best = max(complete, key=lambda found: sign * mean(found), default=[])
    floor = mean(baseline)
    gain = mean(runs) - floor
    room = mean(best) - floor if best else 0.0
    return gain, gain / room if sign * room >= MIN_HEADROOM else math.nan, best
