"""Where weights are: a file, a run's folder, a folder of another library, or a model on the Hugging Face Hub."""

import hashlib
import os
from pathlib import Path

from mlomae.common.checkpoint import list_checkpoints, newest_checkpoint
from mlomae.common.errors import CheckpointError, reason_of
from mlomae.models.safe_load import SHARDS

HUB = ("hf-hub:", "hf_hub:")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_HUB_FILES = ("*config.json", "model.safetensors", "model-*.safetensors", SHARDS, "pytorch_model.bin")


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def locate(spec: str | Path) -> tuple[Path, str]:
    """The file that ``spec`` names, and the place in it that follows a ``#``, or "".

    ``spec``: a file; a folder, of which the newest checkpoint of a run is taken, else ``model.safetensors``, its parts,
    or ``pytorch_model.bin``; or ``hf-hub:OWNER/NAME[@REVISION]``, which is fetched from the Hugging Face Hub.

    Raises CheckpointError for a name of the Hub that cannot be fetched.
    """
    text, place = os.fspath(spec), ""
    if "#" in text and not Path(text).exists():
        text, _, place = text.rpartition("#")
    path = _fetch(text.partition(":")[2]) if text.startswith(HUB) else Path(text)
    if path.is_dir():
        if list_checkpoints(path):
            return newest_checkpoint(path), place
        names = ("model.safetensors", SHARDS, "pytorch_model.bin")
        return path / next((name for name in names if (path / name).is_file()), names[0]), place
    return path, place


def weights_path(spec: str | Path) -> Path:
    """The file that ``spec`` names, see `locate`."""
    return locate(spec)[0]


def check_reachable(repo: str, what: str) -> None:
    """Raise CheckpointError at once if the Hub cannot be reached and no weights of ``repo`` are in the local cache.

    Its library would try file by file for a minute, and print a line each time. ``what``: how the message calls it.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE or any(isinstance(try_to_load_from_cache(repo, name), str) for name in _WEIGHTS):
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception as error:  # of whichever library it speaks HTTP with
        raise CheckpointError(
            f"{what} cannot be fetched: {constants.ENDPOINT} cannot be reached ({reason_of(error):.80}); check the "
            "network, or give a file of weights"
        ) from error


def _fetch(name: str) -> Path:
    """The folder in the local cache of a model on the Hugging Face Hub."""
    from huggingface_hub import snapshot_download

    name, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(_HUB_FILES)))
    except Exception as error:  # wrong names, no network, no such model: these share no base class
        raise CheckpointError(
            f"'{HUB[0]}{name}' cannot be fetched ({reason_of(error):.200}); check the name and the network"
        ) from error
