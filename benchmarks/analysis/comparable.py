"""Which runs may be compared, and the names of the rows that comparisons are made with."""

from __future__ import annotations

import json

from mlomae.records import Record

METRICS = {"knn_top1_avg": "k-NN", "linear_top1_avg": "linear probe"}
BASELINE, SAME_TIME = "MAE", "MAE, same processor time"


def is_oracle(record: Record) -> bool:
    """Whether the masks or weights were made from ground truth."""
    return record["config"].get("mask", {}).get("type") == "oracle"


def setting_of(record: Record) -> str:
    """What compared runs agree on, the schedule of θ included; a run that is longer on purpose names its peer.

    Labels that are shuffled are the feedback's alone (`mlomae.data`): images are the same ones, probes see true labels.
    """
    config = record["config"]
    data = {
        k: v
        for k, v in config.get("data", {}).items()
        if k not in ("feedback", "feedback_batch_size", "feedback_augment", "shuffle_labels")
    }
    parts = [record["dataset"], record["train_source"], record["eval_source"], config.get("model"), data]
    parts += [
        config.get("optim", {}).get("theta"),
        config.get("levels", {}).get("lower_steps"),
        config.get("init_from"),
    ]
    return json.dumps(parts, sort_keys=True)


def by_config(runs: list[Record]) -> dict[tuple[str, str], list[Record]]:
    """{(method, config hash): its runs by seed}, in a stable order."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for r in sorted(runs, key=lambda r: (r["method"], r["config_hash"], r["seed"])):
        groups.setdefault((r["method"], r["config_hash"]), []).append(r)
    return groups
