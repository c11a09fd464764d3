"""Reads files of other programs: tensors and plain values, and never code.

Training scripts store more than weights: options, paths, averages of a log. The types in `_LISTED` may stand in a
file, but nothing of them is imported or called: each comes back as a `Record`, which holds what it was given and does
nothing. A file that refers to anything else is refused.
"""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from mlomae.common.errors import CheckpointError, first_names, is_out_of_memory, reason_of
from mlomae.models.layouts import State

SHARDS = "model.safetensors.index.json"  # Hugging Face's list of the files that a large model is split into


class Record:
    """Stands for an object of another program: keeps its arguments and its state, has none of its behaviour."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.args, self.options, self.state = args, options, None

    def __new__(cls, *args: Any, **options: Any) -> "Record":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Items:
    """Stands for a kind of dict: comes back as one of Python's."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        return {}


class _Sequence:
    """Stands for a kind of list."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        return []


_LISTED = (
    "argparse.Namespace",
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Float16", "Int64", "Int32", "Bool", "UInt8")),
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",  # the buffer's, of its own methods: a `Record` like the rest
    "mmengine.config.config.ConfigDict",
    *(f"omegaconf.{name}" for name in ("dictconfig.DictConfig", "listconfig.ListConfig", "nodes.AnyNode")),
    *(f"omegaconf.base.{name}" for name in ("Metadata", "ContainerMetadata", "Node")),
    "typing.Any",
    *(f"builtins.{name}" for name in ("dict", "list", "tuple", "int", "float", "str", "bool")),
    "datetime.datetime",
    "datetime.timedelta",
)


_DICTS = (
    "collections.defaultdict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
_LISTS = ("collections.deque",)


def _named(name: str, kind: type) -> Any:
    """A class that the reader takes for the one called ``name``."""
    module, _, own = name.rpartition(".")
    return type(own, (kind,), {"__module__": module})


_STAND_INS: list[Any] = [
    *(_named(name, Record) for name in _LISTED),
    *(_named(name, _Items) for name in _DICTS),
    *(_named(name, _Sequence) for name in _LISTS),
]


def read_file(path: Path) -> tuple[Any, dict[str, str]]:
    """What a file of weights holds, and the metadata of a .safetensors file.

    Raises CheckpointError for a file that is missing, none of its kind, incomplete, or refers to code.
    """
    if not path.is_file():
        raise CheckpointError(f"weights '{path}' do not exist; give a .safetensors, .pth, .pt, .ckpt or .bin file")
    if path.name == SHARDS:
        return _read_shards(path), {}
    try:
        check_fetched(path)
        return _read_safetensors(path) if path.suffix == ".safetensors" else (_read_torch(path), {})
    except (OSError, MemoryError) as error:
        raise _unreadable(path, error) from error


def check_fetched(path: Path) -> None:
    """Raise CheckpointError for what stands in a file's place when a download has failed."""
    with open(path, "rb") as file:
        head = file.read(200)
    if not head:
        raise CheckpointError(f"'{path}' is empty; fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"'{path}' is a Git LFS pointer and not the weights; fetch it again with `git lfs pull`")
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        raise CheckpointError(f"'{path}' is a web page and not weights; fetch it again, and look at the page for why")


def _read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            given = file.metadata() or {}
        return load_file(path), given
    except (SafetensorError, ValueError, RecursionError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"'{path}' is damaged or not a safetensors file ({reason_of(error):.80}); fetch or export it again"
        ) from error


def _read_shards(path: Path) -> State:
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"'{path}' does not list the files of a model; fetch it again") from error
    beside = {file.name for file in path.parent.glob("*.safetensors") if file.is_file()}
    if missing := [str(name) for name in names if name not in beside]:
        raise CheckpointError(f"'{path}' lists {first_names(missing)}, which is missing beside it; fetch it again")
    return {key: value for name in names for key, value in read_file(path.parent / name)[0].items()}


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler raise KeyError, IndexError, ... too
        if isinstance(error, OSError) or is_out_of_memory(error):
            raise _unreadable(path, error) from error
        refused, newer = re.search(r"GLOBAL (\S+)", str(error)), "Unsupported operand" in str(error)
        if refused or (newer and _is_pickle(path)):
            what = f"refers to '{refused[1]}'" if refused else "was written with a newer pickle protocol"
            raise CheckpointError(
                f"'{path}' {what} and was not loaded, since only tensors and plain values are read; "
                f"if you trust it, write its weights alone where that can be imported: {conversion(path)}"
            ) from error
        if kind := _other_kind(path):
            raise CheckpointError(f"'{path}' is {kind}") from error
        raise CheckpointError(
            f"'{path}' is truncated or not a torch file and was not loaded; fetch it again"
        ) from error


def _is_pickle(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) in (b"PK", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _other_kind(path: Path) -> str | None:
    """What else a file is that torch does not load as weights, and what to do; None if it is nothing known."""
    if path.suffix == ".onnx":
        return "an ONNX model, and such are not read; give the weights that it was made of"
    try:
        with zipfile.ZipFile(path) as file:
            members = {name.rpartition("/")[2] for name in file.namelist()}
    except (OSError, zipfile.BadZipFile):
        return None
    known = {
        "constants.pkl": ("a TorchScript program", f"torch.jit.load('{path.name}', map_location='cpu')"),
        "archive_format": ("a program of torch.export", f"torch.export.load('{path.name}').module()"),
    }
    for member, (what, load) in known.items():
        if member in members:
            return f"{what}, and programs are not read; write its weights alone: {conversion(path, load)}"
    return None if "data.pkl" in members else "an archive; unpack it, and give the file of weights in it"


def conversion(path: Path, load: str = "") -> str:
    """One line that writes the state dict of a file that holds code; it runs that code. ``load``: what reads it."""
    load = load or f"torch.load('{path.name}', weights_only=False)"
    return (
        f'python -c "import torch; x = {load}; '
        "torch.save({'state_dict': x.state_dict() if hasattr(x, 'state_dict') else x['state_dict']}, 'weights.pth')\""
    )


def _unreadable(path: Path, error: BaseException) -> CheckpointError:
    return CheckpointError(f"'{path}' cannot be read ({reason_of(error)}); free memory or fix the path, then try again")
