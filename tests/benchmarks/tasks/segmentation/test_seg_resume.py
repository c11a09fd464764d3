"""A transfer that is killed and resumed ends with the bits of one that never was; what differs is refused."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seg_runs
import torch
from killed_transfers import Arm, half_a_checkpoint, in_iteration, killed, unrenamed_checkpoint
from run_samples import differences, one_line
from seg_runs import run_transfer

from benchmarks.tasks.segmentation import data
from mlomae.backbones import training
from mlomae.backbones.batches import EpochBatches
from mlomae.common import checkpoint
from mlomae.common.checkpoint import TRANSFER_FORMAT, checkpoint_path, load_checkpoint
from mlomae.common.errors import CheckpointError, ConfigError, MlomaeError

LAST = 6
FULL: dict[str, Any] = {"backbone__drop_path": 0.5, "optim__clip_grad": 1.0}
Edit = Callable[[dict[str, Any]], Any]


def final(work: Path) -> dict[str, Any]:
    """Everything in the last checkpoint but the clock, and the areas of every test image."""
    state = load_checkpoint(checkpoint_path(work, LAST), TRANSFER_FORMAT)
    with np.load(work / "pixel_counts.npz", allow_pickle=False) as file:
        areas = {name: file[name] for name in file.files}
    return {k: v for k, v in state.items() if k != "clock"} | {"areas": areas}


@pytest.fixture(scope="module")
def straight(one_thread: None, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run. Nothing may write into its folder."""
    work = tmp_path_factory.mktemp("straight")
    run_transfer(seg_runs.config(scenes, **FULL), work)
    return work


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_three_times_ends_with_the_same_bits(
    workers: int, straight: Path, scenes: Path, tmp_path: Path
) -> None:
    config = seg_runs.config(scenes, **FULL, data__num_workers=workers)
    legs: list[tuple[Arm, list[str]]] = [
        (lambda: in_iteration(3), ["iter_2.pth"]),
        (lambda: half_a_checkpoint(4), [".iter_4.pth.tmp", "iter_2.pth"]),
        (lambda: unrenamed_checkpoint(6), [".iter_6.pth.tmp", "iter_2.pth", "iter_4.pth"]),
    ]
    for arm, left in legs if workers == 0 else legs[:1]:
        assert killed(tmp_path, arm, lambda: run_transfer(config, tmp_path, resume=True)) == left
        assert not (tmp_path / "record.json").exists()
    record = run_transfer(config, tmp_path, resume=True)
    found, expected = final(tmp_path), final(straight)
    for part in (found, expected):
        part["config"]["data"].pop("num_workers")
    assert found.keys() >= {"modules", "optimizers", "rng", "areas", "logged"}
    assert any(name.endswith("running_var") for name in found["modules"]["segmentor"])
    assert differences(found, expected) == []
    assert record["images_seen"]["lower"] == LAST * seg_runs.BATCH
    overlays = sorted((tmp_path / "overlays").iterdir())
    assert [path.read_bytes() for path in overlays] == [
        path.read_bytes() for path in sorted((straight / "overlays").iterdir())
    ]


def cut(source: Path, work: Path, edit: Edit = lambda state: None) -> Path:
    """A folder that holds the checkpoint after 4 iterations alone, edited."""
    state = load_checkpoint(checkpoint_path(source, 4), TRANSFER_FORMAT)
    edit(state)
    path = checkpoint_path(work, 4)
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    return work


def resumed(source: Path, work: Path, scenes: Path, edit: Edit = lambda state: None) -> dict[str, Any]:
    cut(source, work, edit)
    run_transfer(seg_runs.config(scenes, **FULL), work, resume=True)
    return final(work)


def test_the_global_generators_are_not_what_resume_relies_on(
    straight: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "set_rng_state", lambda state: torch.manual_seed(99))
    found, expected = resumed(straight, tmp_path, scenes), final(straight)
    assert differences(found, expected) == []


def steps_unseeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "manual_seed", lambda key: None)


