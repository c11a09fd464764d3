"""Which backbones a demo discovers, and how backbones are told apart."""

import os
import shutil
from pathlib import Path

import pytest
from bench_runs import bench
from pretrained_samples import pretrain, put

from benchmarks.commands import BENCH
from benchmarks.suite.backbones import discover_backbones, named_backbones, random_floor
from benchmarks.suite.command import plan
from benchmarks.suite.file import load_suite
from benchmarks.suite.jobs import Planner
from mlomae.backbones.provenance import describe_weights
from mlomae.common.checkpoint import load_checkpoint, save_atomically
from mlomae.records import RANDOM


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(tmp_path_factory.mktemp("pretrained") / "mae")


@pytest.fixture
def runs(tmp_path: Path, checkpoint: Path) -> Path:
    put(checkpoint, tmp_path / "work" / "mae")
    return tmp_path / "work"


def test_what_is_discovered(runs: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = checkpoint.with_name("iter_1.pth")
    out = runs / "bench"
    put(first, runs / "mae")  # older than the one of two iterations
    put(checkpoint, runs / "mae_again")  # the same bytes
    put(checkpoint, runs / "demo" / "mlo", config__method="MLO-MAE", config__seed=3)
    put(checkpoint, runs / "cifar", config__data__train={"type": "cifar10", "root": "x"})
    put(checkpoint, runs / "cheat", config__data__train={"type": "textures", "split": "test"})
    put(checkpoint, runs / "cheat2", config__data__feedback={"type": "textures", "split": "test"})
    put(checkpoint, out / "mae" / "seed0" / "finetune", config__seed=9)
    put(first, runs / "unfinished", config__seed=7)
    (runs / "damaged" / "checkpoints").mkdir(parents=True)
    (runs / "damaged" / "checkpoints" / "iter_3.pth").write_bytes(b"x" * 100)
    found = discover_backbones(runs, out, 8)
    assert [(b.method, b.seed, b.pretraining("images_seen")) for b in found] == [
        ("MAE", 0, 32),
        ("MAE", 7, 16),
        ("MLO-MAE", 3, 32),
    ]
    assert [bool(b.note) for b in found] == [False, True, False]
    assert "is at 1 of 2 iterations" in found[1].note
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert sum("was pretrained on the test images" in line for line in lines) == 2
    assert sum("iter_3.pth' is damaged" in line for line in lines) == 1
    assert len({b.folder for b in found}) == 3


def test_at_most_the_newest(runs: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(checkpoint, runs / "later", config__seed=1)
    os.utime(path, (2e9, 2e9))
    (only,) = discover_backbones(runs, runs / "out", 1)
    assert only.seed == 1
    assert "2 backbones are under" in capsys.readouterr().out


def test_other_weights_have_another_folder(runs: Path, checkpoint: Path) -> None:
    (before,) = discover_backbones(runs, runs / "out", 8)
    state = load_checkpoint(checkpoint)
    name = next(iter(state["modules"]["mae"]))
    state["modules"]["mae"][name] = state["modules"]["mae"][name] + 1.0
    save_atomically(state, runs / "mae" / "checkpoints" / checkpoint.name)
    (after,) = discover_backbones(runs, runs / "out", 8)
    assert before.source.identity == after.source.identity
    assert before.folder != after.folder


def test_the_floor_is_told_by_its_architecture(checkpoint: Path, tmp_path: Path) -> None:
    (narrow,) = random_floor(named_backbones([str(checkpoint)])[0])
    wider = pretrain(tmp_path / "wide", width=32, seed=5)
    (wide,) = random_floor(named_backbones([str(wider)])[0])
    assert narrow.method == wide.method == RANDOM
    assert (narrow.seed, wide.seed) == (0, 5)
    assert narrow.source.identity["architecture"]["embed_dim"] == 16
    floors = [job for job in Planner(load_suite(Path(BENCH)), backbones=[narrow, wide]).jobs() if job.title == "k-NN"]
    assert len({job.hash for job in floors}) == 2
    weights = [str(checkpoint), narrow.weights]
    named = plan(bench(tmp_path, "--weights", *weights))[0].backbones
    assert [b.weights for b in named] == weights, "a floor that is named is not added"
    assert random_floor(narrow) == []
    other_seed = describe_weights(f"random:{put(checkpoint, tmp_path / 'again', config__seed=1)}")
    assert other_seed.identity == narrow.source.identity


def test_a_file_whose_name_begins_with_random_is_not_random(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "random_masks.pth"
    shutil.copy(checkpoint, path)
    assert describe_weights(str(path)).method == "MAE"
