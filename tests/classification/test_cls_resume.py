"""A transfer that is killed and resumed ends with the bits of one that never was; what differs is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import backbone_samples
import cls_runs
import pytest
import torch
from cls_runs import run_transfer
from killed_transfers import Arm, half_a_checkpoint, in_iteration, killed, unrenamed_checkpoint
from run_samples import differences, one_line

from mlomae.backbones import training
from mlomae.backbones.batches import EpochBatches
from mlomae.classification.config import ClassificationConfig
from mlomae.classification.model import Classifier
from mlomae.common import checkpoint
from mlomae.common.checkpoint import TRANSFER_FORMAT, checkpoint_path, list_checkpoints, load_checkpoint
from mlomae.common.errors import CheckpointError, ConfigError, MlomaeError

LAST = 2 * cls_runs.PER_EPOCH
_MIX = {"mixup": 0.8, "cutmix": 1.0}
FULL: dict[str, Any] = {
    "data__augment": {"type": "rand_augment"},
    "data__mix": _MIX,
    "backbone__drop_path": 0.5,
    "train__label_smoothing": 0.1,
    "train__ema": 0.9,
    "optim__clip_grad": 1.0,
}
KINDS: dict[str, dict[str, Any]] = {
    "finetune": FULL,
    "linear": {"protocol": "linear", "data__mix": _MIX, "train__ema": 0.9, "optim__type": "lars"},
    "linear on features": {"protocol": "linear", "data__augment": None, "optim__type": "sgd"},
}


def killed_run(work: Path, arm: Arm, changes: dict[str, Any]) -> list[str]:
    return killed(work, arm, lambda: run_transfer(cls_runs.config(**changes), work, resume=True))


def final(work: Path) -> dict[str, Any]:
    """Everything in the last checkpoint but the clock, and the predictions."""
    state = load_checkpoint(checkpoint_path(work, LAST), TRANSFER_FORMAT)
    return {k: v for k, v in state.items() if k != "clock"} | {"predictions": cls_runs.predictions(work)}


@pytest.fixture(scope="module")
def straight(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Uninterrupted runs. Nothing may write into their folders."""
    folders = {kind: tmp_path_factory.mktemp("straight") for kind in KINDS}
    for kind, work in folders.items():
        run_transfer(cls_runs.config(**KINDS[kind]), work)
    return folders


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_three_times_ends_with_the_same_bits(kind: str, straight: dict[str, Path], tmp_path: Path) -> None:
    legs: list[tuple[Arm, list[str]]] = [
        (lambda: in_iteration(6), ["iter_4.pth"]),
        (lambda: half_a_checkpoint(8), [".iter_8.pth.tmp", "iter_4.pth"]),
        (lambda: unrenamed_checkpoint(8), [".iter_8.pth.tmp", "iter_4.pth"]),
    ]
    for arm, left in legs[: 3 if kind == "finetune" else 1]:
        assert killed_run(tmp_path, arm, KINDS[kind]) == left
        assert not (tmp_path / "record.json").exists()
    record = run_transfer(cls_runs.config(**KINDS[kind]), tmp_path, resume=True)
    found, expected = final(tmp_path), final(straight[kind])
    wanted = {"modules", "optimizers", "rng", "predictions"}
    assert found.keys() >= wanted
    assert ("ema" in found["modules"]) == ("train__ema" in KINDS[kind])
    assert differences(found, expected) == []
    assert record["images_seen"]["lower"] == LAST * 16
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["iter_12.pth", "iter_4.pth", "iter_8.pth"]


def cut(source: Path, work: Path, edit: Callable[[dict[str, Any]], Any] = lambda state: None) -> Path:
    """A folder that holds the checkpoint after 4 iterations alone, edited."""
    state = load_checkpoint(checkpoint_path(source, 4), TRANSFER_FORMAT)
    edit(state)
    path = checkpoint_path(work, 4)
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    return work


def resumed(source: Path, work: Path, edit: Callable[[dict[str, Any]], Any] = lambda state: None) -> dict[str, Any]:
    cut(source, work, edit)
    run_transfer(cls_runs.config(**FULL), work, resume=True)
    return final(work)


def test_the_global_generators_are_not_what_resume_relies_on(
    straight: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "set_rng_state", lambda state: torch.manual_seed(99))
    assert differences(resumed(straight["finetune"], tmp_path), final(straight["finetune"])) == []


