"""Checkpoints and exports with a missing or wrong field, and every door through which a file of weights comes in."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tiny
import torch
from run_samples import GONE, with_value
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mlomae.backbones.create import create_backbone
from mlomae.backbones.embed import embed
from mlomae.backbones.export import export
from mlomae.backbones.provenance import describe_weights
from mlomae.common.checkpoint import save_atomically
from mlomae.common.errors import MlomaeError
from mlomae.diagnostics.diagnose import diagnose
from mlomae.models.loading import load_pretrained
from mlomae.pretraining.load import evaluate_checkpoint, load_run
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import run_pretraining

Case = tuple[str, Callable[[Path], object]]
"""A name, and what writes the file to a path."""
VALUES: dict[str, Any] = {
    "gone": GONE,
    "None": None,
    "text": "text",
    "negative": -1,
    "nan": float("nan"),
    "huge": 10**30,
    "a dict": {},
    "a list": [],
    "a tensor": torch.zeros(3),
}
ITERATIONS, SAVED = 4, 3
PRETRAINING: dict[str, Any] = {
    "name": "fuzz",
    "train__outer_iterations": ITERATIONS,
    "train__checkpoint_interval": 1,
    "train__picture_interval": 100,
}


def tensors_like(tensor: torch.Tensor) -> dict[str, Any]:
    """Tensors that cannot stand in for ``tensor``."""
    broken = tensor.clone()
    if tensor.is_floating_point() and tensor.numel():
        broken.view(-1)[0] = torch.nan
    return {
        "gone": GONE,
        "None": None,
        "text": "text",
        "another shape": torch.zeros(*tensor.shape, 2),
        "no numbers": torch.zeros(0, *tensor.shape[1:]),
        "truth values": torch.zeros(tensor.shape, dtype=torch.bool),
        "complex": torch.zeros(tensor.shape, dtype=torch.complex64),
        "sparse": torch.zeros(tensor.shape).to_sparse() if tensor.ndim else None,
        "on no device": torch.empty(tensor.shape, device="meta"),
        **({"not finite": broken} if tensor.is_floating_point() else {}),
    }


def places(content: Any, most: int = 3) -> Iterator[tuple[Any, ...]]:
    """Keys that lead to the fields of nested dicts; of long dicts of like entries the first ``most`` and the last."""
    if not isinstance(content, dict):
        return
    keys = list(content)
    if len(keys) > 8 and all(type(content[key]) is type(content[keys[0]]) for key in keys):
        keys = [*keys[: min(most, len(keys) - 1)], keys[-1]]
    for key in keys:
        yield (key,)
        yield from ((key, *rest) for rest in places(content[key], most))


def bad_states(
    content: dict[str, Any], skip: tuple[str, ...] = ("schedulers",)
) -> Iterator[tuple[str, dict[str, Any]]]:
    """``content`` of a checkpoint with one field gone or of another type, by name."""
    for place in places(content):
        if place[0] in skip:
            continue
        value: Any = content
        for key in place:
            value = value[key]
        wrong = tensors_like(value) if isinstance(value, torch.Tensor) else VALUES
        for kind, other in wrong.items():
            if isinstance(other, torch.Tensor) or type(other) is not type(value) or other != value:
                yield f"{'.'.join(map(str, place))}: {kind}", with_value(content, place, other)


def bad_checkpoints(path: Path) -> Iterator[Case]:
    """Files like the checkpoint at ``path``, each with a fault."""
    for name, content in bad_states(torch.load(path, weights_only=True)):
        yield name, lambda target, content=content: save_atomically(content, target)


def _with_header(path: Path, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """A safetensors file with another header."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = change(raw[8 : 8 + length])
    return lambda target: target.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + length :])


def bad_safetensors(path: Path) -> Iterator[Case]:
    """Files like the export at ``path``: tensors and metadata that are gone or wrong, and damaged bytes."""
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
    state, raw = load_file(path), path.read_bytes()
    for (key,) in places(state):
        for kind, other in tensors_like(state[key]).items():
            if other is GONE or (
                isinstance(other, torch.Tensor) and other.device.type == "cpu" and not other.is_sparse
            ):
                wrong = with_value(state, (key,), other)
                yield f"{key}: {kind}", lambda target, w=wrong: save_file(w, target, metadata=meta)
    texts = [
        "",
        "text",
        "-1",
        "NaN",
        "null",
        "[]",
        "{}",
        '{"embed_dim": "x"}',
        '{"depth": 1e9}',
        "[" * 5000,
        "1" * 5000,
    ]
    for key in meta:
        for text in texts:
            other = {**meta, key: text}
            yield f"{key}={text[:20]}", lambda target, o=other: save_file(state, target, metadata=o)
        less = {k: v for k, v in meta.items() if k != key}
        yield f"{key}: gone", lambda target, less=less: save_file(state, target, metadata=less)
    for length in (0, 1, 7, 8, 9, 100, len(raw) // 2, len(raw) - 1):
        yield f"cut to {length}", lambda target, n=length: target.write_bytes(raw[:n])
    yield "no JSON", _with_header(path, lambda header: b"x" * len(header))
    yield "lone surrogates", _with_header(path, lambda header: header.replace(b"mlomae", b"\\ud8"))
    huge = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    yield "huge", _with_header(path, lambda header: huge)


# --- doors ------------------------------------------------------------------------------------------------------------


def doors(work: Path) -> dict[str, Callable[[Path], object]]:
    """What reads a file of weights, by name; each returns what shows whether the weights were those of the file."""
    config = tiny.config(**PRETRAINING)
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)

    def started(path: Path) -> object:
        model = Pretrainer(config, tiny.CLASSES)
        load_pretrained(model.mae, path)
        return dict(model.mae.state_dict())

    def backbone(spec: str) -> object:
        return dict(create_backbone(spec, num_classes=2, img_size=16)[0].state_dict())

    def exported(path: Path) -> object:
        out = work / "out.safetensors"
        export(path, out, "safetensors")
        return load_file(out)

    return {
        "init_from": started,
        "backbone": lambda path: backbone(str(path)),
        "random": lambda path: backbone(f"random:{path}"),
        "embed": lambda path: embed(str(path), images),
        "describe": lambda path: vars(describe_weights(str(path))),
        "export": exported,
        "load_run": lambda path: load_run(path).build_model(tiny.CLASSES).state_dict(),
        "evaluate": evaluate_checkpoint,
        "diagnose": lambda path: diagnose(path, batches=1, batch_size=8, out=work / "diagnose")[0],
    }


def resume(work: Path) -> Callable[[Path], object]:
    """Go on from a checkpoint; the weights in the end."""

    def door(path: Path) -> object:
        run_pretraining(tiny.config(**PRETRAINING), path.parents[1], resume=True)
        return torch.load(path.with_name(f"iter_{ITERATIONS}.pth"), weights_only=True)["modules"]

    return door


def outcome(door: Callable[[Path], object], path: Path) -> tuple[str, Any]:
    """("refused", the message) or ("read", the result); raises what is no MlomaeError, or not one line."""
    try:
        return "read", door(path)
    except MlomaeError as error:
        text = str(error)
        assert "\n" not in text.strip(), text
        return "refused", text
