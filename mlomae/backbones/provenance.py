"""Where a backbone comes from, in the words that a record and a table use."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mlomae.backbones.export import sha256
from mlomae.backbones.finetuned import finetuned_origin, labelled_sources
from mlomae.common import checkpoint
from mlomae.common.errors import CheckpointError, MlomaeError
from mlomae.models.architecture import read_encoder
from mlomae.models.finetuned import read_finetuned
from mlomae.records import RANDOM, config_hash, strip_paths


@dataclass(frozen=True)
class Provenance:
    """``method`` is the row's name in a table. ``identity`` belongs to the configuration: it is the same for all seeds
    of one pretraining, and for a checkpoint and its exports. ``details`` does not: name, digest of the file.
    ``seed`` is the pretraining's, None if unknown. ``labelled``: sources that the backbone was fine-tuned on.
    """

    method: str
    identity: dict[str, Any]
    details: dict[str, Any]
    seed: int | None = None
    labelled: list[dict[str, Any]] = field(default_factory=list)


def _of_finetuned(path: Path) -> Provenance | None:
    state = read_finetuned(path)
    if state is None:
        return None
    method, identity, details = finetuned_origin(state)
    seed = int(state["config"]["seed"])
    return Provenance(method, identity, {**details, "sha256": sha256(path)}, seed, labelled_sources(state))


def _of_checkpoint(path: Path) -> Provenance | None:
    try:
        state = checkpoint.load_checkpoint(path)
    except CheckpointError:
        return None
    config, iteration = state["config"], int(state["iteration"])
    identity = {"method": config["method"], "config_hash": config_hash(strip_paths(config)), "iteration": iteration}
    details = {"name": config["name"], "seed": config["seed"], "dataset": config["data"]["train"].get("type", "")}
    lower = iteration * config["levels"]["lower_steps"] * config["data"]["batch_size"]
    details |= {"images_seen": lower, "clock": state["clock"], "sha256": sha256(path)}
    return Provenance(config["method"], identity, details, config["seed"])


def _of_export(path: Path) -> Provenance | None:
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
    details = {"name": meta["mlomae.name"], "checkpoint_sha256": meta.get("mlomae.source_sha256", "")}
    details["sha256"] = sha256(file)
    iteration = int(meta.get("mlomae.iteration", "0"))
    if "mlomae.config_hash" not in meta:  # an export of before they told it
        return Provenance(
            meta["mlomae.name"], {"method": meta["mlomae.name"], "iteration": iteration, **details}, details
        )
    method, seed = meta["mlomae.method"], int(meta["mlomae.seed"])
    identity = {"method": method, "config_hash": meta["mlomae.config_hash"], "iteration": iteration}
    return Provenance(method, identity, {**details, "seed": seed}, seed)


def _architecture(spec: str) -> dict[str, Any] | str:
    """What ``random:SPEC`` takes from its file, which may be any seed's; the name of a model of timm."""
    path = Path(spec)
    file = path / "model.safetensors" if path.is_dir() else path
    try:
        return {k: v for k, v in asdict(read_encoder(file).architecture).items() if k != "grid"}
    except MlomaeError:  # a timm model, or `create_backbone` will say what is wrong
        return spec if spec.startswith("timm:") else path.name


def describe_weights(spec: str) -> Provenance:
    """The origin of a backbone ``spec`` (`backbone.create_backbone`); anything that is not ours goes by its name.

    Raises CheckpointError for a transfer's checkpoint that holds no fine-tuned backbone."""
    path = Path(spec)
    if spec == "random":
        return Provenance(RANDOM, {"method": RANDOM}, {})
    if spec.startswith("random:"):
        return Provenance(RANDOM, {"method": RANDOM, "architecture": _architecture(spec.removeprefix("random:"))}, {})
    if spec.startswith("timm:"):
        return Provenance(spec, {"method": spec}, {})
    found = (_of_checkpoint(path) or _of_finetuned(path) if path.is_file() else None) or _of_export(path)
    if found is not None:
        return found
    file = path / "model.safetensors" if path.is_dir() else path
    details = {"sha256": sha256(file)} if file.is_file() else {}
    return Provenance(path.stem, {"method": path.stem, **details}, details)