def items_unseeded(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def unseeded(key: int) -> Iterator[None]:
        yield

    monkeypatch.setattr(data, "seeded", unseeded)


@pytest.mark.parametrize("mutation", [steps_unseeded, items_unseeded])
def test_without_a_seed_for_each_step_and_item_they_would_be(
    mutation: Callable[[pytest.MonkeyPatch], None], scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutation: drop path, or the transforms, draw from wherever the generators are."""
    mutation(monkeypatch)
    run_transfer(seg_runs.config(scenes, **FULL), tmp_path / "straight")
    monkeypatch.setattr(checkpoint, "set_rng_state", lambda state: (torch.manual_seed(99), np.random.seed(99)))  # noqa: NPY002
    found = resumed(tmp_path / "straight", tmp_path / "resumed", scenes)
    assert differences(found["modules"], final(tmp_path / "straight")["modules"])


def from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    starting_at = EpochBatches.starting_at

    def patched(self: EpochBatches, iteration: int) -> EpochBatches:
        other = starting_at(self, 0)
        other.stop = self.stop - iteration
        return other

    monkeypatch.setattr(EpochBatches, "starting_at", patched)


def statistics(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {k: v for k, v in state["modules"]["segmentor"].items() if ".running_" in k}


EDITS: dict[str, Edit] = {
    "optimizer": lambda s: s["optimizers"]["model"]["state"].clear(),
    "weights": lambda s: s["modules"]["segmentor"]["backbone.vit.pos_embed"].mul_(1.1),
    "statistics": lambda s: [v.fill_(float("var" in k)) for k, v in statistics(s).items()],  # those of a fresh model
    "batches from the start": lambda s: None,
}


@pytest.mark.parametrize("part", EDITS)
def test_leaving_out_a_part_of_the_state_is_noticed(
    part: str, straight: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if part == "batches from the start":
        from_the_start(monkeypatch)
    found, expected = resumed(straight, tmp_path, scenes, EDITS[part]), final(straight)
    assert differences(found["modules"], expected["modules"])
    if part == "statistics":  # training does not depend on them, the prediction does
        assert all(".running_" in hit for hit in differences(found["modules"], expected["modules"]))
    assert differences(found["areas"], expected["areas"])


def test_resuming_a_finished_run_trains_no_more(straight: Path, scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path, dirs_exist_ok=True)
    record = run_transfer(seg_runs.config(scenes, **FULL), tmp_path, resume=True)
    assert differences(final(tmp_path), final(straight)) == []
    clock = load_checkpoint(checkpoint_path(tmp_path, LAST), TRANSFER_FORMAT)["clock"]
    assert record["wall_clock_s"] == pytest.approx(clock["wall"], abs=1.0)
    assert record["metrics"]["loss"] > 0


def refused(work: Path, kind: type[MlomaeError], scenes: Path, resume: bool = True, **changes: Any) -> str:
    """The message; nothing in the folder may have changed."""
    held = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    with pytest.raises(kind) as error:
        run_transfer(seg_runs.config(scenes, **(FULL | changes)), work, resume=resume)
    for path, content in held.items():
        assert path.read_bytes() == content
    return one_line(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.iterations", 8),
        ("train.decay", "cosine"),
        ("optim.lr", 0.02),
        ("data.augment", seg_runs.AUGMENT[:3]),
        ("data.evaluate", [{"type": "Resize", "scale": (32, 32)}]),
        ("model.decode_head.dropout_ratio", 0.2),
        ("backbone.with_cp", True),
        ("seed", 1),
    ],
)
def test_another_configuration_is_refused(key: str, value: Any, straight: Path, scenes: Path, tmp_path: Path) -> None:
    cut(straight, tmp_path)
    message = refused(tmp_path, CheckpointError, scenes, **{key.replace(".", "__"): value})
    assert f"was made with another configuration: {key}" in message


def test_an_existing_folder_is_refused_without_resume(straight: Path, scenes: Path) -> None:
    assert "already holds a run; add --resume" in refused(straight, ConfigError, scenes, resume=False)
    other = {"train__decay": "cosine"}
    assert "was made with another configuration" in refused(straight, CheckpointError, scenes, **other)
