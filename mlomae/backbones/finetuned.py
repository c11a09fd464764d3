"""A fine-tuned backbone as the start of the next transfer: supervised intermediate fine-tuning.

A classification transfer with ``protocol="finetune"`` leaves ``checkpoints/iter_N.pth``, a backbone like any other. Its
row in a table says what it is, "MAE + fine-tuned on cifar10 (labels)", and images whose labels it has seen are refused
as test images.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from mmengine.dist import is_main_process

from mlomae.common.errors import DataError, MlomaeError
from mlomae.data import Images, build_source, check_disjoint
from mlomae.records import config_hash, strip_paths


def finetuned_origin(state: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Of a checkpoint: the method's name, what identifies the weights but for the seed, details of the run.

    Costs, ``images_seen`` and ``clock``, are those of all that went before, where it is known.
    """
    config, meta, iteration = copy.deepcopy(state["config"]), state["meta"], int(state["iteration"])
    start = {key: value for key, value in meta["origin"].items() if key != "sha256"}
    config["backbone"]["weights"] = start  # the hash is that of the run's record
    method = f"{start['method']} + fine-tuned on {config['data']['train']['type']} (labels)"
    identity = {"method": method, "config_hash": config_hash(strip_paths(config)), "iteration": iteration}
    before = meta.get("pretrained", {})
    images = iteration * config["data"]["batch_size"] + before.get("images_seen", 0)
    clock = {kind: s + before.get("clock", {}).get(kind, 0.0) for kind, s in state["clock"].items()}
    details = {"name": config["name"], "seed": config["seed"], "dataset": config["data"]["train"]["type"]}
    return method, identity, {**details, "images_seen": images, "clock": clock}


def labelled_sources(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The training sources of this fine-tuning and those before it."""
    return [*state["meta"].get("labelled", []), state["config"]["data"]["train"]]


def check_unseen(labelled: Sequence[dict[str, Any]], own: dict[str, Any], test: Images) -> None:
    """Refuse test images whose labels the backbone was fine-tuned on.

    ``own``: the transfer's training source, which has been compared with the test images already. Where the images of
    an earlier one are no longer there, its kind and part are compared, and a line says so.
    Raises DataError if test images were trained on.
    """
    for values in labelled:
        if values == own:
            continue
        named = f"{values.get('type')} {values.get('split', '')}".strip()
        try:
            source = build_source(values)
        except MlomaeError as error:
            if values.get("type") == test.name and values.get("split", test.split) == test.split:
                raise DataError(
                    f"the backbone was fine-tuned with the labels of {named}, the test images: {test.describe()}; "
                    "test on another part"
                ) from error
            if is_main_process():
                print(f"note: {named}, which the backbone was fine-tuned on, is not compared with the test images")
            continue
        check_disjoint(source, test)
