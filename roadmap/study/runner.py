"""Runs a study: every run of its plan, one after the other, into its folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError
from roadmap.study.display import Display
from roadmap.study.spec import StudySpec, plan
from roadmap.study.store import WEIGHTS, Store
from roadmap.training.spec import RunSpec

if TYPE_CHECKING:
    from roadmap.cost.counting import Cost
    from roadmap.data.sources import ImageData

#: Forward and backward pass together cost three forward passes; a multiply-accumulate is two operations.
TRAINING_FLOPS_PER_MAC = 6


@dataclass(frozen=True)
class Prepared:
    """A study that has been looked at and can start: its opened data, its runs and what each costs."""

    spec: StudySpec
    data: ImageData
    runs: list[RunSpec]
    costs: dict[str, Cost]
    device: str

    def cost(self, run: RunSpec) -> Cost:
        """The counted cost of a run's network."""
        return self.costs[run.step]

    def petaflops(self, run: RunSpec) -> float:
        """Floating-point operations of the whole training of a run, in 1e15."""
        images = len(self.data.train) * run.recipe.epochs
        return TRAINING_FLOPS_PER_MAC * self.cost(run).gmacs * 1e9 * images / 1e15


def prepare(spec: StudySpec) -> Prepared:
    """Open the data, resolve every run and count its cost; nothing is written. Raises `RoadmapError`."""
    from roadmap.cost.counting import count
    from roadmap.data.sources import open_data
    from roadmap.training.device import resolve_device

    device = resolve_device(spec.execution, spec.precision)
    data = open_data(spec.data, spec.data_dir, spec.image_size, spec.download, spec.loading)
    runs = plan(spec, data)
    costs = {run.step: count(run.design, data.image_size) for run in runs}
    return Prepared(spec, data, runs, costs, str(device))


def default_folder(spec: StudySpec) -> Path:
    """Where a study's results go where nothing is said."""
    return Path("results") / spec.name


def run_study(study: Prepared, folder: Path, resume: bool, display: Display, command: str) -> None:
    """Train the runs that the folder does not hold yet, and write the table. ``command`` is kept with each run.

    A run that diverges is recorded as such and the rest go on. Raises `RoadmapError` where the folder cannot be used,
    and `KeyboardInterrupt` when stopped by Ctrl-C; what is finished is kept then.
    """
    store = Store(folder)
    asked = dataclasses.asdict(study.spec) | {"fingerprint": study.data.fingerprint}
    content = {"spec": asked, "command": command, "classes": study.data.class_names}
    store.begin(content | {"runs": [run.to_dict() for run in study.runs]}, resume)
    try:
        with display:
            display.begin(study.runs, {run.signature: study.petaflops(run) for run in study.runs})
            for run in study.runs:
                record = store.record(run.signature)
                if record is None or (record["result"]["status"] == "done" and not store.has_weights(run.signature)):
                    display.start(run)
                    record = _train(study, run, store, display, command)
                    store.write_table()
                display.finish(run, record["result"])
        store.write_table()
    except OSError as error:
        raise RoadmapError(f"the study in {folder} had to stop: {error}") from None


def _train(study: Prepared, run: RunSpec, store: Store, display: Display, command: str) -> dict[str, Any]:
    from roadmap.network.weights import save_weights
    from roadmap.training.device import environment, resolve_device
    from roadmap.training.fit import fit_run

    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    folder = store.partial(run.signature)
    result = fit_run(run, study.data, folder, study.spec.execution, lambda *progress: display.progress(run, *progress))
    if result.metrics["status"] == "done":
        save_weights(result.network, folder / WEIGHTS)
    cost = study.cost(run)
    recipe = run.recipe
    record = {
        "run": run.to_dict(),
        "cost": {
            "gmacs": cost.gmacs, "params": cost.params, "activations": cost.activations,
            "macs_by_operator": cost.macs_by_operator,
        },
        "result": result.metrics,
        "history": result.history,
        "labels": {
            "stem_stride": run.design.stem_stride, "recipe": recipe.name, "optimizer": recipe.optimizer,
            "batch_size": recipe.batch_size, "lr": recipe.peak_lr, "compile": study.spec.compile,
        },
        "data": {
            "classes": study.data.class_names, "train": len(study.data.train), "test": len(study.data.test),
            "mean": study.data.mean, "std": study.data.std,
        },
        "environment": environment(resolve_device(study.spec.execution)),
        "origin": {"command": command, "started": started},
    }  # fmt: skip
    store.finish(run.signature, record)
    return record
