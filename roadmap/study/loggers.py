"""Lightning's loggers, on request: one group a study, one log a run."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError

if TYPE_CHECKING:
    from roadmap.study.work import Task

#: Name of a logger -> the package it needs.
LOGGERS = {"csv": None, "tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}


def check_logger(name: str | None) -> None:
    """Raise `RoadmapError` where the package that a logger needs is not installed."""
    package = LOGGERS[name] if name else None
    if package and importlib.util.find_spec(package) is None:
        raise RoadmapError(f"--logger {name} needs the package {package}: pip install {package}")


def make_logger(task: Task) -> Any:
    """The Lightning logger of a run, or None where none is asked for."""
    if not task.logger:
        return None
    from pytorch_lightning import loggers

    run = task.run
    name = f"{run.step}-seed{run.seed}-{run.signature[:6]}"
    folder = task.log_folder
    if task.logger == "csv":
        logger: Any = loggers.CSVLogger(folder, name=task.study, version=name)
    elif task.logger == "tensorboard":
        logger = loggers.TensorBoardLogger(folder, name=task.study, version=name, default_hp_metric=False)
    elif task.logger == "mlflow":
        logger = loggers.MLFlowLogger(experiment_name=task.study, run_name=name)
    else:
        logger = loggers.WandbLogger(name=name, group=task.study, save_dir=folder, id=run.signature, resume="allow")
    recipe = {key: value for key, value in dataclasses.asdict(run.recipe).items() if key != "why"}
    labels = {"step": run.step, "seed": run.seed, "regime": run.regime, "data": run.data, "signature": run.signature}
    logger.log_hyperparams({**labels, **{f"recipe_{key}": _plain(value) for key, value in recipe.items()}})
    return logger


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, bool)) else str(value)
