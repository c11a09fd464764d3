"""The speed benchmark's plumbing: rows run, numbers are numbers, records become tables, bad input is one line."""

import dataclasses
import itertools
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from record_samples import make_record
from table_samples import table_files, table_rows
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.analysis.tables.build import build_tables
from benchmarks.cost.loading.loaders import write_jpegs
from benchmarks.cost.median import median_interval
from benchmarks.cost.speed import __main__ as speed
from benchmarks.cost.speed import measure as speed_measure
from benchmarks.cost.speed.peers import PEERS
from benchmarks.cost.speed.rows import ROWS, build
from benchmarks.cost.speed.setting import SETTINGS, get_setting
from mlomae.common.errors import ConfigError, DataError
from mlomae.common.flops import count_flops
from mlomae.common.precision import bf16_unit
from mlomae.records import read_records, write_record

TINY = SETTINGS["tiny"]
EAGER = [name for name, row in ROWS.items() if not row.compiled]


@pytest.mark.parametrize("name", EAGER)
def test_a_row_runs_and_moves_its_parameters(name: str, tmp_path: Path) -> None:
    if ROWS[name].peer == "lightly":
        pytest.importorskip("lightly", reason="the extra 'peers' is not installed")
    if ROWS[name].files:
        write_jpegs(tmp_path, 16, 64)
    step = build(name, TINY, str(tmp_path))
    spent = speed_measure.timed(step, "cpu")
    assert spent["seconds"] > 0
    assert spent["cpu_seconds"] > 0
    assert count_flops(step) > 5e6
    peak, how = speed_measure.peak_memory(step, "cpu", 0.0)
    assert peak > 1
    assert how


@pytest.mark.parametrize("name", ["mae", "one_step", "authors", "mae_reference"])
def test_a_row_runs_in_mixed_precision(name: str) -> None:
    step = build(name, dataclasses.replace(TINY, amp="bf16"))
    with FlopDtypes() as seen:
        step()
    assert torch.bfloat16 in seen.dtypes


