"""Where the numbers of a run's log go beside its folder: TensorBoard always, and what `logging_to` names.

Weights & Biases, MLflow and Trackio are imported when they are asked for. Where their servers are and who logs in is
theirs to know (WANDB_*, MLFLOW_*, TRACKIO_* in the environment); projects are called "mlomae" unless these say
otherwise. A resumed run goes on with the run that it had there, whose name is kept in ``loggers.json``. A service that
fails in the middle of a run is given up with a warning: training goes on.

Another one is a class with the methods of `Logger`, registered by a plug-in.
"""

import importlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Protocol

from mlomae.common.atomic import write_text
from mlomae.common.errors import ConfigError, reason_of
from mlomae.common.files import read_json
from mlomae.common.registry import Registry

FILE = "loggers.json"
PROJECT = "mlomae"


class Logger(Protocol):
    """Made when training begins, on the main process.

    ``package`` is what it imports. ``known`` is what ``identity`` was when the run was interrupted, None for a new
    one; ``done`` iterations are behind it.
    """

    package: str

    def __init__(self, folder: Path, name: str, config: dict[str, Any], known: str | None, done: int) -> None: ...

    @property
    def identity(self) -> str | None:
        """By what the service knows the run; None if that needs no keeping."""

    def write(self, done: int, values: Mapping[str, float]) -> None:
        """Values after ``done`` iterations."""

    def close(self) -> None: ...


_LOGGERS = Registry[Logger]("logger")
register_logger = _LOGGERS.register
_chosen: tuple[str, ...] = ()


@contextmanager
def logging_to(names: Iterable[str]) -> Iterator[None]:
    """Runs within the block log to these loggers, too. Raises ConfigError for an unknown one, and for one whose package
    cannot be imported."""
    global _chosen
    wanted, before = tuple(dict.fromkeys(names)), _chosen
    for name in wanted:
        package = getattr(_LOGGERS.get(name), "package", "")
        try:
            importlib.import_module(package)
        except Exception as error:  # a foreign package can raise anything
            raise ConfigError(
                f"logger '{name}' needs the package {package}, which cannot be imported ({reason_of(error)}); install "
                f"it (pip install {package}), or leave '{name}' out"
            ) from error
    _chosen = wanted
    try:
        yield
    finally:
        _chosen = before


class Loggers:
    """TensorBoard and the chosen loggers of a run in ``folder``; ``config`` is that of the run."""

    def __init__(self, folder: Path, config: Any, done: int, warn: Any) -> None:
        self._warn = warn
        self._open: dict[str, Logger] = {}
        path = folder / FILE
        known: dict[str, Any] = {}
        if done and path.is_file():
            known = read_json(path)
        name = f"{getattr(config, 'name', folder.name)}_seed{config.seed}"
        for kind in ("tensorboard", *(kind for kind in _chosen if kind != "tensorboard")):
            self._try(kind, lambda kind=kind: self._begin(kind, folder, name, config.to_dict(), known.get(kind), done))
        found = known | {kind: logger.identity for kind, logger in self._open.items() if logger.identity}
        if found:  # with those of a service that is out of reach or left out this time
            write_text(path, json.dumps(found, indent=1))

    def _begin(self, kind: str, *given: Any) -> None:
        self._open[kind] = _LOGGERS.get(kind)(*given)

    def _try(self, kind: str, call: Any) -> None:
        """Services are no part of a run; TensorBoard's files are."""
        try:
            call()
        except Exception as error:
            if kind == "tensorboard":
                raise
            self._open.pop(kind, None)
            self._warn(f"logger '{kind}' has failed and is left out from now on: {reason_of(error)}")

    def write(self, done: int, values: Mapping[str, float]) -> None:
        for kind, logger in list(self._open.items()):
            self._try(kind, lambda logger=logger: logger.write(done, values))

    def close(self) -> None:
        nowhere = io.StringIO()  # services sum up a run at its end, as we do
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            for kind, logger in list(self._open.items()):
                self._try(kind, logger.close)


@register_logger("tensorboard")
class TensorBoard:
    package = "tensorboard"
    identity = None

    def __init__(self, folder: Path, name: str, config: dict[str, Any], known: str | None, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # half a second, of which only a run has need

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def write(self, done: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, done)

    def close(self) -> None:
        self._writer.close()


@register_logger("wandb")
class WeightsAndBiases:
    package = "wandb"

    def __init__(self, folder: Path, name: str, config: dict[str, Any], known: str | None, done: int) -> None:
        import wandb

        project, resume = os.environ.get("WANDB_PROJECT", PROJECT), {"id": known, "resume": "allow"} if known else {}
        self._run: Any = wandb.init(project=project, name=name, config=config, dir=str(folder), **resume)
        self.identity = str(self._run.id)

    def write(self, done: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=done)

    def close(self) -> None:
        self._run.finish()


@register_logger("mlflow")
class MLflow:
    package = "mlflow"

    def __init__(self, folder: Path, name: str, config: dict[str, Any], known: str | None, done: int) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        if "MLFLOW_EXPERIMENT_NAME" not in os.environ and "MLFLOW_EXPERIMENT_ID" not in os.environ:
            mlflow.set_experiment(PROJECT)
        run = mlflow.start_run(run_id=known) if known else mlflow.start_run(run_name=name)
        self.identity = str(run.info.run_id)
        if not known:
            mlflow.log_dict(config, "config.json")  # parameters may not be longer than some hundred characters

    def write(self, done: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=done)

    def close(self) -> None:
        self._mlflow.end_run()


@register_logger("trackio")
class Trackio:
    package = "trackio"  # keeps the name "time" for itself

    def __init__(self, folder: Path, name: str, config: dict[str, Any], known: str | None, done: int) -> None:
        import trackio

        project, resume = os.environ.get("TRACKIO_PROJECT", PROJECT), "allow" if known else "never"
        self._trackio: Any = trackio
        run = trackio.init(project=project, name=known or name, config=config, resume=resume)
        self.identity = str(run.name)

    def write(self, done: int, values: Mapping[str, float]) -> None:
        self._trackio.log({"seconds" if name == "time" else name: v for name, v in values.items()}, step=done)

    def close(self) -> None:
        self._trackio.finish()
