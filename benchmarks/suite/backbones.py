"""The backbones that a suite transfers: those of its pretrainings, named checkpoints, and discovered ones.

Discovery finds the checkpoints of pretrainings on the embedded textures. The transfers test on the textures' part
``test``, so a pretraining that trained on it is left out.
"""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlomae.backbones.create import SPEC
from mlomae.backbones.provenance import Provenance, describe_weights
from mlomae.common.checkpoint import TRANSFER_FORMAT, list_checkpoints, load_checkpoint
from mlomae.common.errors import CheckpointError, ConfigError, counted
from mlomae.models.places import HUB, weights_path
from mlomae.records import RANDOM, config_hash, slug

MISSING = "run `make demo` or `make pretrain` first"


@dataclass(frozen=True, eq=False)
class Backbone:
    """``weights`` as `create_backbone` takes them; ``note``: a remark for the reader of the table, or ""."""

    weights: str
    source: Provenance
    seed: int
    note: str = ""

    @property
    def method(self) -> str:
        return self.source.method

    @property
    def folder(self) -> str:
        """METHOD/seedN_DIGEST, so that other weights, such as those of a later pretraining, have another folder."""
        digest = self.source.details.get("sha256") or config_hash(self.source.identity)
        return f"{slug(self.method)}/seed{self.seed}_{digest[:8]}"

    def pretraining(self, *keys: str) -> Any:
        """A number of the pretraining, such as ``images_seen``: 0 for random weights, "" if it is not known."""
        found: Any = self.source.details
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return 0 if self.method == RANDOM else "" if found is None else found


def _usable(path: Path) -> Backbone | None:
    """The backbone in a checkpoint; None if it was not pretrained on the textures, and, after a message, if it was
    pretrained on their test images or cannot be read."""
    try:
        state = load_checkpoint(path)
    except CheckpointError as error:
        with contextlib.suppress(CheckpointError):
            load_checkpoint(path, TRANSFER_FORMAT)
            return None
        print(f"left out: {error}", file=sys.stderr)
        return None
    config = state["config"]
    sources = [s for s in (config["data"]["train"], config["data"].get("feedback")) if s]
    if sources[0].get("type") != "textures":
        return None
    if any(s.get("type") == "textures" and s.get("split") == "test" for s in sources):
        print(f"left out: '{path}' was pretrained on the test images", file=sys.stderr)
        return None
    source = describe_weights(str(path))
    length = config["train"]["outer_iterations"]
    short = state["iteration"] < length
    note = f"'{path}' is at {state['iteration']} of {counted(length, 'iteration')}: that pretraining is not finished"
    return Backbone(str(path.absolute()), source, source.seed or 0, note if short else "")


def discover_backbones(runs: Path, out: Path, most: int) -> list[Backbone]:
    """The newest checkpoint of every run under ``runs`` that was pretrained on the textures, sorted by method and seed.

    Checkpoints under ``out`` and copies of a file are left out. If there are more than ``most``, the newest are taken
    and a message says so. Raises ConfigError if there is none.
    """
    folders = [f.parent for f in sorted(runs.rglob("checkpoints")) if out.absolute() not in f.absolute().parents]
    newest = [found[-1] for folder in folders if (found := list_checkpoints(folder))]
    different: dict[str, tuple[float, Backbone]] = {}
    for path in newest:
        if (backbone := _usable(path)) is not None:
            different.setdefault(backbone.source.details["sha256"], (path.stat().st_mtime, backbone))
    if not different:
        raise ConfigError(f"no backbone pretrained on the textures is under '{runs}'; {MISSING}")
    by_age = sorted(different.values(), key=lambda pair: (-pair[0], pair[1].weights))
    if len(by_age) > most:
        print(f"{len(by_age)} backbones are under '{runs}': taking the {most} newest; --most takes more", flush=True)
    return sorted((b for _, b in by_age[:most]), key=lambda b: (b.method, b.seed, b.weights))


def named_backbones(specs: list[str]) -> list[Backbone]:
    """Backbones by name, in that order. Raises ConfigError for one that is named twice, CheckpointError for a file that
    does not exist."""
    if len(set(specs)) < len(specs):
        raise ConfigError("--weights names a backbone twice; name each once")
    backbones = []
    for spec in specs:
        stored = not spec.startswith(("timm:", "random", *HUB))
        if stored and not Path(spec).exists() and not weights_path(spec).exists():
            raise CheckpointError(f"backbone '{spec}' does not exist; give {SPEC}")
        weights = str(Path(spec).absolute()) if stored else spec  # transfers run in another folder
        source = describe_weights(weights)
        backbones.append(Backbone(weights, source, source.seed or 0))
    return backbones


def random_floor(backbone: Backbone) -> list[Backbone]:
    """Random weights of the architecture of ``backbone``, with its seed; nothing if it is random itself."""
    if backbone.method == RANDOM:
        return []
    weights = f"random:{backbone.weights}"
    return [Backbone(weights, describe_weights(weights), backbone.seed)]
