"""Configurations of a pretraining in which one option has a value of another type, and what begins a run of them."""

import copy
import inspect
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tiny
from bad_checkpoints import places
from run_samples import with_value

from mlomae import auxiliary, feedback, masking
from mlomae.common.registry import _REGISTRIES
from mlomae.config.schema import config_from_dict
from mlomae.multilevel import list_options
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import build_data, build_trainer

VALUES: dict[str, Any] = {
    "None": None,
    "text": "text",
    "empty": "",
    "negative": -1,
    "zero": 0,
    "fraction": 0.5,
    "nan": float("nan"),
    "inf": float("inf"),
    "huge": 10**30,
    "true": True,
    "false": False,
    "a list": [],
    "a list of None": [None],
    "negative numbers": [-1, -1],
    "a dict": {},
    "nested": {"a": {"b": [1]}},
}
_SECTIONS = {  # by what their registry calls them: where the options are, and what the program passes
    "masking strategy": (("mask",), ("embed_dim", "grid")),
    "feedback": (("feedback",), ("embed_dim", "num_classes")),
    "auxiliary loss": (("auxiliary",), ("embed_dim", "num_classes")),
    "augmentation": (("data", "augment"), ("size",)),
}
assert masking, (feedback, auxiliary)  # their modules are registered


def written_out() -> dict[str, Any]:
    """The tiny run with every option of its sections."""
    config = tiny.config()
    values = copy.deepcopy(config.to_dict())
    values["data"] |= {"shuffle_labels": None, "allow_near_copies": False}
    return values


def bases() -> Iterator[tuple[str, dict[str, Any], tuple[str, ...]]]:
    """Name, values and the section to change, () for all: the tiny run, and one of each kind of every section."""
    yield "tiny", written_out(), ()
    registries = {registry.kind: registry for registry in _REGISTRIES}
    for kind, (section, given) in _SECTIONS.items():
        for name in registries[kind].names():
            defaults = {k: p.default for k, p in registries[kind].options(name, given).items()}
            options = {k: None if v is inspect.Parameter.empty else v for k, v in defaults.items()}
            more = {"ratio": 0.75} if kind == "masking strategy" else {}
            base = with_value(tiny.values(auxiliary=None), section, {"type": name, **options, **more})
            yield f"{kind} {name}", base, section
    for name in registries["solver"].names():
        levels = {"solver": name, "solver_options": dict.fromkeys(list_options(name))}
        yield f"solver {name}", tiny.values(levels=levels), ("levels",)


def bad_options() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and values of configurations, each with one value of another type; a few happen to be right ones."""
    for name, values, section in bases():
        for place in places(values, most=99):
            if place[: len(section)] == section and len(place) > len(section):
                for kind, value in VALUES.items():
                    yield f"{name}: {'.'.join(place)} = {kind}", with_value(values, place, value)


def begin(values: dict[str, Any], work_dir: Path) -> None:
    """All of a run that comes before its first step, and the step."""
    config = config_from_dict(values)
    data = build_data(config)
    model = Pretrainer(config, data.num_classes)
    trainer, _ = build_trainer(config, model, data, work_dir, {}, False)
    trainer.step(next(iter(trainer.batches(0))), 0)


def sample(count: int, seed: int = 0) -> list[tuple[str, dict[str, Any]]]:
    return random.Random(seed).sample(list(bad_options()), count)
