"""Files of weights with one field gone or wrong: refused in one line that names the file, by every door."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import bad_checkpoints as bad
import pytest
import tiny
import torch
from run_samples import GONE, with_value

from mlomae.backbones.export import export
from mlomae.common.checkpoint import load_checkpoint, save_atomically
from mlomae.common.errors import CheckpointError
from mlomae.pretraining.run import run_pretraining

SAMPLE = 12  # of the cases of a kind; `make stress` has all
FIELDS = [
    ("iteration", -1, "in 'iteration', which must be at least 0"),
    ("iteration", 2, "holds 2 in 'iteration'"),  # a whole number, and not the one of the file's name
    ("meta.numerics", [], "in 'meta.numerics', which must be a dict"),
    ("clock.wall", float("nan"), "in 'clock.wall'"),
    ("config.seed", torch.zeros(3), "in 'config.seed', which must be a plain value"),
    ("modules.mask", GONE, "in 'modules'"),
    ("modules.mae.encoder.cls_token", torch.zeros(1, 1, 16, dtype=torch.bool), "of another type: encoder.cls_token"),
    ("modules.mae.encoder.cls_token", torch.full((1, 1, 16), torch.nan), "not finite: encoder.cls_token"),
    ("optimizers.theta", GONE, "in 'optimizers'"),
    ("optimizers.theta.state.0.exp_avg", torch.full((1, 1, 16), torch.nan), "optimizers.theta.state.0.exp_avg"),
    ("optimizers.theta.state.0.step", GONE, "in 'optimizers.theta.state.0'"),
    ("rng.torch", torch.zeros(3), "'rng'"),
    ("watch", GONE, "lacks 'watch'"),
    ("watch.epoch", [1, 2], "'epoch'"),
    ("curves.sums", {}, "curves: holds"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("run")
    run_pretraining(tiny.config(**bad.PRETRAINING), work)
    return work


def saved(run: Path) -> Path:
    return run / "checkpoints" / f"iter_{bad.SAVED}.pth"


def sample(cases: Iterator[bad.Case]) -> list[bad.Case]:
    return random.Random(0).sample(list(cases), SAMPLE)


def place_of(state: object, dotted: str) -> tuple[object, ...]:
    """Keys may be numbers or have dots."""
    return next(place for place in bad.places(state, most=10**6) if ".".join(map(str, place)) == dotted)


def test_no_field_of_a_checkpoint_gives_a_traceback(run: Path, tmp_path: Path) -> None:
    doors, refused = list(bad.doors(tmp_path).items()), 0
    for n, (name, write) in enumerate(sample(bad.bad_checkpoints(saved(run)))):
        path = tmp_path / "checkpoints" / saved(run).name
        write(path)
        door, call = doors[n % len(doors)]
        kind, said = bad.outcome(call, path)
        refused += kind == "refused"
        assert kind == "read" or path.name in said, (name, door, said)
    assert refused


def test_no_field_of_an_export_gives_a_traceback(run: Path, tmp_path: Path) -> None:
    good, path = tmp_path / "good.safetensors", tmp_path / "vit.safetensors"
    export(saved(run), good, "safetensors")
    doors = {name: bad.doors(tmp_path)[name] for name in ("init_from", "backbone", "describe")}
    for name, write in sample(bad.bad_safetensors(good)):
        write(path)
        for door, call in doors.items():
            kind, said = bad.outcome(call, path)
            assert kind == "read" or path.name in said, (name, door, said)


@pytest.mark.parametrize(("field", "value", "words"), FIELDS)
def test_a_run_does_not_go_on_from_a_wrong_field(
    field: str, value: object, words: str, run: Path, tmp_path: Path
) -> None:
    state = load_checkpoint(saved(run))
    path = tmp_path / "checkpoints" / saved(run).name
    save_atomically(with_value(state, place_of(state, field), value), path)
    kind, said = bad.outcome(bad.resume(tmp_path), path)
    assert kind == "refused", f"{field} was taken over"
    assert words in said
    assert path.name in said
    assert "; " in said, "no remedy"


def test_a_checkpoint_that_memory_is_too_small_for_is_not_called_damaged(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged one would be passed over, and removed later."""

    def fail(*given: object, **options: object) -> Callable[[], None]:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(CheckpointError, match=r"cannot be read .*free memory") as error:
        load_checkpoint(saved(run))
    assert type(error.value) is CheckpointError


def test_blocks_with_a_huge_number_are_refused_and_not_built(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    path = tmp_path / "checkpoints" / saved(run).name
    state = load_checkpoint(path)
    weights = state["modules"]["mae"]
    weights["encoder.blocks.999999999.norm1.bias"] = weights.pop("encoder.blocks.1.norm1.bias")
    save_atomically(state, path)
    for door, call in bad.doors(tmp_path).items():
        if door not in ("describe", "random"):  # which need no weights
            assert bad.outcome(call, path)[0] == "refused", door
