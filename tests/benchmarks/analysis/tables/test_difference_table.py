"""Paired differences: by hand, against scipy's paired test, and what is not paired."""

import math
from typing import Any

import pytest
from record_samples import CONFIG, make_record
from scipy import stats
from table_samples import table_files, table_rows

from benchmarks.analysis.statistics import seed_interval
from benchmarks.analysis.tables.pretrain_tables import DIFFERENCES
from mlomae.records import config_hash

MLO, FROZEN, MAE, LONG = "MLO-MAE (nca)", "frozen at random", "MAE", "MAE, same processor time"


def run(
    method: str, seed: int, knn: float, images: int = 1000, cpu: float = 20.0, mask: str = "learned"
) -> dict[str, Any]:
    return make_record(
        method=method,
        seed=seed,
        name=f"{method}_{images}",
        config={**CONFIG, "method": method, "mask": {"type": mask}, "images": images},
        cpu_s=cpu,
        images_seen={"lower": images, "head": 0, "upper": 0},
        metrics={"knn_top1_avg": knn, "linear_top1_avg": 90.0 - seed},
    )


RUNS = [
    *(run(MAE, seed, knn) for seed, knn in enumerate([50.0, 40.0, 45.0])),
    *(run(MLO, seed, knn) for seed, knn in enumerate([78.0, 77.0, 70.0])),
    *(run(FROZEN, seed, knn) for seed, knn in enumerate([71.0, 62.0])),
    run(LONG, 0, 60.0, images=1400),
]


def table(runs: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, str]]:
    return {(row["method"], row["reference"]): row for row in table_rows("differences", runs)}


def test_differences_by_hand() -> None:
    found = table(RUNS)
    assert set(found) == {(MLO, MAE), (MLO, LONG), (MLO, FROZEN), (FROZEN, MAE), (FROZEN, LONG)}
    assert found[MLO, MAE]["knn_top1_avg"] == "+30.00"  # 28, 37, 25
    assert found[MLO, MAE]["seeds"] == "3"
    assert found[MLO, FROZEN]["knn_top1_avg"] == "+11.00"  # 7 and 15; the third seed has no partner
    assert found[MLO, FROZEN]["seeds"] == "2"
    assert found[MLO, LONG]["knn_top1_avg"] == "+18.00"
    assert found[MLO, LONG]["knn_top1_avg_low"] == ""
    assert "+18.00 (one seed)" in table_files("differences", RUNS)[1]


def test_the_interval_is_students() -> None:
    values = [28.0, 37.0, 25.0]
    found = seed_interval(values)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == 30.0
    assert table(RUNS)[MLO, MAE]["knn_top1_avg_low"] == f"{found.low:+.2f}"
    assert math.isnan(seed_interval([3.0]).low)


def test_only_equal_images_and_equal_settings_are_compared() -> None:
    assert table([run(MAE, 0, 50.0), run(MLO, 0, 70.0, images=2000)]) == {}
    other = run(MLO, 0, 70.0) | {"eval_source": "other data"}
    assert table([run(MAE, 0, 50.0), other]) == {}
    assert table([run(MAE, 0, 50.0), run(MLO, 1, 70.0)]) == {}  # no seed in common
    assert table_files("differences", [])[0].splitlines() == [",".join(column.name for column in DIFFERENCES.columns)]


def test_a_reference_of_another_cost_is_not_the_same_time() -> None:
    assert (MLO, LONG) in table([run(LONG, 0, 60.0, images=1400, cpu=20.0), run(MLO, 0, 70.0, cpu=22.0)])
    assert table([run(LONG, 0, 60.0, images=1400, cpu=20.0), run(MLO, 0, 70.0, cpu=40.0)]) == {}
    slow = [run(MLO, 1, 70.0, cpu=90.0), run(MLO, 0, 70.0, cpu=22.0)]
    assert (MLO, LONG) in table([run(LONG, 0, 60.0, images=1400), *slow]), "the clock of another seed does not count"


def test_an_oracle_has_no_frozen_control() -> None:
    assert table([run(FROZEN, 0, 60.0), run("oracle", 0, 70.0, mask="oracle")]) == {}


def with_probe(record: dict[str, Any], linear: float) -> dict[str, Any]:
    return record | {"metrics": {**record["metrics"], "linear_top1_avg": linear}}


def test_the_strongest_unguided_mask_of_the_same_cost_is_a_reference() -> None:
    def two(method: str, linear: float, **options: Any) -> list[dict[str, Any]]:
        return [with_probe(run(method, seed, 50.0, **options), linear + seed) for seed in (0, 1)]

    deep, cells = two("MAE, decoder depth 4", 95.0, mask="random"), two("MAE, cells", 93.0, mask="simmim")
    dear = two("MAE, dear", 99.0, mask="random", cpu=30.0)
    labels = [r for r in two("MAE (joint)", 99.0, mask="random")]
    for r in labels:
        r["config"]["auxiliary"] = {"type": "classification"}
        r["config_hash"] = config_hash(r["config"])
    plain = two(MAE, 90.0, mask="random")
    found = table([*plain, *two(MLO, 92.0), *deep, *cells, *dear, *labels])
    assert (MLO, "MAE, decoder depth 4") in found
    assert not {"MAE, cells", "MAE, dear", "MAE (joint)"} & {reference for _, reference in found}
    assert found[MLO, "MAE, decoder depth 4"]["linear_top1_avg"] == "-3.00"
    assert ("MAE, cells", "MAE, decoder depth 4") not in found, "of masks that look at something"
    assert {reference for _, reference in table([*plain, *two(MLO, 92.0), *deep[:1]])} == {MAE}, "one seed"
    assert {reference for _, reference in table([*plain, *two(MLO, 92.0), *two("MAE, x", 80.0, mask="grid")])} == {MAE}


def test_the_order_of_records_changes_nothing() -> None:
    assert table_files("differences", RUNS) == table_files("differences", RUNS[::-1])
