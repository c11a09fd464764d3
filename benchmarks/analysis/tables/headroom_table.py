"""The share of the oracle's headroom that a method captures, from pretraining records.

    share = (method − MAE) / (best oracle − MAE)

MAE has random masks; "best" is the oracle of highest mean accuracy, over its biases and weights; all three means are of
the seeds they have in common. All runs of a comparison agree on data, splits, model, outer iterations and batch sizes:
0 is no better than random masks, 1 as good as knowing the objects, and on a data set without headroom no method can be
told from another.
"""

import math
import statistics
from collections.abc import Sequence

from benchmarks.analysis.comparable import BASELINE, METRICS, SAME_TIME, is_oracle, may_compare, methods_of, setting_of
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.tables.table import ORACLE, OWN, RIVAL, SOURCES, Row, Table, mean_and_sd, signed, spread
from mlomae.records import Record, grouped

MIN_HEADROOM = 3.0  # percentage points; below it a share is noise over noise and is not given
KEYS = ["dataset", "schedule", "method", "config_hash"]


def _mean(runs: list[Record], metric: str) -> float:
    return statistics.fmean(r["metrics"][metric] for r in runs)


def _same_seeds(runs: list[Record], seeds: set[int]) -> list[Record]:
    return [r for r in runs if r["seed"] in seeds]


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
    paired = [_same_seeds(found, seeds) for found in oracles if may_compare(found[0], runs[0])]
    whole = [found for found in paired if len(found) == len(seeds)]
    best = max(whole, key=lambda found: sign * _mean(found, metric), default=[])
    floor = _mean(_same_seeds(baseline, seeds), metric)
    gain = _mean(_same_seeds(runs, seeds), metric) - floor
    room = _mean(best, metric) - floor if best else 0.0
    return gain, gain / room if sign * room >= MIN_HEADROOM else math.nan, best


def _rows(evidence: Evidence) -> list[Row]:
    """One row a (setting and images seen of an oracle, method, configuration); NaN where a number does not exist.

    Runs of "MAE, same processor time" are listed in every comparison of their setting: they have seen more images.
    """
    rows = []
    measured = [r for r in evidence.of_task("pretrain") if all(metric in r["metrics"] for metric in METRICS)]
    for alike in grouped(measured, setting_of).values():
        for images in sorted({r["images_seen"]["lower"] for r in alike if is_oracle(r)}):
            equal = [r for r in alike if r["images_seen"]["lower"] == images]
            longer = [r for r in alike if r["images_seen"]["lower"] != images and r["method"] == SAME_TIME]
            baseline = [r for r in equal if r["method"] == BASELINE]
            oracles = list(methods_of([r for r in equal if is_oracle(r)]).values())
            for (method, _), runs in methods_of(equal + longer if baseline else []).items():
                row: Row = {"dataset": runs[0]["dataset"], "method": method, "config_hash": runs[0]["config_hash"]}
                row |= {"schedule": equal[0]["outer_iterations"], "seeds": len(runs)}
                row["images_seen"] = runs[0]["images_seen"]["lower"]
                row["cpu_s"] = statistics.fmean(r["cpu_s"] for r in runs)
                row[SOURCES] = {"": [(OWN, runs)]}
                rivals = baseline if method != BASELINE else []
                for metric in METRICS:
                    row |= mean_and_sd(runs, metric)
                    row[f"{metric}_vs_mae"], row[f"{metric}_share"], best = captured(runs, rivals, oracles, metric)
                    row[SOURCES][f"{metric}_vs_mae"] = [(OWN, runs), (RIVAL, rivals)]
                    row[SOURCES][f"{metric}_share"] = [(OWN, runs), (RIVAL, rivals), (ORACLE, best)]
                rows.append(row)
    return rows


TABLE = Table(
    title="Headroom",
    keys=KEYS,
    columns=dict.fromkeys([*KEYS, "seeds", "images_seen"], "")
    | {"cpu_s": ".0f"}
    | dict.fromkeys([f"{metric}{suffix}" for metric in METRICS for suffix in ("", "_sd", "_vs_mae", "_share")], ".2f"),
    rows=_rows,
    cells=[
        *KEYS,
        "seeds",
        "images_seen",
        "cpu_s",
        *(
            cell
            for metric, title in METRICS.items()
            for cell in (
                (f"{title} (%)", spread(metric)),
                ("vs MAE", signed(f"{metric}_vs_mae")),
                ("share of headroom", f"{metric}_share"),
            )
        ),
    ],
    note=(
        "Share = (method - MAE) / (best oracle - MAE), of means over the seeds that the three have in common; mean ± "
        "sample standard deviation; frozen encoder, mean of the patch tokens. The best oracle has share 1; no share is "
        f"given where the headroom is below {MIN_HEADROOM:.0f} points. `{SAME_TIME}` has seen more images: the rival "
        "at equal cost."
    ),
    order=["dataset", "schedule", "knn_top1_avg", "config_hash"],
)
