"""Which runs may be compared, and the names of the methods that others are compared with.

All tables and figures use these rules. Compared runs have the same `setting_of`; their pretrainings have seen the same
number of images (`same_images`), except `SAME_TIME`, which sees more by design; differences are within `seed_pairs`.
Runs with different NUMERICS of a part (`mlomae.common.numerics`) are neither pooled nor compared.
"""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from benchmarks.analysis.data_sets import nested_sources, pooled_contents, pretrained_on, same_contents
from mlomae.common.errors import DataError
from mlomae.common.numerics import different_parts
from mlomae.records import Record, config_hash, grouped

METRICS = {"knn_top1_avg": "k-NN", "linear_top1_avg": "linear probe"}  # of pretrainings
PROBES = METRICS | {
    key.replace("avg", pooling): f"{name}, {title}"
    for pooling, title in {"cls": "class token", "middle": "middle"}.items()
    for key, name in METRICS.items()
}
BASELINE, SAME_TIME = "MAE", "MAE, same processor time"
EQUAL_IMAGES = 0.01  # totals this close (relative) count as equal: batch sizes seldom divide evenly
MARGINS = {"knn": 1.0, "linear": 0.5, "finetune": 1.0, "mIoU": 1.0}
"""Percentage points within which two methods count as equal, by protocol, or by metric. Fixed on 2026-12-01: before the
runs on photographs and in bfloat16, after all others."""
_FEEDBACK_DATA = ("feedback", "feedback_batch_size", "feedback_augment", "shuffle_labels")
Methods = list[list[Record]]
"""The runs by seed of each configuration of each method."""


def setting_of(record: Record) -> str:
    """What runs must agree on to be compared.

    Pretrainings: data, encoder, the schedule of θ, the weights they start from, and the precision unless the method
    `names_precision`. What may differ: the decoder, which is thrown away, and data and labels of the feedback, for the
    images are the same, and probes use the true labels. Transfers: data, recipe and protocol, everything but the
    backbone. Both: the content of the training and evaluation images, where it is known, and the NUMERICS above 1 of
    the parts that all compared runs share, but not those of backbones or of the feedback's data.
    """
    config = record["config"]
    parts = [record["dataset"], record["train_source"], record["eval_source"]]
    if record["task"] == "pretrain":
        parts += [encoder_of(record)]
        parts += [{k: v for k, v in config.get("data", {}).items() if k not in _FEEDBACK_DATA}]
        parts += [config.get("optim", {}).get("theta"), config.get("levels", {}).get("lower_steps")]
        parts += [config.get("init_from")]
        parts += [] if names_precision(record) or precision(record) == "none" else [{"amp": precision(record)}]
    else:
        backbone = {k: v for k, v in config.get("backbone", {}).items() if k not in ("weights", "model")}
        parts.insert(1, record["name"])
        parts += [config_hash({**config, "backbone": backbone})]
    sources = (config.get("data", {}).get(key) or {} for key in ("train", "eval", "test"))
    parts += [contents] if (contents := same_contents(record)) else []
    shared = {record["task"], "pretraining", "evaluation", *(f"data.{source.get('type')}" for source in sources)}
    raised = {part: number for part, number in record.get("numerics", {}).items() if part in shared and number != 1}
    return json.dumps([*parts, raised] if raised else parts, sort_keys=True)


def precision(record: Record) -> str:
    """``train.amp`` of a run: "none" is float32."""
    train = record["config"].get("train")
    return str(train.get("amp", "none")) if isinstance(train, dict) else "none"


def names_precision(record: Record) -> bool:
    """Whether the method is a row about precision, as "MAE, bf16": held against float32, and no rival of others."""
    return record["method"].endswith(f", {precision(record)}")


def encoder_of(record: Record) -> dict[str, Any]:
    """The model of a pretraining without its decoder."""
    model = record["config"].get("model") or {}
    return {key: value for key, value in model.items() if not key.startswith("decoder_")}


