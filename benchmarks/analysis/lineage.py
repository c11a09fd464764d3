"""The pretraining that a record depends on: the run itself, or for a transfer that of its backbone; and its cost."""

import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.analysis.comparable import setting_of
from mlomae.records import RANDOM, Record

# cost -> where a pretraining's own record has it, and where ``pretrained`` of a transfer's
_COSTS = {
    "images_seen": (("images_seen", "lower"), ("images_seen",)),  # by the reconstruction level
    "wall_clock_s": (("wall_clock_s",), ("clock", "wall")),
    "cpu_s": (("cpu_s",), ("clock", "cpu")),
}


class Lineage:
    """Finds the pretraining that a record depends on; ``flops``: of whole pretrainings, by config hash."""

    def __init__(self, records: Iterable[Record], flops: dict[str, float]) -> None:
        self._by_hash = {r["config_hash"]: r for r in records if r["task"] != "speed"}
        self._flops = flops
        self._settings: dict[str, str] = {}

    def pretraining_of(self, record: Record) -> Record | None:
        """A record of the pretraining, of any of its seeds; through fine-tunings in between. None if none is here."""
        found: Record | None = record
        while found is not None and found["task"] != "pretrain":
            found = self._by_hash.get(_backbone_of(found).get("config_hash", ""))
        return found

    def setting_of(self, record: Record) -> tuple[str, str]:
        """(data set, everything that compared pretrainings agree on); "" for what is not known."""
        if record["task"] == "pretrain":
            return record["dataset"], setting_of(record)
        pretraining = self.pretraining_of(record)
        if pretraining is None:
            return (record.get("pretrained") or {}).get("dataset", ""), ""
        digest = pretraining["config_hash"]
        if digest not in self._settings:  # once for all its transfers
            self._settings[digest] = setting_of(pretraining)
        return pretraining["dataset"], self._settings[digest]

    def config_of(self, record: Record) -> str:
        """The hash of the pretraining's configuration, or of the fine-tuning's that went before; "" if unknown."""
        if record["task"] == "pretrain":
            return str(record["config_hash"])
        return str(_backbone_of(record).get("config_hash", ""))

    def cost(self, record: Record, what: str) -> float | None:
        """``images_seen``, ``wall_clock_s``, ``cpu_s`` or ``flops`` of the pretraining; 0 without one, None if unknown.

        Where a transfer does not say how many images, as of an export, the pretraining's own record does.
        """
        if record["task"] != "pretrain" and record["method"] == RANDOM:
            return 0.0
        if what == "flops":
            return self._flops.get(self.config_of(record)) if self._to_the_end(record) else None
        own, before = _COSTS[what]
        if record["task"] == "pretrain":
            return _number(record, own)
        found, whole = _number(record.get("pretrained"), before), self._to_the_end(record)
        return _number(whole, own) if found is None and what == "images_seen" else found

    def mean_cost(self, runs: list[Record], what: str) -> float | None:
        """Over runs; None if one of them does not know its own."""
        costs = [self.cost(r, what) for r in runs]
        known = [c for c in costs if c is not None]
        return statistics.fmean(known) if len(known) == len(costs) else None

    def _to_the_end(self, record: Record) -> Record | None:
        """A record of the pretraining, if the backbone is the one it ended with."""
        if record["task"] == "pretrain":
            return record
        whole = self._by_hash.get(self.config_of(record))
        return whole if whole and whole["outer_iterations"] == _backbone_of(record).get("iteration") else None


def _backbone_of(record: Record) -> dict[str, Any]:
    """What a transfer's configuration says of its backbone: method, config_hash, iteration where known."""
    weights = record["config"].get("backbone", {}).get("weights")
    return weights if isinstance(weights, dict) else {}


def _number(found: Any, path: tuple[str, ...]) -> float | None:
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, int | float) else None
