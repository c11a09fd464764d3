"""A run that is killed and resumed ends with the bits of one that never was, whatever it was doing when it died."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.common.errors import CheckpointError
from mlomae.config.schema import config_from_dict
from mlomae.pretraining.run import run_pretraining

LAST = 10


def chosen_mask(state: dict[str, Any]) -> torch.Tensor:
    """The masks that a checkpoint's model chooses for the probe batch."""
    model, data = tiny.trainer(config_from_dict(state["config"]))
    for name, weights in state["modules"].items():
        getattr(model, name).load_state_dict(weights)
    with torch.no_grad():
        return model.choose_mask(model.mae.encoder.embed(data.probe["image"]), data.probe).mask


@pytest.fixture(scope="module")
def chain(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """(work dir, what each killed leg left, stdout of the last one)"""
    folder = tmp_path_factory.mktemp("killed")
    config = tiny.write_config(folder / "config.py", name="learned", train__keep_checkpoints=2)
    work = folder / "work"
    command = [sys.executable, "-m", "killed_runs", str(config), str(work)]
    killed = subprocess.run(command, env=tiny.environment(), capture_output=True, text=True, timeout=300)
    assert killed.returncode == 0, killed.stderr
    legs = [line.partition(" -> ")[2] for line in killed.stdout.splitlines() if line.startswith("LEG ")]
    command = [sys.executable, "-m", "mlomae.cli", "pretrain", str(config), "--work-dir", str(work), "--resume"]
    last = subprocess.run(command, env=tiny.environment(), capture_output=True, text=True, timeout=300)
    assert last.returncode == 0, last.stderr
    return work, legs, last.stdout


def test_every_kill_leaves_whole_checkpoints(chain: tuple[Path, list[str], str]) -> None:
    _, legs, last = chain
    assert legs == [
        "iter_2.pth",
        ".iter_4.pth.tmp iter_2.pth",
        ".iter_6.pth.tmp iter_2.pth iter_4.pth",
        "iter_2.pth iter_4.pth iter_6.pth",
        "iter_4.pth iter_6.pth",
    ]
    assert "after 6 iterations" in last


def test_a_run_killed_five_times_ends_with_the_same_bits(chain: tuple[Path, list[str], str], learned_run: Path) -> None:
    resumed = load_checkpoint(checkpoint_path(chain[0], LAST))
    straight = load_checkpoint(checkpoint_path(learned_run, LAST))
    resumed["config"]["train"]["keep_checkpoints"] = straight["config"]["train"]["keep_checkpoints"]
    assert resumed.keys() >= {"modules", "optimizers", "watch", "curves", "rng"}
    assert tiny.state_differences(resumed, straight) == []
    assert chosen_mask(resumed).equal(chosen_mask(straight))
    assert not chosen_mask(resumed).equal(chosen_mask(load_checkpoint(checkpoint_path(learned_run, 2)))), "too blunt"


def test_the_last_leg_cleans_up_and_writes_the_same_metrics(
    chain: tuple[Path, list[str], str], learned_run: Path
) -> None:
    assert sorted(p.name for p in (chain[0] / "checkpoints").iterdir()) == ["iter_10.pth", "iter_8.pth"]
    resumed, straight = (json.loads((work / "record.json").read_text()) for work in (chain[0], learned_run))
    assert resumed["metrics"] == straight["metrics"]
    assert resumed["curves"] == straight["curves"]
    assert resumed["images_seen"] == straight["images_seen"]


def resume_from(source: Path, work: Path, edit: Callable[[dict[str, Any]], Any], name: str) -> dict[str, Any]:
    """Final checkpoint of a run resumed after 6 iterations from an edited checkpoint."""
    state = load_checkpoint(checkpoint_path(source, 6))
    edit(state)
    path = checkpoint_path(work, state["iteration"])
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    run_pretraining(tiny.config(name=name, data__eval=state["config"]["data"]["eval"]), work, resume=True)
    return load_checkpoint(checkpoint_path(work, LAST))


def test_resuming_within_one_process_is_exact(learned_run: Path, tmp_path: Path) -> None:
    found = resume_from(learned_run, tmp_path, lambda state: None, "learned")
    assert tiny.state_differences(found, load_checkpoint(checkpoint_path(learned_run, LAST))) == []


MUTATIONS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "optimizer of phi": (lambda s: s["optimizers"]["phi"]["state"].clear(), "mask"),
    "optimizer of omega": (lambda s: s["optimizers"]["omega"]["state"].clear(), "feedback"),
    "optimizer of theta": (lambda s: s["optimizers"]["theta"]["state"].clear(), "mae"),
    "position in the data": (lambda s: s.update(iteration=5), "mae"),
}


@pytest.mark.parametrize("part", MUTATIONS)
def test_leaving_out_a_part_of_the_state_gives_other_weights(part: str, learned_run: Path, tmp_path: Path) -> None:
    edit, module = MUTATIONS[part]
    found = resume_from(learned_run, tmp_path, edit, "learned")
    straight = load_checkpoint(checkpoint_path(learned_run, LAST))
    assert tiny.differences(found["modules"][module], straight["modules"][module])


def test_resuming_a_finished_run_trains_no_more(learned_run: Path, tmp_path: Path) -> None:
    shutil.copytree(learned_run / "checkpoints", tmp_path / "checkpoints")
    record = run_pretraining(tiny.config(name="learned"), tmp_path, resume=True)
    before, after = (load_checkpoint(checkpoint_path(work, LAST)) for work in (learned_run, tmp_path))
    assert tiny.differences(before, after) == []
    assert record["wall_clock_s"] == pytest.approx(after["clock"]["wall"], abs=1.0)
    straight = json.loads((learned_run / "record.json").read_text())["metrics"]
    assert record["metrics"]["knn_top1_avg"] == straight["knn_top1_avg"]


def test_damaged_checkpoints_are_named_and_the_newest_good_one_is_resumed(
    learned_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the same bits; a damaged one is not left to be the newest of the next resume."""
    shutil.copytree(learned_run / "checkpoints", tmp_path / "checkpoints")
    flipped, cut, newest = (checkpoint_path(tmp_path, i) for i in (6, 8, LAST))
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:1000])
    newest.write_bytes(b"")
    config = tiny.config(name="learned", train__checkpoint_interval=5, train__keep_checkpoints=1)
    run_pretraining(config, tmp_path, resume=True)
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{path} is damaged; an earlier checkpoint takes its place" in said for path in (flipped, cut, newest))
    assert "iter_4.pth after 4 iterations" in said
    assert [path.name for path in newest.parent.iterdir()] == [newest.name]
    straight = load_checkpoint(checkpoint_path(learned_run, LAST))
    assert tiny.differences(load_checkpoint(newest)["modules"], straight["modules"]) == []
    newest.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"iter_10\.pth' is damaged"):
        run_pretraining(config, tmp_path, resume=True)
