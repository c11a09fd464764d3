"""The training loop on a toy: what hooks see, what is logged and kept, that a resume leaves no trace; errors."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mlomae.common import console
from mlomae.common.checkpoint import checkpoint_path, list_checkpoints, load_checkpoint
from mlomae.common.errors import CheckpointError, DataError, TrainingError
from mlomae.pretraining import log
from mlomae.pretraining import trainer as module
from mlomae.pretraining.trainer import Task, Trainer

TASK = Task("toy/1", ("loss", "extra"), frozenset({"train.log_interval", "train.checkpoint_interval"}), "less")
LAST = 7


@dataclass
class TrainConfig:
    log_interval: int = 2
    checkpoint_interval: int = 3
    keep_checkpoints: int = 9


@dataclass
class Config:
    seed: int = 0
    lr: float = 0.1
    train: TrainConfig = field(default_factory=TrainConfig)

    def to_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "lr": self.lr, "train": dict(vars(self.train))}


class Numbers(Dataset[dict[str, Any]]):
    """Item t is t; one of them cannot be read."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __getitem__(self, t: int) -> dict[str, Any]:
        if t == self.broken:
            raise DataError(f"number {t} is damaged; remove it")
        return {"x": torch.full((1, 2), float(t)), "name": "as it is"}


def loader(numbers: Numbers, t: int, workers: int = 0) -> DataLoader[dict[str, Any]]:
    return DataLoader(numbers, None, sampler=range(t, LAST), num_workers=workers, generator=torch.Generator())


class Counter:
    def __init__(self) -> None:
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def trainer(work: Path, config: Config | None = None, **changes: Any) -> Trainer:
    """SGD with momentum on a line; the rate of iteration t is lr / (t + 1)."""
    config = config or Config()
    torch.manual_seed(1)
    model, counter = nn.Linear(2, 1), Counter()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)

    def step(batch: dict[str, Any], t: int) -> dict[str, Tensor]:
        counter.steps += 1
        loss = (model(batch["x"]) / 100 - t / 10).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach(), **({"seldom": loss.detach()} if t == 4 else {})}

    given: dict[str, Any] = {
        "model": model,
        "modules": {"line": model},
        "optimizers": {"theta": optimizer},
        "rates": {"theta": [lambda t: config.lr / (t + 1)]},
        "step": step,
        "batches": lambda t: loader(Numbers(), t),
        "iterations": LAST,
        "stateful": {"counter": counter},
    }
    return Trainer(TASK, config, work, {"name": "toy"}, **(given | changes))


def rows(work: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]


def test_hooks_come_after_each_step_in_their_order_and_add_to_the_log(tmp_path: Path) -> None:
    calls: list[Any] = []

    def first(t: int, batch: Any, losses: dict[str, Tensor], values: dict[str, float] | None) -> None:
        calls.append((t, float(batch["x"][0, 0]), batch["name"], losses["loss"].item(), values is not None))
        if values is not None:
            values["extra"] = 10.0 * t

    def second(t: int, batch: Any, losses: dict[str, Tensor], values: dict[str, float] | None) -> None:
        assert values is None or values["extra"] == 10.0 * t

    run = trainer(tmp_path, hooks=[first, second])
    run.train()
    assert [call[:3] for call in calls] == [(t, float(t), "as it is") for t in range(LAST)]
    assert [call[4] for call in calls] == [False, True, True, True, False, True, True]  # logs after 2, checkpoints 3
    losses = [call[3] for call in calls]
    assert [row["step"] for row in rows(tmp_path)] == [2, 4, 6, 7]
    means = [(losses[0] + losses[1]) / 2, losses[3], (losses[4] + losses[5]) / 2, losses[6]]
    assert [row["loss"] for row in rows(tmp_path)] == pytest.approx(means, rel=1e-6)
    assert [row.get("seldom") for row in rows(tmp_path)] == [None, None, pytest.approx(losses[4]), None]
    assert [row["theta.lr"] for row in rows(tmp_path)] == [0.1 / t for t in (2, 4, 6, 7)]
    assert run.logged == {"loss": rows(tmp_path)[-1]["loss"], "extra": 60.0}
    assert load_checkpoint(checkpoint_path(tmp_path, 3), "toy/1")["logged"] == {
        "loss": pytest.approx(losses[2]),
        "extra": 20.0,
    }


def test_the_log_is_for_people_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer(tmp_path).train()
    said, log = capsys.readouterr().out.splitlines(), (tmp_path / "train.log").read_text().splitlines()
    losses = [float(line.partition("  loss ")[2].split()[0]) for line in said[1:]]
    assert [line.split()[0] for line in said] == ["first", "2/7", "4/7", "6/7", "7/7"]
    assert max(map(len, said)) <= console.WIDTH
    assert "s/it" in said[1]
    assert len(log) == 5
    assert "data_time" in log[-1], "the file has all of it"
    # the checkpoint after 3 begins a new mean in the file, and none on the console
    first, second = (
        load_checkpoint(checkpoint_path(tmp_path, 3), "toy/1")["logged"]["loss"],
        rows(tmp_path)[1]["loss"],
    )
    assert losses[1] == pytest.approx((first + second) / 2, rel=1e-3)
    assert not logging.getLogger("mlomae").handlers, "the next run would write into this one's file"
    (path,) = (tmp_path / "tensorboard").iterdir()
    events = EventAccumulator(str(path))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 6, 7]


