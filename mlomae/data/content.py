"""What a data set holds, as digests: two sets are the same if their images, labels, order and classes are, wherever
they lie.

Checkpoints and records keep a description (`describe_content`) of every source of their run: resuming refuses other
data, and tables and suites tell data sets apart by it, not by the names of formats or folders. All files are read.
"""

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlomae.common.errors import CheckpointError, counted
from mlomae.data.images import Images, digest_bytes
from mlomae.data.reader import in_threads
from mlomae.data.training import TransferImages

Contents = dict[str, dict[str, Any]]
"""The descriptions of the sources of a run, by their key in ``config.data``: train, eval, test, feedback."""

_SIZE = 16  # bytes of a digest
_BLOCK = 256  # images that a thread reads at a time


def describe_content(images: Images) -> dict[str, Any]:
    """What identifies ``images``: their ``name`` in headings, their number, and digests (32 hexadecimal digits) of

    - ``classes``: the names of the classes, in order.
    - ``pixels``: the images, in any order: of their files as they are, or of their pixels in memory.
    - ``content``: all of it: each image with its labels, in order, and the classes.

    It is made once for each data set that was opened. Raises DataError for a file that cannot be read.
    """
    if isinstance(images, TransferImages):
        images = images.original
    found: dict[str, Any] | None = vars(images).get("_content")
    if found is None:
        found = vars(images)["_content"] = _describe(images)
    return {"name": images.title, **found}


def describe_contents(sources: Mapping[str, Images]) -> Contents:
    return {part: describe_content(images) for part, images in sources.items()}


def _describe(images: Images) -> dict[str, Any]:
    names = [unicodedata.normalize("NFC", str(name)) for name in images.classes]
    classes = digest_bytes(json.dumps(names).encode())

    def sums_of(block: int) -> tuple[int, int]:
        """Over a block of images: digests of each, and of each in its place with its labels, as numbers."""
        pixels = placed = 0
        for i in range(block * _BLOCK, min(len(images), (block + 1) * _BLOCK)):
            image = images.content_digest(i)
            pixels += int.from_bytes(image, "big")
            placed += int.from_bytes(digest_bytes(b"%d " % i + images.label_digest(i) + image), "big")
        return pixels, placed

    blocks = range(-(-len(images) // _BLOCK))
    sums = [(0, 0), *(map(sums_of, blocks) if images.in_memory else in_threads(sums_of, blocks))]
    pixels, placed = ((sum(part) % 2 ** (8 * _SIZE)).to_bytes(_SIZE, "big") for part in zip(*sums, strict=True))
    content = digest_bytes(classes + placed)
    return {"images": len(images), "classes": classes.hex(), "pixels": pixels.hex(), "content": content.hex()}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between the sources of two runs of one configuration, a phrase for each that does.

    ``before`` and ``now``: records, or ``meta`` of checkpoints; what one of them does not know is taken to be the same.
    """
    then, present = before.get("data") or {}, now.get("data") or {}
    found = []
    for part in [part for part in present if part in then]:
        a, b = then[part], present[part]
        if a["content"] == b["content"]:
            continue
        if a["images"] != b["images"]:
            found.append(f"data.{part} had {counted(a['images'], 'image')} and has {b['images']:,}")
        elif a["pixels"] != b["pixels"]:
            found.append(f"data.{part} has other images, as many as before ({b['images']:,})")
        elif a["classes"] != b["classes"]:
            found.append(f"data.{part} has the same images in classes of other names")
        else:
            found.append(f"data.{part} has the same images with other labels or in another order")
    splits = [known["split_hash"] for known in (before, now) if known.get("split_hash")]
    if not found and len({*splits}) > 1:
        found.append("the images of data.train, or their split, are others")
    return found


def check_same_data(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError, naming the change, if the run at ``path`` would go on with other data (`changes`)."""
    if found := changes(before, now):
        raise CheckpointError(
            f"'{path}' was made with other data: {'; '.join(found)}; put back the data that the run began with, or "
            "choose another work dir"
        )
