"""Which runs are of the same data: by what their records say of its content, not by the names of formats or folders."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from mlomae.records import Record, config_hash, contents_of

OWN_FORMATS = ("coco_folder", "imagefolder", "pictures", "scene_folder", "webdataset")
"""The types of sources that read any folder; other types name a data set."""
_PARTS = {"train": "train_source", "eval": "eval_source", "test": "eval_source"}  # key of ``config.data``: of a record


def same_contents(record: Record) -> dict[str, str]:
    """What compared runs agree on: the digests of the training and the evaluation images, as far as they are known."""
    return {part: digest for part, digest in contents_of(record).items() if part in _PARTS}


def pretrained_on(record: Record) -> str:
    """The digest of the images that a transfer's backbone was pretrained on, "" if unknown."""
    return contents_of(record.get("pretrained") or {}).get("train", "")


def pooled_contents(record: Record) -> str:
    """What the runs of one row agree on besides their configuration."""
    return json.dumps([contents_of(record), pretrained_on(record)], sort_keys=True)


def settle_data(records: Iterable[Record]) -> None:
    """Complete ``records``, in memory, so that equal headings are of equal data.

    A published set, or the embedded one, of which a record of an earlier version does not hold the content is taken to
    be the one that other records describe, if they all describe the same. Data sets of one name and different content
    get six digits of it behind their name.
    """
    known = list(records)
    _adopt(known)
    groups: dict[tuple[str, str], dict[str, list[Record]]] = {}
    for r in known:
        digest = json.dumps(sorted(same_contents(r).values()))
        groups.setdefault((r["task"], r["dataset"]), {}).setdefault(digest, []).append(r)
    for contents in groups.values():
        for digest, found in contents.items() if len(contents) > 1 else ():
            if digest != "[]":
                for r in found:
                    r["dataset"] += f" [{hashlib.sha256(digest.encode()).hexdigest()[:6]}]"


def _adopt(records: list[Record]) -> None:
    described: dict[str, dict[str, dict[str, Any]]] = {}
    for r in records:
        for part, found in (r.get("data") or {}).items():
            if key := _source_key(r, part):
                described.setdefault(key, {})[found["content"]] = found
    for r in records:
        if not r.get("data"):
            keys = {part: key for part in _PARTS if (key := _source_key(r, part)) in described}
            adopted = {part: found for part, key in keys.items() if len(found := list(described[key].values())) == 1}
            if adopted:
                r["data"] = {part: found for part, (found,) in adopted.items()}


def _source_key(record: Record, part: str) -> str:
    """What identifies a source that its type names: its configuration and its number of images; "" for others."""
    source = record["config"].get("data", {}).get(part) or {}
    count = re.search(r"(\d+) images$", record[_PARTS[part]]) if part in _PARTS else None
    if count is None or source.get("type", OWN_FORMATS[0]) in OWN_FORMATS:
        return ""
    return f"{config_hash(source)} {count[1]}"


def nested_sources(key: str, source: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A source and those that it is made of, each with its key in the configuration."""
    yield key, source
    for name, inner in source.items():
        if isinstance(inner, dict):
            yield from nested_sources(f"{key}.{name}", inner)
