"""Which pretraining a backbone comes from, as records and tables name it, and which labels it has seen.

A classification transfer with ``protocol="finetune"`` leaves a backbone like any other (supervised intermediate
fine-tuning). Its row in a table is called "MAE + fine-tuned on cifar10 (labels)", and images whose labels it has seen
are refused as test images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from mmengine.dist import is_main_process

from mlomae.common.checkpoint import TRANSFER_FORMAT, WRITTEN, Clock
from mlomae.common.errors import CheckpointError, DataError, MlomaeError
from mlomae.common.registry import Count
from mlomae.common.structure import Number, check_structure
from mlomae.config.schema import config_from_dict
from mlomae.data import Images, build_source, check_disjoint
from mlomae.models.architecture import measure, read_encoder
from mlomae.models.loading import create_timm
from mlomae.models.places import HUB, locate, sha256
from mlomae.models.weights import WeightsFile, read_weights
from mlomae.records import RANDOM, config_hash, strip_paths


@dataclass(frozen=True)
class Provenance:
    """Where the weights of a backbone come from.

    Attributes:
        method: the row's name in a table.
        identity: part of a transfer's configuration: the same for all seeds of one pretraining, and for a checkpoint
            and its exports.
        details: what is not: name, seed, cost, SHA-256 of the file.
        seed: the pretraining's, None if unknown.
        labelled: the data sources that the backbone was fine-tuned on.
        patch_size: in pixels, None if the configuration of the transfer decides, or if the weights cannot be read.
    """

    method: str
    identity: dict[str, Any]
    details: dict[str, Any]
    seed: int | None = None
    labelled: list[dict[str, Any]] = field(default_factory=list)
    patch_size: int | None = None


class _Data(TypedDict):
    train: dict[str, Any]
    batch_size: Count


class _Transfer(TypedDict):
    """What `describe_weights` reads of the configuration of a transfer."""

    name: str
    seed: Number
    data: _Data
    backbone: dict[str, Any]


class _Origin(TypedDict):
    method: str


class _Earlier(TypedDict, total=False):
    images_seen: Number
    clock: Clock


class _Pretrained(TypedDict, total=False):
    pretrained: _Earlier


class _TransferMeta(_Pretrained):
    origin: _Origin


def _of_checkpoint(path: Path, state: dict[str, Any], digest: str) -> Provenance:
    """Of a pretraining or a fine-tuning; costs of the latter, ``images_seen`` and ``clock``, include those of the run
    that it started from, where they are known."""
    transfer, what = state["format"] == TRANSFER_FORMAT, f"checkpoint '{path}'"
    for part, schema in {"config": _Transfer, "meta": _TransferMeta}.items() if transfer else ():
        check_structure(state[part], schema, f"{what}, {part}:", WRITTEN)
    check_structure(state.get("clock"), Clock, f"{what}, clock:", WRITTEN)
    try:
        if not transfer:
            config_from_dict({**state["config"], "custom_imports": None})  # a plug-in is not needed here
    except MlomaeError as error:
        raise CheckpointError(f"{what}, config: {error}") from error
    config, meta, iteration = state["config"], state["meta"], int(state["iteration"])
    train, images, clock = config["data"]["train"], iteration * config["data"]["batch_size"], dict(state["clock"])
    dataset = meta.get("data", {}).get("train", {}).get("name") or train.get("type", "")
    labelled: list[dict[str, Any]] = []
    if transfer:
        start, before = {k: v for k, v in meta["origin"].items() if k != "sha256"}, meta.get("pretrained", {})
        config = {**config, "backbone": {**config["backbone"], "weights": start}}  # as in the run's record
        method = f"{start['method']} + fine-tuned on {dataset} (labels)"
        images += before.get("images_seen", 0)
        clock = {kind: s + before.get("clock", {}).get(kind, 0.0) for kind, s in clock.items()}
        labelled = [*meta.get("labelled", []), train]
    else:
        method, images = config["method"], images * config["levels"]["lower_steps"]
    identity = {"method": method, "config_hash": config_hash(strip_paths(config)), "iteration": iteration}
    details = {"name": config["name"], "seed": config["seed"], "dataset": dataset}
    details |= {"images_seen": images, "clock": clock, "sha256": digest, **_kept(meta)}
    return Provenance(method, identity, details, int(config["seed"]), labelled)


def _of_export(meta: dict[str, Any], digest: str) -> Provenance:
    details = {"name": meta["name"], "checkpoint_sha256": meta.get("source_sha256", ""), "sha256": digest}
    details |= _kept(meta)
    iteration = int(meta.get("iteration", "0"))
    if "config_hash" not in meta:  # an export of an early version, which did not write it
        return Provenance(meta["name"], {"method": meta["name"], "iteration": iteration, **details}, details)
    seed = int(meta["seed"])
    identity = {"method": meta["method"], "config_hash": meta["config_hash"], "iteration": iteration}
    return Provenance(meta["method"], identity, {**details, "seed": seed}, seed)


def _kept(meta: dict[str, Any]) -> dict[str, Any]:
    """The NUMERICS and the data that a file of weights was made with; earlier versions wrote none."""
    return {key: meta[key] for key in ("numerics", "data") if key in meta}


def _architecture(spec: str) -> dict[str, Any] | str:
    """What ``random:SPEC`` takes from its file, which may be of any seed; the name of a timm model."""
    try:
        return read_encoder(spec)[1].section()
    except MlomaeError:  # a timm model, or `create_backbone` will say what is wrong
        return spec if spec.startswith("timm:") else Path(spec).name


def _patch_size(spec: str, file: WeightsFile | None = None) -> int | None:
    """Of a timm model, or of weights: those of ``spec``, or ``file``; None if `create_backbone` will fail."""
    try:
        if not spec.startswith("timm:"):
            return measure((file or read_weights(spec)).encoder).get("patch_size")
        with torch.device("meta"):  # its shapes alone
            return int(create_timm(spec.removeprefix("timm:").removesuffix(":pretrained")).patch_embed.patch_size[0])
    except (MlomaeError, AttributeError):
        return None


def describe_weights(spec: str) -> Provenance:
    """Where a backbone ``spec`` (`mlomae.backbones.create.create_backbone`) comes from; other files go by their name.

    Raises CheckpointError for a file that cannot be read, and for a transfer's checkpoint without a fine-tuned
    backbone.
    """
    if spec == "random":
        return Provenance(RANDOM, {"method": RANDOM}, {})
    if spec.startswith("random:"):
        of = spec.removeprefix("random:")
        identity = {"method": RANDOM, "architecture": _architecture(of)}
        return Provenance(RANDOM, identity, {}, patch_size=_patch_size(of))
    if spec.startswith("timm:"):
        return Provenance(spec, {"method": spec}, {}, patch_size=_patch_size(spec))
    path, place = locate(spec)
    name = spec if spec.startswith(HUB) else f"{path.stem}#{place}" if place else Path(spec).stem
    if not path.is_file():
        return Provenance(name, {"method": name}, {})
    file, digest = read_weights(spec), sha256(path)
    patch = _patch_size(spec, file)
    if file.layout in ("pretraining", "transfer"):
        return replace(_of_checkpoint(path, file.about, digest), patch_size=patch)
    if file.layout == "export" and "name" in file.about:
        return replace(_of_export(file.about, digest), patch_size=patch)
    details = {"sha256": digest}
    return Provenance(name, {"method": name, **details}, details, patch_size=patch)


def check_unseen(
    labelled: Sequence[dict[str, Any]], own: dict[str, Any], test: Images, allow_near: bool = False
) -> None:
    """Refuse test images whose labels the backbone was fine-tuned on.

    ``own``: the transfer's training source, which has been compared with the test images already. If the images of an
    earlier source are not on this machine, its type and split are compared instead, and a note is printed.
    Raises DataError if test images were trained on; near copies as `check_disjoint`, unless ``allow_near``.
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
        check_disjoint(source, test, allow_near)
