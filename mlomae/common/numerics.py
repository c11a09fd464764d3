"""NUMERICS: the version numbers of what the code computes.

Each part of the code that results depend on has a number: "pretraining", "evaluation" (k-NN and linear probe during
pretraining), every task of the benchmarks by its name, and "data.KIND" for the pixels and labels of every kind of data
source. The number of a part is raised when its results may change. Traces of small runs guard it: a change that moves a
traced number must raise NUMERICS, or be fixed.

A record holds the numbers of the parts that its run depended on (`numerics_of`). Runs with different numbers of a part
are neither pooled nor compared, and a suite makes runs with older numbers again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlomae.common.errors import CheckpointError

Numerics = dict[str, int]
BACKBONE = "backbone."  # prefix of the parts that a transfer's backbone was made with
_NUMBERS: Numerics = {}
_SOURCES = ("train", "test", "eval", "feedback", "val")  # keys of a configuration's ``data``


def declare_numerics(part: str, number: int) -> None:
    """Called where a part is defined, when it is imported. The pixels of a kind of source are at 1 if none is given."""
    _NUMBERS[part] = number


def numerics_of(task: str, config: Mapping[str, Any], backbone: Mapping[str, int] | None = None) -> Numerics:
    """The numbers of the parts that a run depends on; none for a task that has no number, such as "speed".

    Args:
        task: as in the run's record, "pretrain" or the name of a task.
        config: plain values; its ``data`` section names the kinds of sources.
        backbone: the numbers of the run that made the backbone, where they are known.
    """
    data = config.get("data", {})
    kinds = {str(source["type"]) for key in _SOURCES if (source := data.get(key))}
    own = ["pretraining", *(["evaluation"] if data.get("eval") else [])] if task == "pretrain" else [task]
    if own[0] not in _NUMBERS:
        return {}
    numbers = {part: number_of(part) for part in (*own, *(f"data.{kind}" for kind in sorted(kinds)))}
    weights = {part: number for part, number in (backbone or {}).items() if part != "evaluation"}
    return numbers | {BACKBONE + part.removeprefix(BACKBONE): number for part, number in weights.items()}


def number_of(part: str) -> int:
    """The present number of a part. Raises KeyError for one that is not declared and no kind of data."""
    return _NUMBERS.get(part, 1) if part.startswith("data.") else _NUMBERS[part]


def different_parts(a: Mapping[str, int], b: Mapping[str, int]) -> list[str]:
    """The parts of which both have a number, and not the same one."""
    return sorted(part for part in a.keys() & b.keys() if a[part] != b[part])


def describe_difference(made: Mapping[str, int], now: Mapping[str, int], parts: list[str]) -> str:
    """``parts`` as text: the number that a run was made with, and the present one."""
    numbers = ((part, f"NUMERICS {made[part]}" if part in made else "unknown NUMERICS") for part in parts)
    return ", ".join(f"{number} of {part} (now {now[part]})" for part, number in numbers)


def check_numerics(saved: Mapping[str, Any], current: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError if resuming from ``path`` would mix the numbers of two versions of the code.

    ``saved`` and ``current``: ``meta`` of the checkpoint and of the run; checkpoints of version 0.1 name no numbers.
    """
    made, now = saved.get("numerics", {}), current.get("numerics", {})
    if parts := different_parts(made, now):
        raise CheckpointError(
            f"'{path}' was made with {describe_difference(made, now, parts)}; resuming would mix results of both: "
            "choose another work dir, or move this one away"
        )
