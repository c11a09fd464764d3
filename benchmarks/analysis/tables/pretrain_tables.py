"""The tables of pretraining runs: all of them, the headroom that methods capture, and differences seed by seed.

Headroom is what an oracle, which knows the objects, gains over MAE with random masks:

    share = (method − MAE) / (best oracle − MAE)

"Best" is the oracle of highest mean accuracy, over its biases and weights; all three means are over shared seeds. All
runs of a comparison agree on data, splits, model, outer iterations and batch sizes: 0 is no better than random masks, 1
as good as knowing the objects, and on a data set without headroom no two methods can be told apart.

The table of differences is the one to read before calling one method better than another. Every method is compared with
each of its references that has runs of the same seeds: MAE (same images seen), for learned masks the masking network
frozen at its random initial values (same images), and MAE of the same processor time (more images).
"""

import math
import statistics
from collections.abc import Iterator, Sequence

from benchmarks.analysis.comparable import (
    BASELINE,
    EQUAL_IMAGES,
    METRICS,
    SAME_TIME,
    Methods,
    configurations,
    is_oracle,
    may_compare,
    methods_of,
    others_of,
    same_images,
    seed_pairs,
)
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.tables.table import (
    COPIES,
    ORACLE,
    OWN,
    RIVAL,
    SOURCES,
    VERDICTS,
    Column,
    Row,
    Table,
    difference_of,
    interval,
    keys,
    mean_and_sd,
    pair_sources,
    row_of,
    signed,
    spread,
    spread_text,
)
from mlomae.records import Record

ACCURACIES = ("linear_top1_cls", "linear_top1_avg", "knn_top1_cls", "knn_top1_avg")
MIN_HEADROOM = 3.0  # percentage points; below it a share is noise over noise and is not given
FROZEN = "frozen at random"
REFERENCES = (BASELINE, FROZEN, SAME_TIME)
UNGUIDED = ("random", "random_ratio", "block", "grid", "simmim", "colormae")  # random masks of any shape or ratio
COST_TOLERANCE = 0.15  # relative; runs further apart in processor time are not "same processor time" to each other


def _pretrain_rows(evidence: Evidence) -> list[Row]:
    """One row per (data set, method, configuration), compared with the best MAE that has seen the same images."""
    rows = []
    for runs, methods in configurations(evidence.of_task("pretrain"), any_start=True):
        row = row_of(runs, [*ACCURACIES, "feedback_accuracy", "feedback_chance"])
        row["labelled_seen"] = statistics.fmean(r["images_seen"]["head"] + r["images_seen"]["upper"] for r in runs)
        baselines = [others for others in others_of(methods, BASELINE, runs) if may_compare(others[0], runs[0])]
        equal = [others for others in baselines if same_images(row["images_seen"], row_of(others)["images_seen"])]
        for metric in ACCURACIES:
            means = [(mean_and_sd(others, metric)[metric], others) for others in equal]
            known = [(mean, others) for mean, others in means if not math.isnan(mean)]
            if known:
                mean, best = max(known, key=lambda pair: pair[0])
                row[f"{metric}_vs_mae"] = row[metric] - mean
                row[SOURCES][f"{metric}_vs_mae"] = [(OWN, runs), (RIVAL, best)]
        rows.append(row)
    return rows


def _feedback(row: Row) -> str:
    text = spread_text(row, "feedback_accuracy")
    return f"{text} ({row['feedback_chance']})" if text else ""


PRETRAIN = Table(
    title="Pretraining",
    columns=[
        *keys("dataset", "method"),
        Column("config_hash", title="config_hash", key=True),
        Column("seeds"),
        Column("images_seen", ".0f", "images seen (stage I)"),
        Column("labelled_seen", ".0f", "labelled images seen (II, III)"),
        Column("wall_clock_s", ".1f"),
        Column("cpu_s", ".1f"),
        Column("hardware"),
        *(
            column
            for metric in ACCURACIES
            for column in (*spread(metric, f"{metric} (%)"), signed(f"{metric}_vs_mae", "vs MAE"))
        ),
        Column("feedback_accuracy", ".2f", "feedback accuracy (chance) (%)", _feedback),
        Column("feedback_accuracy_sd", ".2f", hidden=True),
        Column("feedback_chance", ".2f", hidden=True),
        COPIES,
    ],
    rows=_pretrain_rows,
    note=(
        "Mean ± sample standard deviation over seeds. Images seen count repetitions. `vs MAE`: "
        f"difference of the means to MAE with the same data, model and stage-I images (within {EQUAL_IMAGES:.0%}); "
        "to the best one if several fit, empty if none does."
    ),
)


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


