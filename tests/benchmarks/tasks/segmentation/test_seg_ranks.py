"""Two processes with half of each batch do what one does with the whole, in float64; they evaluate the same model."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import seg_runs
import seg_two_ranks
import torch
from on_two_ranks import in_two_forks, on_two_ranks
from run_samples import differences
from seg_runs import run_transfer
from seg_two_ranks import Weights

TOLERANCE = 1e-10


class Found(NamedTuple):
    """Weights by variant; where the runs' folders are."""

    first: dict[str, Weights]
    second: dict[str, Weights]
    alone: dict[str, Weights]
    together_dir: Path
    alone_dir: Path


@pytest.fixture(scope="module")
def found(one_thread: None, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    out, alone = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    in_two_forks(lambda rank: torch.save(seg_two_ranks.transfers(scenes, out), out / f"rank{rank}.pt"))
    first, second = (torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    return Found(first, second, seg_two_ranks.transfers(scenes, alone), out, alone)


def error(a: Weights, b: Weights) -> float:
    """Largest difference, relative to the largest weight."""
    assert a.keys() == b.keys()
    scale = max(float(t.abs().max()) for t in b.values())
    return max(float((a[k] - b[k]).abs().max()) / scale for k in b)


def areas(work: Path) -> dict[str, np.ndarray]:
    with np.load(work / "pixel_counts.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("variant", ["adamw", "clipped"])
def test_two_ranks_equal_one_process(variant: str, found: Found) -> None:
    assert differences(found.first[variant], found.second[variant]) == [], "the ranks drift apart"
    assert all(t.dtype == torch.float64 for t in found.alone[variant].values() if t.is_floating_point())
    assert error(found.first[variant], found.alone[variant]) < TOLERANCE
    together, alone = found.together_dir / variant, found.alone_dir / variant
    assert differences(areas(together), areas(alone)) == []
    ours, theirs = (json.loads((folder / "record.json").read_text()) for folder in (together, alone))
    for name in ("mIoU", "mAcc", "aAcc", "n", "class_iou"):
        assert ours["metrics"][name] == theirs["metrics"][name]
    assert ours["metrics"]["loss"] == pytest.approx(theirs["metrics"]["loss"], rel=1e-9), "the mean over the ranks"
    for name in ("images_seen", "config_hash"):
        assert ours[name] == theirs[name]
    pictures = [sorted((folder / "overlays").iterdir()) for folder in (together, alone)]
    assert [p.read_bytes() for p in pictures[0]] == [p.read_bytes() for p in pictures[1]]


@pytest.mark.parametrize(("mutation", "variant"), [("not averaged", "adamw"), ("clipped before averaging", "clipped")])
def test_mutations_break_the_equality(mutation: str, variant: str, found: Found) -> None:
    assert error(found.first[mutation], found.alone[variant]) > 1e-6
    drifted = differences(found.first[mutation], found.second[mutation])
    assert bool(drifted) == (mutation == "not averaged")
    assert differences(found.alone[mutation], found.alone[variant]) == [], "alone, nothing can be noticed"


def test_ranks_agree_about_the_statistics_of_batch_norm(found: Found) -> None:
    """Each standardises with its own half of the batch, but what they evaluate and resume with is one."""
    assert differences(found.first["batch norm"], found.second["batch norm"]) == []
    apart = differences(found.first["batch norm, own statistics"], found.second["batch norm, own statistics"])
    assert apart
    assert all(name.endswith(("running_mean", "running_var")) for name in apart)
    means = [name for name in found.first["batch norm"] if name.endswith("running_mean")]
    halves = [found.first["batch norm, own statistics"], found.second["batch norm, own statistics"]]
    assert len(means) * 2 == len(apart)
    for name in means:  # averaging after every step, or at the end, is the same: they do not change the training
        mean = (halves[0][name] + halves[1][name]) / 2
        torch.testing.assert_close(found.first["batch norm"][name], mean, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_the_command_line_under_torchrun(scenes: Path, tmp_path: Path) -> None:
    """As a shell starts it: one record, whose numbers are those of one process."""
    changes = {**seg_two_ranks.GROUPS, "optim__type": "sgd", "optim__lr": 0.1}
    config = seg_runs.write_config(tmp_path / "config.py", scenes, **changes)
    program = [
        "-m",
        "mlomae.cli",
        "bench",
        "segmentation",
        str(config),
        "--weights",
        "random",
        "--work-dir",
        str(tmp_path / "two"),
    ]
    printed = on_two_ranks(*program, cwd=tmp_path)
    assert printed.count("record, predictions, pixel_counts.npz, overlays:") == 1
    record = json.loads((tmp_path / "two" / "record.json").read_text())
    alone = run_transfer(seg_runs.config(scenes, **changes), tmp_path / "one")
    assert record["config_hash"] == alone["config_hash"]
    assert record["metrics"]["loss"] == pytest.approx(alone["metrics"]["loss"], rel=1e-4)
    assert record["metrics"]["mIoU"] == pytest.approx(alone["metrics"]["mIoU"], abs=1.0)
