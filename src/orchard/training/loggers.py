"""Where the metrics of a training go beside log.csv: TensorBoard, Weights & Biases, MLflow.

A logger never ends a training: one that fails (no network, a full disk, no key) is left out from then on, with one
warning. How each is set up, its own environment variables say (WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI,
MLFLOW_EXPERIMENT_NAME, ...). A run that is resumed goes on in the same run of W&B and MLflow.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from orchard.errors import UsageError, first_line

if TYPE_CHECKING:
    from orchard.training.run import RunFolder

EXTRAS = ("wandb", "mlflow")  # packages that not everybody has
PROJECT = "orchard"  # of W&B, and experiment of MLflow, unless their variables name another
PARAMETERS = 100  # that MLflow takes at once


class Logger(Protocol):
    """Any error of these is one of the logger, whatever its kind."""

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...
    def flush(self) -> None: ...
    def close(self, finished: bool) -> None: ...


def require_loggers(names: Iterable[str]) -> None:
    """UsageError for a logger whose package is not installed."""
    for name in names:
        if name in EXTRAS:
            found = importlib.util.find_spec(name)
            if found is None or found.origin is None:  # of a plain folder that is called so
                raise UsageError(f"loggers: {name} is not installed: pip install 'orchard[{name}]', or leave it out")


class Loggers:
    """The loggers of one process's training. `first`: the step that comes next; `settings`: dotted keys."""

    def __init__(
        self, names: Iterable[str], run: RunFolder, first: int, settings: Mapping[str, Any], warn: Callable[[str], None]
    ):
        self._warn = warn
        self._loggers: dict[str, Logger] = {}
        for name in names:
            try:
                self._loggers[name] = _open(name, run, first, settings)
            except Exception as error:  # of another library: there is no telling which
                self._leave_out(name, error)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._each(lambda logger: logger.log(metrics, step))

    def flush(self) -> None:
        self._each(lambda logger: logger.flush())

    def close(self, finished: bool) -> None:
        self._each(lambda logger: logger.close(finished))

    def _each(self, act: Callable[[Logger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                act(logger)
            except Exception as error:  # of another library: there is no telling which
                del self._loggers[name]
                self._leave_out(name, error)

    def _leave_out(self, name: str, error: Exception) -> None:
        self._warn(f"{name} gets no more metrics: {first_line(error)}; the training goes on, log.csv has all of them")


def _open(name: str, run: RunFolder, first: int, settings: Mapping[str, Any]) -> Logger:
    if name == "tensorboard":
        from orchard.training.board import Board

        return Board(run / "tensorboard", first)
    return WandB(run, settings) if name == "wandb" else MLflow(run, settings)


def identity(run: RunFolder) -> str:
    """The same for all processes that work on a run, one after another, and for no other run."""
    return hashlib.sha256(f"{run.path.resolve()} {run.facts().started}".encode()).hexdigest()[:16]


class WandB:
    """A run of Weights & Biases. What it keeps here lies in RUN/wandb."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any]):
        import wandb

        # The step is a metric of its own: W&B refuses to count back, as a resumed training does.
        quiet: Any = wandb.Settings(console="off", silent=True, init_timeout=30)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=run.path.name, id=identity(run), resume="allow",
            dir=str(run.path), config=dict(settings), settings=quiet,
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._run.log({**metrics, "step": step})

    def flush(self) -> None:
        """A process of W&B's own sends what there is."""

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class MLflow:
    """A run of MLflow's, in the experiment that MLFLOW_EXPERIMENT_NAME names."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any]):
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # of its own seven, some last minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric = Metric
        self._client: Any = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        mine = identity(run)
        before = self._client.search_runs([experiment], filter_string=f"tags.orchard_run = '{mine}'", max_results=1)
        if before:
            self._id = before[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        made = self._client.create_run(experiment, run_name=run.path.name, tags={"orchard_run": mine})
        self._id = made.info.run_id
        given = [Param(key, str(value)) for key, value in settings.items()]
        for start in range(0, len(given), PARAMETERS):
            self._client.log_batch(self._id, params=given[start : start + PARAMETERS])

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        now = time.time_ns() // 10**6
        self._client.log_batch(
            self._id, metrics=[self._metric(key, value, now, step) for key, value in metrics.items()]
        )

    def flush(self) -> None:
        """Each line was sent when it was logged."""

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")