def test_a_resumed_run_is_one_that_was_never_interrupted(tmp_path: Path) -> None:
    """Not its log either: the lines that come again, and one that a kill has cut short, are dropped."""
    trainer(tmp_path / "whole").train()
    cut = tmp_path / "cut"
    run = trainer(cut)

    def interrupt(t: int, *given: Any) -> None:
        if t == 4:
            raise KeyboardInterrupt

    run.hooks = [interrupt]
    with pytest.raises(KeyboardInterrupt):
        run.train()
    with (cut / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "loss": 0.1')
    path = checkpoint_path(cut, 3)
    state = load_checkpoint(path, "toy/1")
    state["optimizers"]["theta"]["param_groups"][0]["lr"] = 100.0  # rates are functions of the iteration alone
    torch.save(state, path)
    again = trainer(cut, resume=True)
    again.train()
    assert [row["step"] for row in rows(cut)] == [2, 4, 6, 7]
    found, expected = rows(cut), rows(tmp_path / "whole")
    for row in (*found, *expected):
        del row["time"], row["data_time"]
    assert found == expected
    final = [load_checkpoint(checkpoint_path(work, LAST), "toy/1") for work in (cut, tmp_path / "whole")]
    assert tiny.state_differences(*final) == []
    assert final[0]["counter"] == {"steps": LAST}
    assert "after 3 iterations" in (cut / "train.log").read_text()


def test_a_checkpoint_holds_the_rate_of_the_next_iteration(tmp_path: Path) -> None:
    trainer(tmp_path).train()
    found = [load_checkpoint(path, "toy/1")["optimizers"]["theta"] for path in list_checkpoints(tmp_path)]
    assert [state["param_groups"][0]["lr"] for state in found] == [0.1 / 4, 0.1 / 7, 0.1 / 7]  # the last one stays


def test_what_a_checkpoint_lacks_or_has_besides_does_not_matter(tmp_path: Path) -> None:
    """As one of version 0.1: without a younger part, with the state of schedulers."""
    trainer(tmp_path).train()
    state = load_checkpoint(checkpoint_path(tmp_path, 3), "toy/1")
    del state["counter"]
    old = checkpoint_path(tmp_path / "old", 3)
    old.parent.mkdir(parents=True)
    torch.save({**state, "schedulers": {"theta": [{"last_step": 3}]}}, old)
    trainer(tmp_path / "old", resume=True).train()
    final = [load_checkpoint(checkpoint_path(work, LAST), "toy/1") for work in (tmp_path, tmp_path / "old")]
    assert tiny.differences(final[0]["modules"], final[1]["modules"]) == []
    assert final[1]["counter"] == {"steps": LAST - 3}


def test_another_configuration_or_run_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).train()

    def refuse(state: dict[str, Any]) -> None:
        raise CheckpointError(f"not mine: {state['meta']['name']}")

    with pytest.raises(CheckpointError, match=r"another configuration: lr \(0.1 -> 0.2\)"):
        trainer(tmp_path, Config(lr=0.2), resume=True).train()
    with pytest.raises(CheckpointError, match="not mine: toy"):
        trainer(tmp_path, resume=True, check_resumed=refuse).train()
    trainer(tmp_path, Config(train=TrainConfig(log_interval=5)), resume=True).train()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_data_is_its_one_line(workers: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^number 5 is damaged; remove it$"):
        trainer(tmp_path, batches=lambda t: loader(Numbers(5), t, workers)).train()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["iter_3.pth"]


def test_a_failing_disk_is_one_line(tmp_path: Path) -> None:
    def batches(t: int) -> Iterator[dict[str, Any]]:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"training stopped: .*No space left on device; free disk space"):
        trainer(tmp_path, batches=batches).train()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_ends_the_run_before_a_checkpoint(value: float, tmp_path: Path) -> None:
    run = trainer(tmp_path / "loss")
    step = run.step
    run.step = lambda batch, t: {"loss": step(batch, t)["loss"] * (value if t == 4 else 1.0)}
    words = (
        rf"loss is not finite \({value}\) within the 2 iterations before 6; start again in another --work-dir with less"
    )
    with pytest.raises(TrainingError, match=words):
        run.train()
    assert [path.name for path in list_checkpoints(tmp_path / "loss")] == ["iter_3.pth"]

    run = trainer(tmp_path / "weights")
    run.hooks = [lambda t, *given: run.model.weight.data.fill_(value) if t == 1 else None]
    run.step = lambda batch, t: {"loss": torch.tensor(1.0)}
    with pytest.raises(
        TrainingError,
        match=r"weights are not finite after iteration 3 \(first: weight\); start again .* with less",
    ):
        run.train()
    assert not list_checkpoints(tmp_path / "weights")


def test_only_the_main_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (module, log):
        monkeypatch.setattr(place, "is_main_process", lambda: False)
    trainer(tmp_path / "other").train()
    assert not (tmp_path / "other").exists()
    log.Scalars(tmp_path / "other", 0, LAST, Config()).write(1, {"loss": 1.0}, {})
