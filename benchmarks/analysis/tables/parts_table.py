"""An oracle's gain over random masks, taken apart: what unevenness, position and looking at the image give.

    oracle − MAE = unevenness (region − MAE) + position (shuffled − region) + image (oracle − shuffled)

Region: the object's shape anywhere. Shuffled: the object of another image, which knows where objects tend to be. Every
other method is held against the shuffled oracle, too: only what it has beyond that can it have from the image.
"""

import json
from collections.abc import Iterator

from benchmarks.analysis.comparable import (
    BASELINE,
    PROBES,
    SAME_TIME,
    Methods,
    methods_of,
    names_precision,
    reads_objects,
    seed_pairs,
)
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.references import reference_of
from benchmarks.analysis.tables.table import (
    SOURCES,
    VERDICTS,
    Column,
    Row,
    Table,
    difference_of,
    interval,
    keys,
    pair_sources,
    row_of,
)
from mlomae.records import Record, grouped

WEIGHT = 5.0  # of `OracleMasking` by default; importing it would import torch
PARTS = ("unevenness", "position", "image", "all")


def _strength(record: Record) -> str:
    """What an oracle and its controls agree on: all options of their mask but the patches."""
    options = {"weight": WEIGHT, **record["config"]["mask"]}
    return json.dumps({k: v for k, v in options.items() if k != "patches"}, sort_keys=True)


def _parts(
    known: list[Record], others: Methods, evidence: Evidence
) -> Iterator[tuple[str, list[Record], list[Record]]]:
    """Name of a part, and the runs whose difference it is. ``known``: an oracle and its controls, of one strength.

    The parts are of the seeds that all of them have, so that they add up.
    """
    by = grouped(known, lambda r: r["config"]["mask"].get("patches", "object"))
    oracle, shuffled, region = (by.get(name, []) for name in ("object", "shuffled", "region"))
    baseline = reference_of(oracle or shuffled or region, others, evidence)
    if region or shuffled:
        four = (baseline, region, shuffled, oracle)
        common = set.intersection(*({r["seed"] for r in runs} for runs in four if runs))
        plain, anywhere, moved, own = ([r for r in runs if r["seed"] in common] for runs in four)
        yield from zip(PARTS, (anywhere, moved, own, own), (plain, anywhere, moved, plain), strict=True)
    for runs in others:
        if runs[0]["method"] != BASELINE and not names_precision(runs[0]):
            yield f"{runs[0]['method']} beyond position", runs, shuffled


def _rows(evidence: Evidence) -> list[Row]:
    """One row per (setting and images seen of an oracle, its strength, part)."""
    rows = []
    for alike in evidence.settings:
        for images in sorted({r["images_seen"]["lower"] for r in alike if reads_objects(r)}):
            equal = [r for r in alike if r["images_seen"]["lower"] == images]
            plain = [r for r in equal if not reads_objects(r)]
            plain += [r for r in alike if r["images_seen"]["lower"] != images and r["method"] == SAME_TIME]
            for strength, known in grouped(filter(reads_objects, equal), _strength).items():
                for place, (part, runs, others) in enumerate(_parts(known, methods_of(plain), evidence)):
                    if pairs := seed_pairs(runs, others):
                        row = row_of(runs) | {
                            "part": part,
                            "seeds": len(pairs),
                            "schedule": runs[0]["outer_iterations"],
                        }
                        row |= {"weight": json.loads(strength)["weight"], "place": place}
                        for metric in PROBES:
                            row |= difference_of(pairs, metric, metric, evidence)
                        rows.append(row | {SOURCES: {"": pair_sources(pairs)}})
    return rows


TABLE = Table(
    title="The oracle's gain in parts",
    columns=[
        *keys("dataset", "schedule", "weight", "part", "config_hash"),
        Column("place", hidden=True),
        Column("seeds"),
        *(column for metric, title in PROBES.items() for column in interval(metric, title)),
    ],
    rows=_rows,
    note=(
        "Percentage points (frozen encoder; mean of the patch tokens, or class token), runs of the same seed paired, "
        "Student's 95 % interval over seeds. Unevenness: the object's shape anywhere, over random masks. Position: the "
        "object of another image, over that. Image: the object of the image itself, over that; only this part can be "
        "had by looking. All: the three together. These four are of the seeds that all have. The other rows hold a "
        "method against the object of another image. " + VERDICTS
    ),
    order=["dataset", "schedule", "weight", "place", "config_hash"],
)
