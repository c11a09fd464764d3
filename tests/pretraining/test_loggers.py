"""Loggers beside TensorBoard: stand-ins with the calls of wandb, mlflow and trackio that are used."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import tiny
from run_samples import one_line
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlomae.cli import main
from mlomae.common.errors import ConfigError
from mlomae.pretraining import loggers
from mlomae.pretraining.loggers import Loggers, logging_to
from mlomae.pretraining.run import run_pretraining

NAMES = ("wandb", "mlflow", "trackio")
Calls = list[tuple[str, Any]]


class Config:
    name, seed = "toy", 3

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "long": "x" * 600}


def stand_in(name: str, calls: Calls, fails: bool = False) -> types.ModuleType:
    module = types.ModuleType(name)

    def log(values: dict[str, float], step: int) -> None:
        if fails:
            raise ConnectionError("the server is gone")
        calls.append(("log", (step, values)))

    def start(**given: Any) -> Any:
        calls.append(("start", given))
        known = given.get("id") or given.get("run_id") or f"{given.get('name') or given.get('run_name')}-1"
        finish = lambda: calls.append(("finish", None))  # noqa: E731
        return types.SimpleNamespace(
            id=known, name=known, info=types.SimpleNamespace(run_id=known), log=log, finish=finish
        )

    if name == "mlflow":
        module.start_run, module.log_metrics = start, log  # type: ignore[attr-defined]
        module.set_experiment = lambda experiment: calls.append(("project", experiment))  # type: ignore[attr-defined]
        module.log_dict = lambda config, file: calls.append(("config", config))  # type: ignore[attr-defined]
        module.end_run = lambda: calls.append(("finish", None))  # type: ignore[attr-defined]
    else:
        module.init, module.log = start, log  # type: ignore[attr-defined]
        module.finish = lambda: calls.append(("finish", None))  # type: ignore[attr-defined]
    return module


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "TRACKIO_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", NAMES)
def test_every_line_goes_to_the_service_and_a_resume_goes_on_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Calls = []
    monkeypatch.setitem(sys.modules, name, stand_in(name, calls))
    with logging_to([name]):
        first = Loggers(tmp_path, Config(), 0, print)
        first.write(2, {"loss": 0.5, "theta.lr": 0.1})
        first.close()
    assert ("log", (2, {"loss": 0.5, "theta.lr": 0.1})) in calls
    assert calls[-1] == ("finish", None)
    started = dict(calls)["start"]
    assert started.get("name", started.get("run_name")) == "toy_seed3"
    assert "mlomae" in (started.get("project"), dict(calls).get("project"))
    assert Config().to_dict() in (started.get("config"), dict(calls).get("config"))
    assert json.loads((tmp_path / loggers.FILE).read_text()) == {name: "toy_seed3-1"}
    calls.clear()
    with logging_to([name]):
        Loggers(tmp_path, Config(), 2, print).close()
    resumed = dict(calls)["start"]
    assert "toy_seed3-1" in (resumed.get("id"), resumed.get("run_id"), resumed.get("name"))
    assert resumed.get("resume", "allow") == "allow"
    calls.clear()
    with logging_to([name]):
        Loggers(tmp_path, Config(), 0, print).close()
    assert "toy_seed3-1" not in dict(calls)["start"].values(), "a new run in the same folder is another one"


@pytest.mark.parametrize("name", NAMES)
def test_they_are_imported_only_when_asked_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # importing it is an ImportError
    Loggers(tmp_path, Config(), 0, print).close()
    with pytest.raises(ConfigError, match=rf"pip install {name}"), logging_to([name]):
        pass
    with pytest.raises(ConfigError, match="choose one of mlflow, tensorboard, trackio, wandb"), logging_to(["wanbd"]):
        pass


def test_a_service_that_fails_does_not_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Calls = []
    warnings: list[str] = []
    monkeypatch.setitem(sys.modules, "wandb", stand_in("wandb", calls, fails=True))
    with logging_to(["wandb"]):
        opened = Loggers(tmp_path, Config(), 0, warnings.append)
        for done in (2, 4):
            opened.write(done, {"loss": 0.5})
        opened.close()
    assert warnings == ["logger 'wandb' has failed and is left out from now on: the server is gone"]
    (path,) = (tmp_path / "tensorboard").iterdir()
    events = EventAccumulator(str(path))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4]


def test_a_service_that_is_out_of_reach_or_left_out_when_resuming_is_gone_on_with_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Calls = []
    works = {name: stand_in(name, calls) for name in ("wandb", "mlflow")}
    for name, module in works.items():
        monkeypatch.setitem(sys.modules, name, module)
    with logging_to(works):
        Loggers(tmp_path, Config(), 0, print).close()
    kept = json.loads((tmp_path / loggers.FILE).read_text())
    assert kept.keys() == works.keys()

    def no_server(**given: Any) -> None:
        raise ConnectionError("no server")

    warnings: list[str] = []
    with logging_to(works), monkeypatch.context() as patch:
        patch.setattr(works["wandb"], "init", no_server)
        Loggers(tmp_path, Config(), 2, warnings.append).close()
    assert len(warnings) == 1
    with logging_to([]):
        Loggers(tmp_path, Config(), 2, print).close()
    assert json.loads((tmp_path / loggers.FILE).read_text()) == kept
    calls.clear()
    with logging_to(["wandb"]):
        Loggers(tmp_path, Config(), 4, print).close()
    assert dict(calls)["start"]["id"] == kept["wandb"]


def test_a_run_logs_what_its_file_holds_and_has_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    calls: Calls = []
    monkeypatch.setitem(sys.modules, "trackio", stand_in("trackio", calls))
    config = tiny.config(**tiny.RANDOM, data__eval=None)
    with logging_to(["trackio"]):
        logged = run_pretraining(config, tmp_path / "logged")
    plain = run_pretraining(config, tmp_path / "plain")
    rows = [json.loads(line) for line in (tmp_path / "logged" / "log.jsonl").read_text().splitlines()]
    assert [given for kind, given in calls if kind == "log"] == [
        (row.pop("step"), {"seconds" if name == "time" else name: value for name, value in row.items()}) for row in rows
    ]
    assert logged["metrics"] == plain["metrics"]
    assert logged["config_hash"] == plain["config_hash"]


def test_the_option(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = tiny.write_config(tmp_path / "config.py", **tiny.RANDOM)
    assert main(["pretrain", str(config), "--work-dir", str(tmp_path / "work"), "--log-to", "wandb"]) == 2
    assert "pip install wandb" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "work").exists()
