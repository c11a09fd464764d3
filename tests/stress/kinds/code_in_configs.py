"""Configurations that name code: YAML's tags, options, and types at any depth of a section."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import det_runs
import seg_runs

from tests.stress.harmful import Arguments, Harmful, Make, bench, plain_pickle, pretrain, refused_unread
from tests.stress.harness import Case

WHAT = "types come from the registries alone, YAML and options are values: one line, and nothing was called"
SAMPLE = 20


def cases(shared: Path, chance: random.Random) -> Iterator[Case]:
    for name, make in CONFIGS.items():
        yield Case(name, refused_unread(make))


def _text_config(ending: str, text: str) -> Make:
    """A config in YAML or JSON whose ``init_from`` is ``text``; MARK in it is the folder."""

    def make(folder: Path, mark: Path) -> Arguments:
        path = folder / f"tiny.{ending}"
        path.write_text(f'{{"init_from": {text.replace("MARK", str(mark))}}}')
        return ["pretrain", path, "--work-dir", folder / "work"]

    return make


def _option(text: str) -> Make:
    return lambda folder, mark: [*pretrain(folder), "--cfg-options", text.replace("MARK", str(mark))]


def _section(**changes: Any) -> Make:
    return lambda folder, mark: pretrain(folder, **_with_mark(changes, mark))


def _with_mark(value: Any, mark: Path) -> Any:
    if isinstance(value, dict):
        return {key: _with_mark(part, mark) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_mark(part, mark) for part in value]
    if value == "PICKLE":
        plain_pickle(Harmful(mark), path := mark.parent / "weights.pth")
        return str(path)
    return value.replace("MARK", str(mark)) if isinstance(value, str) else value


def _dense(runs: Any, **changes: Any) -> Make:
    """A recipe of segmentation or detection with a changed section."""

    def make(folder: Path, mark: Path) -> Arguments:
        task = runs.TASK.name
        (folder / task).mkdir()
        data = runs.write_data(folder / "data")
        config = runs.write_config(folder / task / "tiny.py", data, **_with_mark(changes, mark))
        return ["bench", task, config, "--work-dir", folder / "work"]

    return make


_CALL = {"type": "os.mkdir", "path": "MARK"}
_PRETRAINED = {"type": "Pretrained", "checkpoint": "PICKLE"}
_SECTIONS = {
    seg_runs: (
        "model__neck",
        "model__decode_head",
        "model__decode_head__loss_decode",
        "model__auxiliary_head__norm_cfg",
    ),
    det_runs: ("model__neck", "model__rpn_head", "model__rpn_head__loss_cls", "model__roi_head__bbox_head"),
}
CONFIGS: dict[str, Make] = {
    "YAML, object/apply": _text_config("yaml", "!!python/object/apply:os.mkdir ['MARK']"),
    "YAML, object/new": _text_config("yml", "!!python/object/new:os.mkdir ['MARK']"),
    "YAML, name": _text_config("yaml", "!!python/name:os.mkdir ''"),
    "YAML, module": _text_config("yaml", "!!python/module:antigravity ''"),
    "JSON with code": _text_config("json", "__import__('os').mkdir('MARK')"),
    "option, import": _option("init_from=__import__('os').mkdir('MARK')"),
    "option, f-string": _option('name=f\'{__import__("os").mkdir("MARK")}\''),
    "option, type of the mask": _option("mask.type=os.mkdir"),
    **{f"pretraining, {key}": _section(**{key: _CALL}) for key in ("mask", "feedback", "data__train", "data__eval")},
    "pretraining, augment": _section(data__augment=_CALL),
    "pretraining, auxiliary": _section(auxiliary=_CALL),
    "classification, augment": lambda f, m: bench(f, data__augment=_with_mark(_CALL, m)),
    "classification, train": lambda f, m: bench(f, data__train=_with_mark(_CALL, m)),
    **{
        f"{runs.TASK.name}, {key}{', a list' if many else ''}": _dense(runs, **{key: [_CALL] if many else _CALL})
        for runs, keys in _SECTIONS.items()
        for key in keys
        for many in (False, True)
    },
    **{
        f"{runs.TASK.name}, init_cfg in {key}": _dense(runs, **{f"{key}__init_cfg": _PRETRAINED})
        for runs, keys in _SECTIONS.items()
        for key in ("model", *keys)
    },
    "segmentation, init_cfg in a list": _dense(seg_runs, model__neck__init_cfg=[_PRETRAINED]),
    "segmentation, transform": _dense(seg_runs, data__augment=[{"type": "RandomApply", "transforms": [_CALL]}]),
    "detection, transform": _dense(det_runs, data__augment=[_CALL]),
    "detection, nms": _dense(det_runs, model__test_cfg__rcnn__nms={"type": "print"}),
}
