"""Where a backbone comes from, in the words that a record and a table use."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from benchmarks.classification import RANDOM
from benchmarks.classification.architecture import read_encoder
from benchmarks.records import config_hash, strip_paths
from mlomae.engine import checkpoint
from mlomae.errors import CheckpointError, MlomaeError
from mlomae.export import sha256


@dataclass(frozen=True)
class Origin:
    """``method`` is the row's name in a table. ``identity`` belongs to the configuration: it is the same for all seeds
    of one pretraining. ``details`` does not: name, digest of the file. ``seed`` is the pretraining's, None if unknown.
    """

    method: str
    identity: dict[str, Any]
    details: dict[str, Any]
    seed: int | None = None


def _of_checkpoint(path: Path) -> Origin | None:
    try:
        state = checkpoint.load_checkpoint(path)
    except CheckpointError:
        return None
    config, iteration = state["config"], int(state["iteration"])
    identity = {"method": config["method"], "config_hash": config_hash(strip_paths(config)), "iteration": iteration}
    details = {"name": config["name"], "seed": config["seed"], "dataset": config["data"]["train"].get("type", "")}
    lower = iteration * config["levels"]["lower_steps"] * config["data"]["batch_size"]
    details |= {"images_seen": lower, "clock": state["clock"], "sha256": sha256(path)}
    return Origin(config["method"], identity, details, config["seed"])


def _of_export(path: Path) -> Origin | None:
    file = path / "model.safetensors" if path.is_dir() else path
    if file.suffix != ".safetensors" or not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            meta = opened.metadata() or {}
    except SafetensorError:
        return None
    if "mlomae.name" not in meta:
        return None
    source = meta.get("mlomae.source_sha256", "")
    identity = {"method": meta["mlomae.name"], "iteration": int(json.loads(meta.get("mlomae.iteration", "0")))}
    return Origin(meta["mlomae.name"], identity, {"checkpoint_sha256": source, "sha256": sha256(file)})


def _architecture(spec: str) -> dict[str, Any]:
    """What a random backbone takes from ``spec``; nothing if that is empty: the configuration's model says it then."""
    path = Path(spec)
    if not spec or spec.startswith("timm:"):
        return {"architecture": spec.removesuffix(":pretrained")} if spec else {}
    try:
        found = asdict(read_encoder(path / "model.safetensors" if path.is_dir() else path).architecture)
    except MlomaeError:  # `create_backbone` says what is wrong with it, or reads a timm folder
        return {"architecture": path.stem}
    return {"architecture": {key: value for key, value in found.items() if key != "grid"}}


def describe_weights(spec: str) -> Origin:
    """The origin of a backbone ``spec`` (`backbone.create_backbone`); anything that is not ours goes by its name."""
    path = Path(spec)
    if spec == "random" or spec.startswith("random:"):
        return Origin(RANDOM, {"method": RANDOM, **_architecture(spec.removeprefix("random").removeprefix(":"))}, {})
    if spec.startswith("timm:"):
        return Origin(spec, {"method": spec}, {})
    found = (_of_checkpoint(path) if path.is_file() else None) or _of_export(path)
    if found is not None:
        return found
    file = path / "model.safetensors" if path.is_dir() else path
    details = {"sha256": sha256(file)} if file.is_file() else {}
    return Origin(path.stem, {"method": path.stem, **details}, details)
