"""`make gpu-evidence`: its length, what it repeats and what not, its archive, and all of it at a hundredth on a CPU."""

import json
import sys
import tarfile
import time
from pathlib import Path

import pytest
from traces.drawn import write_cifar10

from benchmarks.suite.file import ROOT, load_suite
from benchmarks.suite.gpu_evidence import LARGEST, MODULES, SEEDS, SUITE, Evidence, Stage, choose_iterations, main
from mlomae.common.errors import ConfigError


def test_a_seed_of_all_rows_fits_into_the_time() -> None:
    length = choose_iterations(0.01, 400.0, 512)
    assert length == int((400 - 4.3 * 20) / (4.3 * 0.01))
    assert 4.3 * (0.01 * length + 20) <= 400
    assert choose_iterations(1e-5, 400.0, 512) == 200 * 50_000 // 1024, "at most 200 epochs"
    assert choose_iterations(10.0, 10.0, 512) == 1


def test_seeds_are_the_suites() -> None:
    assert list(SEEDS) == load_suite(ROOT / SUITE).seeds


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_what_has_ended_is_not_repeated_and_what_was_stopped_is(tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    marks = "import sys; open(sys.argv[1], 'a').write('x')"
    good = Stage("good", [*python(marks), str(tmp_path / "good")], 0.5)
    bad = Stage("bad", [*python(f"{marks}; sys.exit(3)"), str(tmp_path / "bad")], 0.5)
    slow = Stage("slow", [*python(f"{marks}; import time; time.sleep(60)"), str(tmp_path / "slow")], 0.1)
    for _ in range(2):
        evidence = Evidence(out, 0.5)
        started = time.monotonic()
        for stage in (good, bad, slow):
            evidence.run_stage(stage)
        assert time.monotonic() - started < 20
    written = {name: (tmp_path / name).read_text() for name in ("good", "bad", "slow")}
    assert written == {"good": "x", "bad": "x", "slow": "xx"}
    state = json.loads((out / "state.json").read_text())
    assert {name: found["status"] for name, found in state.items()} == {"good": 0, "bad": 3}
    assert "good: done, status 0" in capsys.readouterr().out


def test_nothing_begins_after_the_end(tmp_path: Path) -> None:
    evidence = Evidence(tmp_path / "out", 0.0)
    evidence.run_stage(Stage("late", python("open('late', 'w')"), 1.0))
    assert evidence.state == {}
    assert not (tmp_path / "out" / "late.log").exists()


def test_the_archive_has_all_but_runs_and_packages_and_a_limit(tmp_path: Path) -> None:
    evidence = Evidence(tmp_path / "out", 1.0)
    for file in ("a.log", "runs/r.json", "work/run/big.pth", "site/timm/x.py"):
        (evidence.out / file).parent.mkdir(parents=True, exist_ok=True)
        (evidence.out / file).write_text(file)
    with tarfile.open(evidence.archive()) as file:
        assert {name for name in file.getnames() if "." in name} == {"out/a.log", "out/runs/r.json"}
    (evidence.out / "noise").write_bytes(__import__("os").urandom(LARGEST + 1))
    with pytest.raises(ConfigError, match="the archive would have 16 MB; remove the largest files"):
        evidence.archive()


def test_packages_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.suite.gpu_evidence.MODULES", (*MODULES, "no_such_package"))
    with pytest.raises(ConfigError, match="missing packages: no_such_package; put their wheels"):
        Evidence(tmp_path / "out", 1.0).install(None)


@pytest.mark.slow
def test_all_of_it_at_a_hundredth_on_a_processor(tmp_path: Path) -> None:
    data = write_cifar10(tmp_path / "data")
    small = {
        "model.embed_dim": 32,
        "model.depth": 1,
        "model.num_heads": 2,
        "data.batch_size": 16,
        "data.feedback_batch_size": 16,
    }
    options = [*(f"{key}={value}" for key, value in small.items()), "data.allow_near_copies=True"]
    command = ["--data", str(data), "--out", str(tmp_path / "out"), "--setting", "tiny", "--sides", "32"]
    main([*command, "--minutes", "6", "--cfg-options", *options])
    state = json.loads((tmp_path / "out" / "state.json").read_text())
    assert state["tests"]["status"] in (0, 2), "2: there is no device"
    assert state["speed"]["status"] == state["loading"]["status"] == state["seed 0"]["status"] == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "out" / "runs").glob("gpu-cifar10*_seed0.json")]
    assert len({r["method"] for r in records}) == 4
    assert all(r["outer_iterations"] >= state["length"]["outer_iterations"] for r in records)
    assert (tmp_path / "out.tar.gz").stat().st_size < LARGEST