class FlopDtypes(TorchDispatchMode):
    """Precisions of the matrix products that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("mm", "addmm"):
            self.dtypes.add(out.dtype)
        return out


@pytest.mark.parametrize("name", ["reference", "lightly"])
def test_a_peer_learns_and_does_the_work_of_ours_for_all_patches(name: str) -> None:
    """Ours embeds the kept patches and predicts the removed ones; the peers do both for all: a sixth more, here."""
    if name == "lightly":
        pytest.importorskip("lightly", reason="the extra 'peers' is not installed")
    torch.manual_seed(0)
    model, images = PEERS[name](TINY), TINY.batches()["lower"][0]["image"]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(60):
        loss = model(images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    ours, theirs = (count_flops(build(row, TINY)) for row in ("mae", f"mae_{name}"))
    assert theirs == pytest.approx(1.167 * ours, rel=0.05)


def test_lightly_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "lightly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightly", None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not installed"):
        build("mae_lightly", TINY)


def test_the_matrix_rate_is_positive_at_every_shape() -> None:
    rates = speed_measure.matmul_rates(TINY)
    half = {speed_measure.HALF} if bf16_unit() else set()
    assert rates.keys() == speed_measure.matmul_shapes(TINY).keys() | half
    assert all(rate > 0.01 for rate in rates.values())
    assert speed_measure.matmul_shapes(SETTINGS["cpu"])["encoder, kept tokens"] == (64 * 17, 192, 768)


@pytest.mark.parametrize(
    ("n", "low", "high"),
    [(1, 0, 0), (5, 0, 4), (9, 1, 7), (12, 2, 9), (20, 5, 14)],  # tables of the sign test
)
def test_interval_of_the_median(n: int, low: int, high: int) -> None:
    values = [float(i) for i in range(n)]
    shuffled = random.Random(0).sample(values, n)
    assert median_interval(shuffled) == ((n - 1) / 2, low, high)


def test_interval_covers_what_it_says() -> None:
    draw, inside = random.Random(1), 0
    for _ in range(2000):
        _, low, high = median_interval([draw.gauss(0, 1) for _ in range(9)])
        inside += low <= 0 <= high
    assert 0.94 < inside / 2000 < 0.98  # 0.961 by the binomial distribution


def test_the_settings_are_the_ones_promised() -> None:
    model = SETTINGS["cpu"].model
    assert (model["embed_dim"], model["depth"], model["img_size"], model["patch_size"]) == (192, 6, 32, 4)
    assert SETTINGS["cpu"].batch == 64
    model = SETTINGS["gpu"].model
    assert (model["embed_dim"], model["depth"], model["img_size"], SETTINGS["gpu"].amp) == (768, 12, 224, "bf16")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "mae,nope"], ["'nope'", *ROWS]),
        (["--rows", "mae,mae"], ["twice"]),
        (["--setting", "huge"], ["'huge'", *SETTINGS]),
        (["--setting", "tiny", "--rounds", "0"], ["--rounds", "at least 1"]),
        (["--setting", "tiny", "--threads", "0"], ["--threads"]),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert all(word in captured.err for word in words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_gpu_setting_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="CUDA"):
        get_setting("gpu")


def test_a_run_prints_a_table_and_writes_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--setting",
        "tiny",
        "--rows",
        "mae,authors,files",
        "--rounds",
        "2",
        "--warmup",
        "0",
        "--threads",
        "1",
    ]
    assert speed.main([*options, "--records", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "CPU s / authors" in out
    assert "GFLOP/s" in out
    found = {r["method"]: r for r in read_records(tmp_path / "runs")}
    assert found.keys() == {"mae", "authors", "files"}
    for record in found.values():
        numbers = record["metrics"]
        assert record["task"] == "speed"
        assert record["train_source"] == ("JPEG files" if "files" in record["method"] else "random tensors")
        assert record["eval_source"] == "none"
        assert record["outer_iterations"] == 2
        assert record["config"]["setting"]["model"] == TINY.model
        for key in ("seconds", "cpu_seconds", "seconds_to_authors", "seconds_to_mae", "peak_mib", "images_per_s"):
            assert numbers[key] > 0, key
        assert record["config"]["amp"] == "none"
    assert found["authors"]["metrics"]["seconds_to_authors"] == 1.0
    assert found["files"]["metrics"]["seconds_to_files"] == 1.0
    build_tables(tmp_path / "runs", tmp_path / "out")
    assert "authors" in (tmp_path / "out" / "speed.md").read_text(encoding="utf-8")


def sample(method: str, at: str = "2026-11-21T03:00:00+00:00", **metrics: float) -> dict[str, Any]:
    numbers = {"seconds": 1.25, "cpu_seconds": 1.2, "peak_mib": 100.4, **metrics}
    numbers |= {f"seconds_to_mae{end}": value for end, value in (("", 2.0), ("_low", 1.9), ("_high", 2.1))}
    config = {"setting": dataclasses.asdict(TINY), "row": method}
    return make_record(name=method + at, method=method, task="speed", config=config, metrics=numbers, finished_at=at)


def test_the_table_is_the_same_from_any_order() -> None:
    at = ["2026-11-21T03:00:00+00:00", "2026-11-21T04:00:00+00:00"]
    samples = [sample(method, t) for method, t in itertools.product(("one_step", "mae", "other"), at)]
    first = table_files("speed", samples)
    for seed in range(3):
        assert table_files("speed", random.Random(seed).sample(samples, len(samples))) == first
    rows = table_rows("speed", samples)
    assert [r["row"] for r in rows] == ["mae", "one_step", "other"] * 2
    assert rows[0]["seconds"] == "1.2500"
    assert rows[0]["peak_mib"] == "100"
    assert rows[0]["compile_s"] == ""
    assert "2.000 [1.900, 2.100]" in first[1]
    lines = [line for line in first[1].splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + len(samples)


def test_a_row_twice_in_a_run_is_refused_and_none_is_an_empty_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'mae'"):
        table_files("speed", [sample("mae"), sample("mae")])
    table, markdown = table_files("speed", [])
    assert table.startswith("setting,finished_at,row,")
    assert "# Speed" in markdown


def test_records_of_a_run_are_valid(tmp_path: Path) -> None:
    numbers = {
        "seconds": 1.0,
        "wall_clock_s": 3.0,
        "cpu_s": 2.9,
        "peak_mib": 5.0,
        "peak_read": "x",
        "amp": "none",
        "rounds": 3,
    }
    found: dict[str, dict[str, Any]] = {"mae": numbers, "mae_lightly": {"skipped": "no"}, "matmul": {"square": 9.0}}
    found["one_step"] = numbers
    made = speed.make_records(TINY, found, 2, 1)
    assert {r["method"]: r["images_seen"] for r in made} == {
        "mae": {"lower": 24, "head": 0, "upper": 0},
        "one_step": {"lower": 24, "head": 12, "upper": 12},
    }
    write_record(made[0], tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["metrics"] == {
        "seconds": 1.0,
        "peak_mib": 5.0,
        "matmul_square": 9.0,
    }