def may_compare(a: Record, b: Record) -> bool:
    """Whether both have the same NUMERICS of every part that both depend on, and backbones pretrained on the same
    images where those are known; unknown NUMERICS only equal unknown ones."""
    if pretrained_on(a) and pretrained_on(b) and pretrained_on(a) != pretrained_on(b):
        return False
    if "numerics" not in a or "numerics" not in b:
        return ("numerics" in a) == ("numerics" in b)
    return not different_parts(a["numerics"], b["numerics"])


def pool_key(record: Record) -> str:
    """What pooled runs agree on besides their configuration: NUMERICS and data."""
    return json.dumps(record.get("numerics"), sort_keys=True) + pooled_contents(record)


def same_images(a: float, b: float) -> bool:
    """Whether two pretrainings have seen the same number of images, within `EQUAL_IMAGES`."""
    return abs(a - b) <= EQUAL_IMAGES * a


def methods_of(records: list[Record]) -> Methods:
    """The configurations of each method, their runs by seed, in a stable order. DataError for a seed recorded twice."""
    found = grouped(records, lambda r: (r["method"], r["config_hash"], pool_key(r)))
    for runs in found.values():
        runs.sort(key=lambda r: r["seed"])
        for before, r in itertools.pairwise(runs):
            if before["seed"] == r["seed"]:
                raise DataError(
                    f"two records hold seed {r['seed']} of {r['method']} on {r['dataset']}; remove '{r['name']}'"
                )
    return list(found.values())


def configurations(records: list[Record]) -> Iterator[tuple[list[Record], Methods]]:
    """Every configuration's runs by seed, each with all methods of its `setting_of`, in a stable order."""
    for alike in grouped(records, setting_of).values():
        methods = methods_of(alike)
        for runs in methods:
            yield runs, methods


def others_of(methods: Methods, name: str, runs: list[Record]) -> Methods:
    """The configurations of method ``name`` that ``runs`` can be compared with; none for runs of that method."""
    return [others for others in methods if others[0]["method"] == name != runs[0]["method"]]


def seed_pairs(runs: list[Record], others: list[Record]) -> list[tuple[Record, Record]]:
    """Runs of the same seed, in the order of ``runs``, without seeds that only one of the two has and without pairs
    that differ in NUMERICS."""
    by_seed = {r["seed"]: r for r in others}
    pairs = [(r, by_seed[r["seed"]]) for r in runs if r["seed"] in by_seed]
    return [(a, b) for a, b in pairs if may_compare(a, b)]


def knowing(pairs: list[tuple[Record, Record]], metric: str) -> list[tuple[Record, Record]]:
    """The pairs both of whose runs have ``metric``."""
    return [(a, b) for a, b in pairs if metric in a["metrics"] and metric in b["metrics"]]


def differences(pairs: list[tuple[Record, Record]], metric: str) -> list[float]:
    """``metric`` of the first run of each pair minus that of the second."""
    return [a["metrics"][metric] - b["metrics"][metric] for a, b in pairs]


def is_tuning(record: Record) -> bool:
    """Whether it was judged on a part of the training images (`mlomae.data.sets.part`): rates are chosen by such runs,
    and none of them is a result."""
    judged = (record["config"].get("data", {}).get(name) or {} for name in ("eval", "test"))
    return any(inner.get("type") == "part" for source in judged for _, inner in nested_sources("data", source))


def reads_objects(record: Record) -> bool:
    """Whether the masks or weights were made from ground truth, by an oracle or one of its controls."""
    return bool(record["config"].get("mask", {}).get("type") == "oracle")


def margin_of(record: Record, metric: str) -> float | None:
    """The margin of ``metric`` of a run; None where none was fixed."""
    protocol = record["config"].get("protocol", "finetune") if record["task"] == "classification" else ""
    return MARGINS.get(protocol, MARGINS.get(metric, MARGINS.get(metric.partition("_")[0])))


def is_oracle(record: Record) -> bool:
    """Whether they know the object of the image itself, a bound for what looking at it can gain."""
    return reads_objects(record) and record["config"]["mask"].get("patches", "object") == "object"
