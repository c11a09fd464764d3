"""Headroom: shares by hand, the grid's runs end to end on a tiny set, wrong grids."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from record_samples import CONFIG, make_record

from benchmarks.headroom import load_grid, main
from benchmarks.headroom_table import headroom_table
from mlomae.errors import ConfigError

TINY = """
model = dict(size="tiny", img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2,
             decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2)
data = dict(train=dict(type="textures", split="train", count=96, size=16, classes=4),
            eval=dict(type="textures", split="test", count=32, size=16, classes=4), batch_size=8, feedback_batch_size=8)
name = "tiny"
method = "tiny"
train = dict(outer_iterations=2, log_interval=1, picture_interval=9, checkpoint_interval=9)
mask = dict(type="random", ratio=0.75)
"""


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
    return {row["method"]: row for row in csv.DictReader(io.StringIO(headroom_table(records)[0]))}


def test_shares_by_hand() -> None:
    table = rows(RUNS)
    assert len(table) == len(list(csv.reader(io.StringIO(headroom_table(RUNS)[0])))) - 1 == 5
    assert table["oracle, weight 5"]["knn_top1_avg_share"] == "1.00"
    assert table["oracle, weight 2"]["knn_top1_avg_share"] == "0.47"  # (61 - 42) / (82 - 42)
    assert table["MLO-MAE"]["knn_top1_avg_share"] == "0.25"
    assert table["MLO-MAE"]["knn_top1_avg_vs_mae"] == "10.00"
    assert table["MLO-MAE"]["knn_top1_avg_sd"] == "2.83"
    assert table["MAE, same processor time"]["knn_top1_avg_share"] == "0.15"  # seed 0: (46 - 40) / (80 - 40)
    assert table["MAE"]["knn_top1_avg_share"] == table["MAE"]["knn_top1_avg_vs_mae"] == ""
    assert table["MLO-MAE"]["linear_top1_avg_share"] == "0.25"  # a headroom of 4 points is above the least


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
    assert "| dataset |" in headroom_table([])[1]


def test_the_order_of_records_changes_nothing() -> None:
    assert headroom_table(RUNS) == headroom_table(RUNS[::-1])


def write_grid(folder: Path, **changes: Any) -> Path:
    (folder / "tiny.py").write_text(TINY)
    config = str(folder / "tiny.py")
    learned = {
        "mask.type": "learned",
        "mask.hidden": 8,
        "feedback.type": "nca",
    }
    values: dict[str, Any] = {
        "name": "grid",
        "rows": [
            {"method": "MAE", "config": config},
            {"method": "oracle, weight 5", "config": config, "options": {"mask.type": "oracle", "mask.weight": 5.0}},
            {"method": "MLO-MAE (nca)", "config": config, "options": learned},
        ],
        "same_time": "MLO-MAE (nca)",
    } | changes
    path = folder / "grid.py"
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in values.items()))
    return path


def test_the_grid_runs_once_and_only_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(write_grid(tmp_path)), "--seeds", "3", "--jobs", "1"]
    arguments += ["--records", str(tmp_path / "runs"), "--work-dir", str(tmp_path / "work")]
    assert main(arguments) == 0
    records = {p.name: json.loads(p.read_text()) for p in (tmp_path / "runs").glob("*.json")}
    assert sorted(records) == [
        "grid_mae-same-processor-time_seed3.json",
        "grid_mae_seed3.json",
        "grid_mlo-mae-nca_seed3.json",
        "grid_oracle-weight-5_seed3.json",
    ]
    learned, mae = records["grid_mlo-mae-nca_seed3.json"], records["grid_mae_seed3.json"]
    assert learned["config"]["feedback"]["type"] == "nca"
    assert learned["images_seen"]["lower"] == mae["images_seen"]["lower"]
    longer = records["grid_mae-same-processor-time_seed3.json"]["outer_iterations"]
    assert longer == round(2 * learned["cpu_s"] / mae["cpu_s"])
    assert "| MLO-MAE (nca) |" in capsys.readouterr().out
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").iterdir()}
    assert main(arguments) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").iterdir()} == times


def test_a_failed_run_is_named_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = load_grid(write_grid(tmp_path))
    broken = [{"method": r.method, "config": r.config, "options": dict(r.options)} for r in grid.rows]
    broken[2]["options"] |= {"mask.hidden": 0}
    arguments = [str(write_grid(tmp_path, rows=broken)), "--seeds", "0", "--jobs", "1"]
    arguments += ["--records", str(tmp_path / "runs"), "--work-dir", str(tmp_path / "work")]
    assert main(arguments) == 1
    assert "grid_mlo-mae-nca_seed0: failed" in capsys.readouterr().err
    assert len(list((tmp_path / "runs").glob("*.json"))) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": []}, "no row of method 'MAE'"),
        ({"rows": [{"method": "MAE"}]}, "incomplete"),
        ({"same_time": "nothing"}, "none of its methods"),
        ({"rows": [{"method": "MAE", "config": "a"}] * 2}, "twice"),
    ],
)
def test_wrong_grids(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_grid(write_grid(tmp_path, **changes))


def test_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.py")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main([str(write_grid(tmp_path)), "--jobs", "0"]) == 2
