"""Lightning's loggers, on request: one group a study, one log a run."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from roadmap.checks import RoadmapError
from roadmap.imports import is_installed
from roadmap.planning.spec import LOGGERS

if TYPE_CHECKING:
    from roadmap.running.task import RunTask


def check_logger(name: str | None) -> None:
    """Raise `RoadmapError` where the package that a logger needs is not installed."""
    package = LOGGERS[name] if name else None
    if package and not is_installed(package):
        raise RoadmapError(f"--logger {name} needs the package {package}: pip install {package}")


class RunLog:
    """The log of one run. A logger that cannot start raises what it likes; one that fails later is given up."""

    def __init__(self, task: RunTask) -> None:
        self._name = f"{task.run.step} seed {task.run.seed}"
        Path(task.log_folder).mkdir(parents=True, exist_ok=True)
        with FileLock(Path(task.log_folder) / ".lock"):  # some make a data base, which two may not at once
            self._logger: Any = _make_logger(task)

    def add(self, values: dict[str, float], step: int) -> None:
        """Log values of an epoch."""
        self._try(lambda logger: (logger.log_metrics(values, step=step), logger.save()))

    def end(self, status: str) -> None:
        """Close the log with status ``success`` or ``failed``."""
        self._try(lambda logger: logger.finalize(status))
        # Weights & Biases would write the next run of this process into the same log.
        self._try(lambda logger: getattr(logger.experiment, "finish", lambda: None)())

    def _try(self, use: Callable[[Any], Any]) -> None:
        if self._logger is not None:
            try:
                use(self._logger)
            except Exception as error:  # a logger's trouble is no reason to lose a training
                print(f"{self._name} is logged no further: {error}", file=sys.stderr)
                self._logger = None


def _make_logger(task: RunTask) -> Any:
    from pytorch_lightning import loggers
    from pytorch_lightning.plugins.environments import LightningEnvironment

    LightningEnvironment().set_global_rank(0)  # only a run's first process has a log, whatever a cluster calls it
    run = task.run
    name = f"{run.step}-seed{run.seed}-{run.signature[:6]}"
    folder = task.log_folder
    if task.logger == "csv":
        logger: Any = loggers.CSVLogger(folder, name=task.study, version=name)
    elif task.logger == "tensorboard":
        logger = loggers.TensorBoardLogger(folder, name=task.study, version=name, default_hp_metric=False)
    elif task.logger == "mlflow":
        # MLflow keeps no more runs in plain files; a server is named as it always is, by MLFLOW_TRACKING_URI.
        where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder}/mlflow.db"
        logger = loggers.MLFlowLogger(task.study, run_name=name, tracking_uri=where)
    else:
        logger = loggers.WandbLogger(name=name, group=task.study, save_dir=folder, id=run.signature, resume="allow")
    recipe = {key: value for key, value in dataclasses.asdict(run.recipe).items() if key != "why"}
    labels = {"step": run.step, "seed": run.seed, "regime": run.regime, "data": run.data, "signature": run.signature}
    logger.log_hyperparams({**labels, **{f"recipe_{key}": _plain(value) for key, value in recipe.items()}})
    return logger


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, bool)) else str(value)
