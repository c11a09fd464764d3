"""Runs that differ in the NUMERICS of a part are neither pooled nor compared, and the pages say so."""

from typing import Any

import pytest
from comparison_samples import MLO, PRETRAININGS, transfer
from table_samples import table_files, table_rows

NOTE = "neither pooled nor compared"
PRETRAINED = {"pretraining": 1, "evaluation": 1, "data.cifar10": 1}
TRANSFERRED = {"classification": 1, "data.cub200": 1, "backbone.pretraining": 1}
TRANSFERS = [transfer(method, seed, top1 + seed) for method, top1 in (("MAE", 50.0), (MLO, 60.0)) for seed in (0, 1, 2)]
DIFFERENCES = {
    **dict.fromkeys(("pretrain", "headroom", "differences"), "knn_top1_avg"),
    "classification": "top1_vs_mae",
    "comparison": "difference",
}


def numbered(records: list[dict[str, Any]], first: dict[str, int], odd: dict[str, int]) -> list[dict[str, Any]]:
    """``records`` with the NUMERICS ``first``; MLO-MAE's seed 1 has ``odd``, where {} stands for a record without."""
    found = []
    for record in records:
        numerics = odd if (record["method"], record["seed"]) == (MLO, 1) else first
        found.append({**record, "numerics": numerics} if numerics else record)
    return found


def rows_of(table: str, records: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The rows of MLO-MAE, those of most seeds first."""
    rows = [row for row in table_rows(table, records) if row["method"] == MLO and row.get("reference", "MAE") == "MAE"]
    rows = [row for row in rows if row.get("metric", "") in ("", "knn_top1_avg", "top1")]
    return sorted(rows, key=lambda row: -int(row["seeds"]))


@pytest.mark.parametrize("odd", [{**PRETRAINED, part: 2} for part in PRETRAINED] + [{}], ids=[*PRETRAINED, "unknown"])
@pytest.mark.parametrize("table", ["pretrain", "comparison"])
def test_two_rows_of_pretrainings(table: str, odd: dict[str, int]) -> None:
    records = numbered(PRETRAININGS, PRETRAINED, odd)
    difference = "knn_top1_avg_vs_mae" if table == "pretrain" else "difference"
    pooled, alone = rows_of(table, records)
    assert [(row["seeds"], bool(row[difference])) for row in (pooled, alone)] == [("2", True), ("1", False)]
    told = ", ".join(f"{part} 1" for part in odd if odd[part] == 2)
    older, newest = (pooled, alone) if told else (alone, pooled)
    assert older["config_hash"] == f"{newest['config_hash']} (NUMERICS {told or 'unknown'})"
    assert NOTE in table_files(table, records)[1]


@pytest.mark.parametrize("table", ["headroom", "differences"])
def test_no_difference_between_two_numbers(table: str) -> None:
    same = rows_of(table, numbered(PRETRAININGS, PRETRAINED, PRETRAINED))
    for odd in (*({**PRETRAINED, part: 2} for part in PRETRAINED), {}):
        compared = [row for row in rows_of(table, numbered(PRETRAININGS, PRETRAINED, odd)) if row[DIFFERENCES[table]]]
        assert [row["seeds"] for row in same] == ["3"]
        assert [row["seeds"] for row in compared if table == "differences" or row["knn_top1_avg_vs_mae"]] == ["2"]


@pytest.mark.parametrize(
    "odd", [{**TRANSFERRED, part: 2} for part in TRANSFERRED] + [{}], ids=[*TRANSFERRED, "unknown"]
)
@pytest.mark.parametrize("table", ["classification", "comparison"])
def test_two_rows_of_transfers(table: str, odd: dict[str, int]) -> None:
    records = numbered(TRANSFERS, TRANSFERRED, odd)
    pooled, alone = rows_of(table, records)
    assert [(row["seeds"], bool(row[DIFFERENCES[table]])) for row in (pooled, alone)] == [("2", True), ("1", False)]
    assert " (NUMERICS " in pooled["config_hash"] + alone["config_hash"]
    assert NOTE in table_files(table, records)[1]


def test_a_backbone_of_no_pretraining_is_compared_with_all() -> None:
    floor = {
        **transfer("random initialisation", 1, 40.0, images=None),
        "numerics": {"classification": 1, "data.cub200": 1},
    }
    records = [*numbered(TRANSFERS, TRANSFERRED, {**TRANSFERRED, "backbone.pretraining": 2}), floor]
    _, alone = rows_of("classification", records)
    assert (bool(alone["top1_vs_mae"]), bool(alone["top1_vs_random"])) == (False, True)


def test_equal_numbers_are_pooled_and_nothing_is_said() -> None:
    for table, records, first in (("pretrain", PRETRAININGS, PRETRAINED), ("classification", TRANSFERS, TRANSFERRED)):
        for numerics in (first, {}):
            (row,) = rows_of(table, equal := numbered(records, numerics, numerics))
            assert row["seeds"] == "3"
            assert "NUMERICS" not in table_files(table, equal)[1]
