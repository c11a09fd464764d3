"""A model for the Hugging Face Hub, or another that speaks its protocol: the folder, its card, and the upload."""

import os
import re
from pathlib import Path

from mlomae.backbones.export import FORMATS, format_named, summary, write_export
from mlomae.backbones.model_card import model_card, record_of
from mlomae.common.atomic import write_text
from mlomae.common.errors import BackendError, CheckpointError, reason_of
from mlomae.data.copies import FILE

CARD = "README.md"


def prepare_model(
    checkpoint: str | Path,
    out: str | Path,
    repo: str,
    fmt: str = "timm",
    *,
    num_heads: int | None = None,
    record: Path | None = None,
    records: Path | None = None,
    licence: str | None = None,
) -> str:
    """Export to the folder ``out`` and write its card; a card that is there is kept. Returns a summary.

    Args:
        repo: OWNER/NAME on the hub, which the card names.
        fmt: one of the folders: timm, huggingface, huggingface-mae.
        record: by default ``record.json`` of the run that the checkpoint lies in.
        records: a folder with the records of other seeds.
        licence: of the weights.

    Nothing is sent anywhere. Raises what `mlomae.backbones.export.export` raises, CheckpointError also for a format or
    a name that a hub does not take and for a record that is not the model's.
    """
    out = Path(out)
    if format_named(fmt).suffix:
        folders = ", ".join(name for name, form in FORMATS.items() if not form.suffix)
        raise CheckpointError(f"a hub takes folders, and format {fmt} is a file; choose one of {folders}")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise CheckpointError(f"'{repo}' is no name on a hub; write OWNER/NAME")
    source, images = write_export(checkpoint, out, fmt, num_heads=num_heads, kept=(CARD,))
    found, there = record_of(source, record), (out / CARD).is_file()
    if not there:
        write_text(out / CARD, model_card(source, repo, fmt, found, records, licence))
    state = " was there and is kept" if there else "" if found else ", without a record: no numbers"
    said = f"card      {out / CARD}{state}"
    *lines, load = summary(source, out, fmt, images)
    return "\n".join([*lines, said, load])


def push(folder: Path, repo: str, public: bool = False) -> str:
    """Upload a folder that `prepare_model` wrote; returns the address of the commit.

    To HF_ENDPOINT, by default huggingface.co, as whoever is logged in there (HF_TOKEN, or `hf auth login`). A
    repository that does not exist is made, private unless ``public``. The digests of the training images stay here.

    Raises BackendError if the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        api.create_repo(repo, exist_ok=True, private=not public)
        info = api.upload_folder(
            repo_id=repo, folder_path=folder, ignore_patterns=[FILE], commit_message="Exported by mlomae"
        )
    except Exception as error:  # of HTTP, of names, of files: these share no base class
        raise BackendError(
            f"'{folder}' was written but not pushed to {repo} ({reason_of(error):.200}); log in with `hf auth login`, "
            "check the name and the network, then push again"
        ) from error
    return str(info.commit_url)