def test_without_a_seed_for_each_step_they_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutation: drop path draws from wherever the generators are."""
    monkeypatch.setattr(training, "manual_seed", lambda key: None)
    run_transfer(cls_runs.config(**FULL), tmp_path / "straight")
    monkeypatch.setattr(checkpoint, "set_rng_state", lambda state: torch.manual_seed(99))
    found, expected = resumed(tmp_path / "straight", tmp_path / "resumed"), final(tmp_path / "straight")
    assert differences(found["modules"], expected["modules"])


def from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    starting_at = EpochBatches.starting_at

    def patched(self: EpochBatches, iteration: int) -> EpochBatches:
        other = starting_at(self, 0)
        other.stop = self.stop - iteration
        return other

    monkeypatch.setattr(EpochBatches, "starting_at", patched)


def without_average(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Classifier.saved_modules
    only = lambda self: {k: v for k, v in saved(self).items() if k != "ema"}  # noqa: E731
    monkeypatch.setattr(Classifier, "saved_modules", only)


PATCHES = {"batches from the start": from_the_start, "average not kept": without_average}
EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "optimizer": lambda s: s["optimizers"]["model"]["state"].clear(),
    "weights": lambda s: s["modules"]["backbone"]["pos_embed"].add_(1e-3),
    "average": lambda s: s["modules"]["ema"]["module.pos_embed"].add_(1e-3),
}


@pytest.mark.parametrize("part", [*PATCHES, *EDITS])
def test_leaving_out_a_part_of_the_state_is_noticed(
    part: str, straight: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = EDITS.get(part, lambda state: state["modules"].pop("ema") if part == "average not kept" else None)
    if part in PATCHES:
        PATCHES[part](monkeypatch)
    found, expected = resumed(straight["finetune"], tmp_path, edit), final(straight["finetune"])
    assert differences(found["predictions"], expected["predictions"])


def test_workers_and_intervals_may_change_on_resume(straight: dict[str, Path], tmp_path: Path) -> None:
    cut(straight["finetune"], tmp_path)
    free = {"data__num_workers": 2, "train__log_interval": 5, "train__checkpoint_interval": 12}
    run_transfer(cls_runs.config(**FULL, **free), tmp_path, resume=True)
    found, expected = final(tmp_path), final(straight["finetune"])
    for part in ("modules", "optimizers", "predictions"):
        assert differences(found[part], expected[part]) == []


def test_a_run_cut_at_a_checkpoint_knows_its_clock(straight: dict[str, Path], tmp_path: Path) -> None:
    clocks = [load_checkpoint(path, TRANSFER_FORMAT)["clock"] for path in list_checkpoints(straight["finetune"])]
    for kind in ("wall", "cpu"):
        assert 0 < clocks[0][kind] < clocks[1][kind] < clocks[2][kind] < 60
    cut(straight["finetune"], tmp_path, lambda state: state["clock"].update(wall=1000.0, cpu=500.0))
    record = run_transfer(cls_runs.config(**FULL), tmp_path, resume=True)
    assert 1000 < record["wall_clock_s"] < 1060
    assert 500 < record["cpu_s"] < 560


def test_resuming_a_finished_run_trains_no_more(straight: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(straight["finetune"], tmp_path, dirs_exist_ok=True)
    record = run_transfer(cls_runs.config(**FULL), tmp_path, resume=True)
    assert differences(final(tmp_path), final(straight["finetune"])) == []
    clock = load_checkpoint(checkpoint_path(tmp_path, LAST), TRANSFER_FORMAT)["clock"]
    assert record["wall_clock_s"] == pytest.approx(clock["wall"], abs=1.0)
    assert record["metrics"]["loss"] > 0


def refused(work: Path, kind: type[MlomaeError], resume: bool = True, **changes: Any) -> str:
    """The message; nothing in the folder may have changed."""
    held = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    with pytest.raises(kind) as error:
        run_transfer(cls_runs.config(**(FULL | changes)), work, resume=resume)
    for path, content in held.items():
        assert path.read_bytes() == content
    return one_line(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.label_smoothing", 0.2),
        ("train.epochs", 3),
        ("train.ema", None),
        ("optim.lr", 0.02),
        ("data.augment.type", "crop_flip"),
        ("data.mix.mixup", 0.1),
        ("protocol", "linear"),
        ("seed", 1),
    ],
)
def test_another_configuration_is_refused(key: str, value: Any, straight: dict[str, Path], tmp_path: Path) -> None:
    changes = {**FULL, key.replace(".", "__"): value}
    cut(straight["finetune"], tmp_path)
    message = refused(tmp_path, CheckpointError, **changes)
    assert f"was made with another configuration: {key}" in message


def test_an_existing_folder_is_refused_without_resume(straight: dict[str, Path], tmp_path: Path) -> None:
    assert "already holds a run; add --resume" in refused(straight["finetune"], ConfigError, resume=False)
    cut(straight["finetune"], tmp_path)
    assert "already holds a run; add --resume" in refused(tmp_path, ConfigError, resume=False)


def test_a_damaged_checkpoint_without_an_earlier_one_is_one_line(straight: dict[str, Path], tmp_path: Path) -> None:
    newest = checkpoint_path(tmp_path, LAST)
    newest.parent.mkdir()
    newest.write_bytes(checkpoint_path(straight["finetune"], LAST).read_bytes()[:1000])
    assert "iter_12.pth' is damaged" in refused(tmp_path, CheckpointError)
    torch.save({"format": "another"}, newest)
    assert "is not a training checkpoint" in refused(tmp_path, CheckpointError)


def test_a_damaged_record_is_one_line(straight: dict[str, Path], tmp_path: Path) -> None:
    cut(straight["finetune"], tmp_path)
    (tmp_path / "record.json").write_text("[")
    assert "record.json' is damaged" in refused(tmp_path, CheckpointError)


def test_weights_that_changed_under_their_path_are_refused(tmp_path: Path) -> None:
    """A linear run keeps its head alone: another backbone under the same path would go unnoticed."""
    weights, work = tmp_path / "mae.pth", tmp_path / "work"
    backbone_samples.write_official(weights)
    given = cls_runs.values(protocol="linear", backbone={"weights": str(weights), "img_size": 16})
    given["backbone"]["model"] = {"num_heads": 2}
    run_transfer(ClassificationConfig.from_dict(given), work)
    (work / "record.json").unlink()
    content = torch.load(weights, weights_only=True)
    content["model"]["cls_token"] += 1.0
    torch.save(content, weights)
    with pytest.raises(CheckpointError, match="weights are not those that the run") as error:
        run_transfer(ClassificationConfig.from_dict(given), work, resume=True)
    one_line(error.value)
