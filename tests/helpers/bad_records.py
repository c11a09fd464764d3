"""Records and the files beside them with content that nobody should have: every field edited, and files that are none.

Everything is a function of a seed. `said_by` is what all of it must come to: one line that names the file, or nothing.
"""

import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from run_samples import GONE, with_value

from mlomae.common.errors import MlomaeError
from mlomae.records import DIGEST, config_hash, record_digest, strip_paths

VALUES: dict[str, Any] = {
    "gone": GONE,
    "null": None,
    "text": "odd",
    "empty text": "",
    "list": [1, "a"],
    "empty list": [],
    "object": {"a": [1]},
    "empty object": {},
    "true": True,
    "negative": -1,
    "zero": 0,
    "fraction": 0.5,
    "nan": float("nan"),
    "infinite": float("-inf"),
    "large": 10**29,
    "huge": 10**70,
    "half a letter": "\ud800",
    "two lines": "a\nerror: b",
    "path": "x:/etc/passwd",
    "nested": json.loads("[" * 200 + "]" * 200),
}
RAW = {  # in place of a value, as text
    "1e400": "1e400",
    "digits": "9" * 10_000,
    "deep": "[" * 100_000 + "]" * 100_000,
}
# in place of a whole file
TEXTS: dict[str, bytes] = {
    "empty": b"",
    "half": b'{"schema": 1,',
    "list": b"[]",
    "null": b"null",
    "number": b"1e400",
    "utf-16": '{"schema": 1}'.encode("utf-16"),
    "latin-1": b'{"name": "\xe9"}',
    "zeros": bytes(64),
    "deep": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "twice": b'{"schema": 1, "schema": 1}',
    "digits": b'{"schema": ' + b"7" * 10_000 + b"}",
}


def fields_of(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to every part of plain values; of a list, to the first and the last item."""
    if where:
        yield where
    items = value.items() if isinstance(value, dict) else {0: value[0], -1: value[-1]}.items() if _full(value) else ()
    for key, part in items:
        yield from fields_of(part, (*where, key))


def _full(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0


def resealed(record: dict[str, Any]) -> dict[str, Any]:
    """With the hash and the digest of its content, where they can be made: only the fields can be refused."""
    result = copy.deepcopy(record)
    try:
        result["config_hash"] = config_hash(strip_paths(result["config"])) if "config_hash" in result else None
        result[DIGEST] = record_digest(result)
    except Exception:  # no program would have written it
        pass
    return result


def leaf_edits(record: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every value that is no list or object, changed a little, so that each of these is a valid record: found by the
    digest alone."""
    for where in fields_of(record):
        value = record
        for key in where:
            value = value[key]
        if isinstance(value, bool):
            yield ".".join(map(str, where)), with_value(record, where, not value)
        elif isinstance(value, int | float):
            yield ".".join(map(str, where)), with_value(record, where, value + 1)
        elif isinstance(value, str) and where != (DIGEST,):
            yield ".".join(map(str, where)), with_value(record, where, value[:-1] + ("1" if value[-1:] != "1" else "2"))
        elif value is None:
            yield ".".join(map(str, where)), with_value(record, where, "a")


def bad_records(record: dict[str, Any], seed: int, count: int | None = None) -> Iterator[tuple[str, bytes]]:
    """(what was done, content of the file): ``count`` of all edits of all fields and of all odd texts, shuffled."""
    marks = {name: f"@{i}@" for i, name in enumerate(RAW)}
    cases: list[tuple[str, Any]] = [
        (f"{'.'.join(map(str, where))}: {name}", (where, value))
        for where in fields_of({k: v for k, v in record.items() if k != DIGEST})
        for name, value in (VALUES | marks).items()
    ]
    cases += [(f"file: {name}", content) for name, content in TEXTS.items()]
    random.Random(seed).shuffle(cases)
    for label, case in cases[:count]:
        if isinstance(case, bytes):
            yield label, case
            continue
        text = json.dumps(resealed(with_value(record, *case)))
        for name, mark in marks.items():
            text = text.replace(json.dumps(mark), RAW[name])
        yield label, text.encode("utf-8", "surrogatepass")


def odd_places(path: Path) -> Iterator[str]:
    """Things that are no record, one after the other, where one should be at ``path``."""
    path.mkdir()
    yield "folder"
    path.rmdir()
    os.mkfifo(path)
    yield "pipe"
    path.unlink()
    path.symlink_to(path.with_name("nothing"))
    yield "link to nothing"
    path.unlink()


# the files beside a folder of records: name -> contents
BESIDE: dict[str, dict[str, bytes]] = {
    "numerics.json": {
        **TEXTS,
        "text": b'{"a.json": "x"}',
        "no digest": b'{"a.json": {"numerics": {}}}',
        "digest": b'{"a.json": {"sha256": 1}}',
        "numerics": b'{"a.json": {"sha256": "0", "numerics": {"pretraining": "1"}}}',
        "numerics null": b'{"a.json": {"sha256": "0", "numerics": null}}',
    },
    "flops.json": {
        **TEXTS,
        "negative": b'{"a": {"lower_step": 1, "upper": 1, "total": -1, "batch": 1}}',
        "large": b'{"a": {"lower_step": 1, "upper": 1, "total": ' + b"9" * 4000 + b', "batch": 1}}',
        "null": b'{"a": null}',
        "nan": b'{"a": {"lower_step": NaN, "upper": 1, "total": 1, "batch": 1}}',
    },
    "published.csv": {
        **{name: content for name, content in TEXTS.items() if name != "empty"},
        "field": b"method,backbone\n" + b"x" * 200_000,
        "epochs": b"method,backbone,pretrain_epochs,task,dataset,metric,value,evidence,source,note\n"
        b"a,b," + b"9" * 5000 + b",c,d,e,1.0,primary,s,n\n",
        "quote": b'method,"backbone\n',
    },
    "runs/predictions/a.npz": {**TEXTS, "zip": b"PK\x03\x04" + bytes(100)},
    "figures/sources.json": {**TEXTS, "names": b'{"../x": ["a"]}', "files": b'{"x": [1]}', "text": b'{"x": "a"}'},
}


def said_by(call: Callable[[], Any]) -> str | None:
    """The one line that ``call`` ends with, None if it ends well; anything else that it raises is a failure."""
    try:
        call()
    except (MlomaeError, OSError) as error:
        said = str(error)
        said.encode("utf-8", "strict")
        assert "\n" not in said, said
        assert len(said) < 1500, f"a message of {len(said)} characters"
        return said
    return None
