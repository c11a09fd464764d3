"""The tables of pretraining runs: all of them, the headroom that methods capture, and differences seed by seed.

Headroom is what an oracle, which knows the objects, gains over MAE with random masks:

    share = (method − MAE) / (best oracle − MAE)

"Best" is the oracle of highest mean accuracy, over its biases and weights; all three means are over shared seeds. All
runs of a comparison agree on data, splits, model, outer iterations and batch sizes: 0 is no better than random masks, 1
as good as knowing the objects, and on a data set without headroom no two methods can be told apart.

The table of differences is the one to read before calling one method better than another. Every method is compared with
each of its references (`benchmarks.analysis.references`) that has runs of the same seeds.
"""

import statistics

from benchmarks.analysis.comparable import (
    BASELINE,
    EQUAL_IMAGES,
    METRICS,
    SAME_TIME,
    configurations,
    differences,
    is_oracle,
    knowing,
    methods_of,
    names_precision,
    seed_pairs,
)
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.references import FROZEN, MIN_HEADROOM, captured, reference_of, references_of
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
    pair_sources,
    row_of,
    signed,
    spread,
    spread_text,
)

ACCURACIES = ("linear_top1_cls", "linear_top1_avg", "knn_top1_cls", "knn_top1_avg")


def _pretrain_rows(evidence: Evidence) -> list[Row]:
    """One row per (data set, method, configuration), compared with MAE of the same start, images and seeds."""
    rows = []
    for runs, methods in configurations(evidence.of_task("pretrain")):
        row = row_of(runs, [*ACCURACIES, "feedback_accuracy", "feedback_chance"])
        row["labelled_seen"] = statistics.fmean(r["images_seen"]["head"] + r["images_seen"]["upper"] for r in runs)
        pairs = seed_pairs(runs, reference_of(runs, methods, evidence)) if runs[0]["method"] != SAME_TIME else []
        for metric in ACCURACIES:
            if known := knowing(pairs, metric):
                row[f"{metric}_vs_mae"] = statistics.fmean(differences(known, metric))
                row[SOURCES][f"{metric}_vs_mae"] = pair_sources(known)
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
        "mean difference to MAE of the same seeds, data, model, first weights and stage-I images (within "
        f"{EQUAL_IMAGES:.0%}), empty without one."
    ),
)


def _headroom_rows(evidence: Evidence) -> list[Row]:
    """One row per (setting and images seen of an oracle, method, configuration); NaN where a number does not exist.

    Runs of "MAE, same processor time" are listed in every comparison of their setting: they have seen more images.
    """
    rows = []
    for alike in evidence.settings:
        for images in sorted({r["images_seen"]["lower"] for r in alike if is_oracle(r)}):
            equal = [r for r in alike if r["images_seen"]["lower"] == images and not names_precision(r)]
            longer = [r for r in alike if r["images_seen"]["lower"] != images and r["method"] == SAME_TIME]
            methods = methods_of(equal + longer)
            oracles = [runs for runs in methods if is_oracle(runs[0])]
            for runs in methods if any(r["method"] == BASELINE for r in equal) else []:
                row = row_of(runs, METRICS) | {"schedule": equal[0]["outer_iterations"]}
                rivals = reference_of(runs, methods, evidence)
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
        f"given where the headroom is below {MIN_HEADROOM:.0f} points. `{SAME_TIME}` has seen more images: it was "
        "trained for the learned mask's processor time."
    ),
    order=["dataset", "schedule", "knn_top1_avg", "config_hash"],
)


def _difference_rows(evidence: Evidence) -> list[Row]:
    """One row per (method, reference) with at least one seed in common."""
    rows = []
    for runs, methods in configurations(evidence.probed):
        for others in references_of(runs, methods, evidence):
            if pairs := seed_pairs(runs, others):
                row = row_of(runs) | {"reference": others[0]["method"], "seeds": len(pairs)}
                for metric in METRICS:
                    row |= difference_of(pairs, metric, metric, evidence)
                rows.append(row | {SOURCES: {"": pair_sources(pairs)}})
    return rows


DIFFERENCES = Table(
    title="Differences between methods",
    columns=[
        *keys("dataset", "method", "config_hash", "reference"),
        Column("seeds"),
        Column("images_seen", ".0f"),
        *(column for metric, title in METRICS.items() for column in interval(metric, title)),
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
