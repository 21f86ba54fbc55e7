"""`execute`: one run of a study, wherever it is executed: claimed, trained, reported, and put into the store."""

from __future__ import annotations

import errno
import os
import platform
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError
from roadmap.files import in_words, refusal
from roadmap.network.layers import digest_of, load_plugins
from roadmap.provenance import source
from roadmap.running.task import Outcome, RunTask
from roadmap.store.records import STOP, WEIGHTS
from roadmap.store.store import Store
from roadmap.tasks import task_named
from roadmap.training.spec import Execution

if TYPE_CHECKING:
    from roadmap.data.sources import ImageData

#: Numbers of a run's result beside its metrics; all missing where it failed before it began.
NUMBERS = (
    "score",
    "loss",
    "train_loss",
    "epochs",
    "seconds",
    "images_per_second",
    "data_seconds",
    "wall_seconds",
)
#: Seconds to wait for a run that another process holds: some only look whether it is free.
_PATIENCE = 1.0


def execute(task: RunTask, data: ImageData) -> Outcome:
    """Train a run, unless the store has it by now or another process is at it. Never raises for what may happen."""
    rank = int(os.environ["RANK"]) if task.execution.processes > 1 else 0
    store = Store(task.store)
    signature = task.run.signature
    source()  # of the code that was imported, not of what an update leaves in its place
    try:
        if rank > 0:
            return _train(task, data, store)
        with store.claim(signature, _PATIENCE) as mine:
            if not mine:
                return Outcome("busy")
            store.recover(signature)
            if store.settled(signature):
                return Outcome("finished")
            return _train(task, data, store)
    except OSError as error:
        return Outcome("memory" if error.errno == errno.ENOMEM else "storage", in_words(error))


def _train(task: RunTask, data: ImageData, store: Store) -> Outcome:
    folder = store.partial(task.run.signature)
    (folder / STOP).unlink(missing_ok=True)  # before the imports: what is asked for meanwhile is meant
    from roadmap.data.shared import SharedMemoryError, lacks_shared_memory
    from roadmap.network.description import RUNG
    from roadmap.network.weights import save_weights
    from roadmap.training.device import environment, is_memory_error, resolve_device
    from roadmap.training.fit import SaveError, fit_run
    from roadmap.training.module import StoppedError

    first = task.execution.processes == 1 or int(os.environ["RANK"]) == 0
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    watch = metrics = result = None
    try:
        load_plugins(task.plugins)
        if (now := digest_of(task.run.plugins)) != task.run.plugins:
            changed = next(name for name in now if now[name] != task.run.plugins[name])
            raise RoadmapError(f"the plug-in of layer '{changed}' has changed since the study began: start it again")
        watch = _make_watch(task, store, first)
        result = fit_run(task.run, data, folder, task.execution, watch, Path(task.initial) if task.initial else None)
        if first:
            # A loss that was no number will be none again: the same seed draws the same numbers.
            metrics = {**result.metrics, "retry": False}
            if metrics["status"] == "done":
                save_weights(
                    result.network,
                    folder / WEIGHTS,
                    class_names=data.class_names,
                    image_size=data.image_size,
                    mean=data.mean,
                    std=data.std,
                    rung={name: getattr(task.run, name) for name in RUNG},
                    task=task.run.task,
                    head=task_named(task.run.task).head_values(task.run.head),
                )
            made_by = environment(resolve_device(task.execution), task.execution)
            record = _record(task, metrics, made_by, started)
            done = metrics["status"] == "done"
            store.finish(task.run.signature, record, result.history, weights=done, correct=result.correct)
        return Outcome("finished")
    except StoppedError:
        return Outcome("stopped")
    except SaveError as error:
        return Outcome("storage", str(error))
    except Exception as error:
        if is_memory_error(error):
            return Outcome("memory", _one_line(error) or "not enough memory")
        if isinstance(error, OSError) and result:
            raise
        if result and (problem := refusal(error)):  # the training is over: what failed is keeping what came out of it
            return Outcome("storage", problem)
        if "DataLoader worker" in str(error) and lacks_shared_memory(error):
            return Outcome("memory", str(SharedMemoryError()))
        if "DataLoader worker" in str(error) or (task.execution.processes > 1 and _lost_another(error)):
            return Outcome("died", _one_line(error))
        reason = str(error) if isinstance(error, RoadmapError) else f"{type(error).__name__}: {_one_line(error)}"
        if not first:  # the first process waits for this one, and cannot record it
            return Outcome("failed", reason)
        record_failure(task, store, f"error: {reason}", started, retry=True)
        return Outcome("finished", reason)
    finally:
        if watch:
            watch.close(metrics)


