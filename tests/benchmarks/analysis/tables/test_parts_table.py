"""The oracle's gain in parts: by hand, adding up, and only of runs that agree on all but the patches."""

import pytest
from record_samples import CONFIG, make_record
from table_samples import table_files, table_rows

from benchmarks.analysis.tables.parts_table import WEIGHT
from mlomae.masking.strategies.oracle import OracleMasking


def run(method: str, seed: int, knn: float, images: int = 1000, share: float = 0.25, **mask: object):
    config = {**CONFIG, "mask": {"type": "random", **mask}, "data": {"train": {"type": "on_scenes", "share": share}}}
    return make_record(
        method=method,
        seed=seed,
        name=f"{method}_{images}_{share}",
        config=config,
        images_seen={"lower": images, "head": 0, "upper": 0},
        metrics={"knn_top1_avg": knn, "linear_top1_avg": 2 * knn, "knn_top1_cls": knn / 2, "linear_top1_cls": 3 * knn},
    )


def oracle(patches: str, values: list[float], weight: float = WEIGHT, **extra: object):
    named = {} if patches == "object" else {"patches": patches}
    title = f"oracle {patches} {weight}"
    return [run(title, s, v, type="oracle", weight=weight, **named, **extra) for s, v in enumerate(values)]


RUNS = [
    *(run("MAE", seed, knn) for seed, knn in enumerate([40.0, 44.0])),
    *oracle("region", [41.0, 46.0]),
    *oracle("shuffled", [45.0, 51.0]),
    *oracle("object", [60.0, 62.0]),
    *(run("MLO-MAE", seed, knn, type="learned") for seed, knn in enumerate([50.0, 54.0])),
    run("MAE, same processor time", 0, 47.0, images=1500),
]


def parts(records, **wanted: str) -> dict[str, dict[str, str]]:
    rows = [row for row in table_rows("headroom_parts", records) if all(row[k] == v for k, v in wanted.items())]
    assert len(rows) == len({row["part"] for row in rows})
    return {row["part"]: row for row in rows}


def test_parts_by_hand_add_up_and_stand_in_their_order() -> None:
    table = parts(RUNS)
    named = ["unevenness", "position", "image", "all"]
    assert list(table)[:4] == named
    means = [float(table[part]["knn_top1_avg"]) for part in named]
    assert means == [1.5, 4.5, 13.0, 19.0]
    assert sum(means[:3]) == pytest.approx(means[3])
    assert table["image"]["linear_top1_avg"] == "+26.00"
    assert table["image"]["knn_top1_cls"] == "+6.50"
    assert float(table["image"]["knn_top1_avg_low"]) == pytest.approx(13 - 12.706 * 2, abs=0.01)  # of 15 and 11
    beyond = {part.removesuffix(" beyond position"): row for part, row in table.items() if part not in named}
    assert {part: row["knn_top1_avg"] for part, row in beyond.items()} == {
        "MLO-MAE": "+4.00",
        "MAE, same processor time": "+2.00",
    }


def test_parts_are_of_the_seeds_that_all_have_and_each_number_says_how_many() -> None:
    more = [run("MAE", 2, 10.0), *oracle("object", [60.0, 62.0, 90.0])[2:]]
    lacking = [r | {"metrics": {k: v for k, v in r["metrics"].items() if k != "knn_top1_cls"}} for r in RUNS[4:5]]
    table = parts([*RUNS[:4], *lacking, *RUNS[5:], *more])
    means = [float(table[part]["knn_top1_avg"]) for part in ("unevenness", "position", "image", "all")]
    assert means == [1.5, 4.5, 13.0, 19.0]
    assert (table["all"]["knn_top1_avg_seeds"], table["position"]["knn_top1_cls_seeds"]) == ("2", "1")
    assert table["position"]["knn_top1_cls_low"] == ""


def test_of_several_maes_the_one_with_most_common_seeds() -> None:
    """And not the last on file."""
    other = [run("MAE", 0, 0.0) | {"config_hash": hash_} for hash_ in ("0" * 16, "f" * 16)]
    assert parts([*RUNS, *other])["all"]["knn_top1_avg"] == "+19.00"


def test_a_row_about_precision_is_no_rival() -> None:
    row = run("MAE, bf16", 0, 45.0)
    row["config"] = row["config"] | {"train": {"amp": "bf16"}}
    assert not any("bf16" in part for part in parts([*RUNS, row]))


def test_an_oracle_without_controls_has_no_parts() -> None:
    alone = [r for r in RUNS if "shuffled" not in r["method"] and "region" not in r["method"]]
    assert parts(alone) == {}


def test_controls_of_another_strength_or_setting_are_not_subtracted() -> None:
    other = [*oracle("object", [80.0, 84.0], weight=20.0), *oracle("region", [10.0, 10.0], weight=20.0, grow=1)]
    elsewhere = [run("MAE", s, 90.0, share=0.5) for s in range(2)]
    same = parts([*RUNS, *other, *elsewhere], weight="5.0")
    assert same["all"]["knn_top1_avg"] == "+19.00"
    assert "image" not in parts([*RUNS, *other], weight="20.0")


def test_the_default_weight_is_the_same_as_one_that_is_given() -> None:
    assert OracleMasking.weight == WEIGHT
    records = [r for r in RUNS if "shuffled" not in r["method"]]
    records += [run("shuffled", s, v, type="oracle", patches="shuffled") for s, v in enumerate([45.0, 51.0])]
    assert parts(records)["image"]["knn_top1_avg"] == "+13.00"


def test_bytes_do_not_depend_on_the_order_of_records() -> None:
    assert table_files("headroom_parts", RUNS) == table_files("headroom_parts", RUNS[::-1])