def _headroom_rows(evidence: Evidence) -> list[Row]:
    """One row per (setting and images seen of an oracle, method, configuration); NaN where a number does not exist.

    Runs of "MAE, same processor time" are listed in every comparison of their setting: they have seen more images.
    """
    rows = []
    for alike in evidence.settings:
        for images in sorted({r["images_seen"]["lower"] for r in alike if is_oracle(r)}):
            equal = [r for r in alike if r["images_seen"]["lower"] == images]
            longer = [r for r in alike if r["images_seen"]["lower"] != images and r["method"] == SAME_TIME]
            baseline = [r for r in equal if r["method"] == BASELINE]
            oracles = methods_of([r for r in equal if is_oracle(r)])
            for runs in methods_of(equal + longer if baseline else []):
                row = row_of(runs, METRICS) | {"schedule": equal[0]["outer_iterations"]}
                rivals = baseline if row["method"] != BASELINE else []
                for metric in METRICS:
                    row[f"{metric}_vs_mae"], row[f"{metric}_share"], best = captured(runs, rivals, oracles, metric)
                    compared = [(OWN, runs), (RIVAL, rivals)]
                    row[SOURCES] |= {f"{metric}_vs_mae": compared, f"{metric}_share": [*compared, (ORACLE, best)]}
                rows.append(row)
    return rows


HEADROOM = Table(
    title="Headroom",
    columns=[
        *keys("dataset", "schedule", "method", "config_hash"),
        Column("seeds"),
        Column("images_seen", ".0f"),
        Column("cpu_s", ".0f"),
        *(
            column
            for metric, title in METRICS.items()
            for column in (
                *spread(metric, f"{title} (%)"),
                signed(f"{metric}_vs_mae", "vs MAE"),
                Column(f"{metric}_share", ".2f", "share of headroom"),
            )
        ),
    ],
    rows=_headroom_rows,
    note=(
        "Share = (method - MAE) / (best oracle - MAE), of means over the seeds that the three have in common; mean ± "
        "sample standard deviation; frozen encoder, mean of the patch tokens. The best oracle has share 1; no share is "
        f"given where the headroom is below {MIN_HEADROOM:.0f} points. `{SAME_TIME}` has seen more images: it is "
        "the rival at equal cost."
    ),
    order=["dataset", "schedule", "knn_top1_avg", "config_hash"],
)


def _references(runs: list[Record], methods: Methods) -> Iterator[list[Record]]:
    """The runs of every reference of ``runs``, among the methods of its setting."""
    if runs[0]["method"] in (BASELINE, SAME_TIME):
        return
    own = row_of(runs)
    for reference in REFERENCES:
        if reference == FROZEN and runs[0]["config"].get("mask", {}).get("type") != "learned":
            continue
        for others in others_of(methods, reference, runs):
            other = row_of(others)
            if reference == SAME_TIME:
                comparable = abs(other["cpu_s"] / own["cpu_s"] - 1.0) <= COST_TOLERANCE
            else:
                comparable = same_images(own["images_seen"], other["images_seen"])
            if comparable:
                yield others
    if strongest := _strongest(runs, methods):
        yield strongest


def _strongest(runs: list[Record], methods: Methods) -> list[Record]:
    """The best of the unguided masks that cost no more than ``runs``, by the linear probe over two common seeds or
    more; [] if it is MAE or its longer run, which are references anyway, and for an unguided mask."""
    if _unguided(runs):
        return []
    limit, found = row_of(runs)["cpu_s"] * (1 + COST_TOLERANCE), []
    for others in methods:
        if _unguided(others) and row_of(others)["cpu_s"] <= limit and len(pairs := seed_pairs(runs, others)) > 1:
            found.append((statistics.fmean(b["metrics"]["linear_top1_avg"] for _, b in pairs), others))
    best = max(found, key=lambda pair: pair[0], default=(0.0, []))[1]
    return best if best and best[0]["method"] not in (BASELINE, SAME_TIME) else []


def _unguided(runs: list[Record]) -> bool:
    config = runs[0]["config"]
    return config.get("mask", {}).get("type") in UNGUIDED and config.get("auxiliary") is None


def _difference_rows(evidence: Evidence) -> list[Row]:
    """One row per (method, reference) with at least one seed in common."""
    rows = []
    for runs, methods in configurations(evidence.probed):
        for others in _references(runs, methods):
            if pairs := seed_pairs(runs, others):
                row = row_of(runs) | {"reference": others[0]["method"], "seeds": len(pairs)}
                for metric in METRICS:
                    row |= difference_of(pairs, metric, metric)
                rows.append(row | {SOURCES: {"": pair_sources(pairs)}})
    return rows


DIFFERENCES = Table(
    title="Differences between methods",
    columns=[
        *keys("dataset", "method", "config_hash", "reference"),
        Column("seeds"),
        Column("images_seen", ".0f"),
        *(column for metric, title in METRICS.items() for column in interval(metric, title, "seeds")),
    ],
    rows=_difference_rows,
    note=(
        "Percentage points of accuracy (frozen encoder, mean of the patch tokens), runs of the same seed paired; "
        "[low, high] is Student's 95 % interval of the mean over seeds, very wide with two seeds. An interval that "
        f"contains 0 shows no difference. `{FROZEN}`: the masking network keeps its random initial values; what a "
        f"method gains over it, it gains by learning. `{SAME_TIME}` has seen more images. Other rows are also "
        "held against the strongest random mask, of any shape or ratio, that costs no more, where that is not MAE. "
        f"{VERDICTS}"
    ),
    order=["dataset", "images_seen", "method", "config_hash", "reference"],
)