def decisive(outcomes: Iterable[Outcome]) -> Outcome | None:
    """What ended a run that several processes train: one that died may have lost another, whose reason counts."""
    bad = [outcome for outcome in outcomes if outcome.went_wrong]
    return min(bad, key=lambda outcome: outcome.kind == "died", default=None)


def record_failure(task: RunTask, store: Store, reason: str, started: str | None = None, retry: bool = True) -> None:
    """Record a run as failed; the caller holds the claim. ``retry``: another start of the study tries it again."""
    from roadmap.training.device import environment, resolve_device

    started = started or datetime.now(timezone.utc).isoformat(timespec="seconds")
    task_metrics = [metric.key for metric in task_named(task.run.task).metrics]
    nothing = dict.fromkeys((*task_metrics, f"last_{task_metrics[0]}", *NUMBERS))
    metrics = {"status": "failed", "reason": reason, "retry": retry, **nothing}
    try:
        made_by = environment(resolve_device(task.execution), task.execution)
    except RoadmapError:  # the device is another machine's
        made_by = environment(resolve_device(Execution(device="cpu")), task.execution)
    store.finish(task.run.signature, _record(task, metrics, made_by, started), [], weights=False)


def _record(task: RunTask, metrics: dict[str, Any], made_by: dict[str, Any], started: str) -> dict[str, Any]:
    finished = datetime.now(timezone.utc).isoformat(timespec="seconds")
    origin = {"started": started, "finished": finished, "host": platform.node(), **task.origin, "initial": task.initial}
    origin["source"] = source()
    run = task.run.to_dict()
    return {
        "run": run,
        "cost": task.cost,
        "result": metrics,
        **task.facts,
        "environment": made_by,
        "origin": origin,
    }


def _make_watch(task: RunTask, store: Store, first: bool) -> Any:
    from roadmap.running.loggers import RunLog
    from roadmap.training.fit import Watch
    from roadmap.training.module import Progress

    what = task_named(task.run.task)

    class StoreWatch(Watch):
        """Tells the store how far the run is, and hears from there whether to stop."""

        def __init__(self) -> None:
            super().__init__()
            self._begun = time.time()
            self._before: float | None = None
            self._log = RunLog(task) if first and task.logger else None
            self._logged = 0
            self._say({"epoch": 0, "fraction": 0.0})

        def report(self, progress: Progress) -> None:
            trained = progress.epoch + progress.fraction
            now = time.time()
            if self._before is None:  # what was trained before this process began costs no time now
                self._before, self._measured_from = trained, now
            speed = (trained - self._before) / (now - self._measured_from) if now > self._measured_from else 0
            left = (task.run.recipe.epochs - trained) / speed if speed else None
            self._say({**progress.named(what), "seconds_left": left})

        def _say(self, facts: dict[str, Any]) -> None:
            if first:
                run = {"run": task.run.to_dict(), "epochs": task.run.recipe.epochs}
                process = {"began": self._begun, "pid": os.getpid(), "host": platform.node()}
                store.report(task.run.signature, {**run, **process, **facts})

        def epoch_ended(self, history: list[dict[str, Any]]) -> None:
            if self._log:
                for epoch in history[self._logged :]:
                    values = {name: value for name, value in epoch.items() if name != "epoch" and value is not None}
                    self._log.add(values, epoch["epoch"])
                self._logged = len(history)

        def wants_stop(self) -> bool:
            return (Path(store.folder) / "partial" / task.run.signature / STOP).exists()

        def close(self, metrics: dict[str, Any] | None) -> None:
            if self._log:
                self._log.end("success" if metrics and metrics["status"] == "done" else "failed")

    return StoreWatch()


def _lost_another(error: Exception) -> bool:
    """Whether a process that trained the run together with this one has gone."""
    import torch.distributed

    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _one_line(error: BaseException) -> str:
    words = in_words(error) if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(words.split())[:500]
