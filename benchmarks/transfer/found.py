"""The backbones that pretraining on the embedded textures left behind, and their floor.

The transfer tests on the textures' ``test`` part: a run that trained on it is refused.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlomae.backbones.create import SPEC
from mlomae.backbones.provenance import Provenance, describe_weights
from mlomae.common.checkpoint import TRANSFER_FORMAT, list_checkpoints, load_checkpoint
from mlomae.common.errors import CheckpointError, ConfigError
from mlomae.records import RANDOM, config_hash, slug

MISSING = "run `make demo` or `make pretrain` first"


@dataclass(frozen=True, eq=False)
class Backbone:
    """``weights`` as `create_backbone` takes them; ``note``: what a reader of the table must know, "" if nothing."""

    weights: str
    origin: Provenance
    seed: int
    note: str = ""

    @property
    def folder(self) -> str:
        """METHOD/seedN_DIGEST: other weights, other folder, so that a result never stands for a later pretraining."""
        digest = self.origin.details.get("sha256") or config_hash(self.origin.identity)
        return f"{slug(self.origin.method)}/seed{self.seed}_{digest[:8]}"

    @property
    def images_seen(self) -> int | str:
        """In pretraining, by the reconstruction level, repetitions counted; "" if not known."""
        return 0 if self.origin.method == RANDOM else self.origin.details.get("images_seen", "")


def _skip(path: Path, reason: str) -> None:
    print(f"left out: '{path}' {reason}", file=sys.stderr)


def _load(path: Path) -> dict[str, Any] | None:
    """The newest checkpoint of a run; None for a transfer's, and, with a line, for one that cannot be read."""
    try:
        return load_checkpoint(path)
    except CheckpointError as error:
        try:
            load_checkpoint(path, TRANSFER_FORMAT)
        except CheckpointError:
            print(f"left out: {error}", file=sys.stderr)
        return None


def _usable(path: Path) -> Backbone | None:
    state = _load(path)
    if state is None:
        return None
    config = state["config"]
    sources = [s for s in (config["data"]["train"], config["data"].get("feedback")) if s]
    if sources[0].get("type") != "textures":
        return None
    if any(s.get("type") == "textures" and s.get("split") == "test" for s in sources):
        _skip(path, "was pretrained on the test images")
        return None
    origin = describe_weights(str(path))
    length = config["train"]["outer_iterations"]
    short = state["iteration"] < length
    note = f"'{path}' is at {state['iteration']} of {length} iterations: that pretraining is not finished"
    return Backbone(str(path.absolute()), origin, origin.seed or 0, note if short else "")


def find_backbones(runs: Path, out: Path, most: int) -> list[Backbone]:
    """The newest checkpoint of every run under ``runs`` that was pretrained on the textures, sorted by method and seed.

    Leaves out ``out``, copies of a file, and, saying so, all but the ``most`` newest. Raises ConfigError if there is
    none.
    """
    folders = [f.parent for f in sorted(runs.rglob("checkpoints")) if out.absolute() not in f.absolute().parents]
    newest = [found[-1] for folder in folders if (found := list_checkpoints(folder))]
    different: dict[str, tuple[float, Backbone]] = {}
    for path in newest:
        if (backbone := _usable(path)) is not None:
            different.setdefault(backbone.origin.details["sha256"], (path.stat().st_mtime, backbone))
    if not different:
        raise ConfigError(f"no backbone pretrained on the textures is under '{runs}'; {MISSING}")
    by_age = sorted(different.values(), key=lambda pair: (-pair[0], pair[1].weights))
    if len(by_age) > most:
        print(f"{len(by_age)} backbones are under '{runs}': taking the {most} newest; --most takes more", flush=True)
    return sorted((b for _, b in by_age[:most]), key=lambda b: (b.origin.method, b.seed, b.weights))


def name_backbones(specs: list[str]) -> list[Backbone]:
    """Backbones by name, in that order; raises ConfigError for one that is named twice, CheckpointError for
    a file that is not there."""
    if len(set(specs)) < len(specs):
        raise ConfigError("--weights names a backbone twice; name each once")
    backbones = []
    for spec in specs:
        if not Path(spec).exists() and not spec.startswith(("timm:", "random")):
            raise CheckpointError(f"backbone '{spec}' does not exist; give {SPEC}")
        weights = str(Path(spec).absolute()) if Path(spec).exists() else spec  # transfers run in another folder
        origin = describe_weights(weights)
        backbones.append(Backbone(weights, origin, origin.seed or 0))
    return backbones


def floor_of(backbone: Backbone) -> list[Backbone]:
    """Random weights of the architecture of ``backbone``, with its seed; nothing if it is random itself."""
    if backbone.origin.method == RANDOM:
        return []
    weights = f"random:{backbone.weights}"
    return [Backbone(weights, describe_weights(weights), backbone.seed)]
