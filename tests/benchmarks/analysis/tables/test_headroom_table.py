"""Headroom: shares by hand."""

from typing import Any

from record_samples import CONFIG, make_record
from table_samples import table_files, table_rows


def run(method: str, seed: int, knn: float, images: int = 1000, cpu: float = 20.0, mask: str = "random", **extra: Any):
    config = {**CONFIG, "method": method, "mask": {"type": mask, **extra}, "images": images}
    return make_record(
        method=method,
        seed=seed,
        name=f"{method}_{images}",
        config=config,
        cpu_s=cpu,
        images_seen={"lower": images, "head": 0, "upper": 0},
        metrics={"knn_top1_avg": knn, "linear_top1_avg": 50.0 + knn / 10},
    )


RUNS = [
    *(run("MAE", seed, knn) for seed, knn in enumerate([40.0, 44.0])),
    *(run("oracle, weight 2", seed, knn, mask="oracle", weight=2) for seed, knn in enumerate([60.0, 62.0])),
    *(run("oracle, weight 5", seed, knn, mask="oracle", weight=5) for seed, knn in enumerate([80.0, 84.0])),
    *(run("MLO-MAE", seed, knn, mask="learned") for seed, knn in enumerate([50.0, 54.0])),
    run("MAE, same processor time", 0, 46.0, images=1500),
    run("MAE", 0, 70.0, images=9000),  # no oracle of this length: in no comparison
]


def rows(records: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    return {row["method"]: row for row in table_rows("headroom", records)}


def test_shares_by_hand() -> None:
    table = rows(RUNS)
    assert len(table) == len(table_rows("headroom", RUNS)) == 5
    assert table["oracle, weight 5"]["knn_top1_avg_share"] == "1.00"
    assert table["oracle, weight 2"]["knn_top1_avg_share"] == "0.47"  # (61 - 42) / (82 - 42)
    assert table["MLO-MAE"]["knn_top1_avg_share"] == "0.25"
    assert table["MLO-MAE"]["knn_top1_avg_vs_mae"] == "10.00"
    assert table["MLO-MAE"]["knn_top1_avg_sd"] == "2.83"
    assert table["MAE, same processor time"]["knn_top1_avg_share"] == "0.15"  # seed 0: (46 - 40) / (80 - 40)
    assert table["MAE"]["knn_top1_avg_share"] == table["MAE"]["knn_top1_avg_vs_mae"] == ""
    assert table["MLO-MAE"]["linear_top1_avg_share"] == "0.25"  # a headroom of 4 points is above the least


def test_a_control_of_the_oracle_is_no_ceiling() -> None:
    control = [
        run("other images' boxes", s, knn, mask="oracle", patches="shuffled") for s, knn in enumerate([90.0, 94.0])
    ]
    table = rows([*RUNS, *control])
    assert table["oracle, weight 5"]["knn_top1_avg_share"] == "1.00"
    assert table["other images' boxes"]["knn_top1_avg_share"] == "1.25"


def test_a_share_is_formed_over_common_seeds_alone() -> None:
    more = [*RUNS, run("MAE", 2, 10.0), run("MLO-MAE", 2, 90.0, mask="learned")]
    assert rows(more)["MLO-MAE"]["knn_top1_avg_vs_mae"] == "33.33"  # 10, 10, 80
    assert rows(more)["MLO-MAE"]["knn_top1_avg_share"] == ""  # no oracle has the third seed
    assert rows(more)["oracle, weight 2"]["knn_top1_avg_share"] == "0.47"
    alone = [*RUNS, run("frozen", 1, 64.0, mask="learned"), run("oracle, weight 9", 0, 99.0, mask="oracle", weight=9)]
    assert rows(alone)["frozen"]["knn_top1_avg_share"] == "0.50"  # (64 - 44) / (84 - 44): weight 9 lacks seed 1


def test_no_share_without_headroom() -> None:
    flat = [run("MAE", 0, 40.0), run("oracle", 0, 41.0, mask="oracle"), run("MLO-MAE", 0, 40.5, mask="learned")]
    assert rows(flat)["MLO-MAE"]["knn_top1_avg_share"] == ""


def test_another_setting_is_no_comparison() -> None:
    other = run("oracle", 0, 90.0, mask="oracle") | {"train_source": "other data"}
    assert rows([run("MAE", 0, 40.0), other]) == {}
    assert "| dataset |" in table_files("headroom", [])[1]


def test_the_order_of_records_changes_nothing() -> None:
    assert table_files("headroom", RUNS) == table_files("headroom", RUNS[::-1])
