"""Learning curves: one row a run and epoch, from the store or from a kept curves.csv, and their figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from roadmap.checks import RoadmapError, check_known, repeated
from roadmap.files import write_text
from roadmap.formatting import listed, name_of, number
from roadmap.plotting.line import Curve, draw_curves
from roadmap.plotting.style import Drawn, Look
from roadmap.results.schema import CURVES, EPOCH, METRIC, Schema, empty, read_as_text, typed
from roadmap.results.statistics import mean_interval
from roadmap.tasks import task_named, tasks
from roadmap.tasks.task import Task

#: The file of a study's folder that keeps the curves where the store is not kept.
CURVES_TABLE = "curves.csv"
#: What names a row's run, and what is known of it from the table of runs.
_RUN = ["step", "seed"]
_LABELS = [name for name in CURVES if name not in EPOCH]


class Curves(pd.DataFrame):  # type: ignore[misc]  # pandas has no types
    """Learning curves, one row a run and epoch; columns: `roadmap.results.schema.CURVES`, docs/tables.md.

    Called, they are drawn, as ``table.plot()`` of pandas draws; any part of the table is a plain DataFrame.
    """

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame

    def __call__(self, steps: Sequence[str] | None = None, quantity: str | None = None, **look: Any) -> Drawn:
        """Learning curves: a quantity by epoch, the mean over seeds with its 95 % interval as a band.

        ``quantity`` is one of `quantities`, by default the score in tests; ``steps``: which, in which order; by default
        all. ``look``: the fields of `roadmap.plotting.style.Look`. Runs that ended well make the mean, at each epoch
        those that have a value there; runs that failed are thin lines, up to a cross where they end.

        Raises `RoadmapError` for a quantity or step that does not exist, a step named twice, and where there are no
        values to draw.
        """
        if self.empty:
            raise RoadmapError(f"there are no learning curves: neither the study's store is here nor a {CURVES_TABLE}")
        known = {name: one for name, one in quantities().items() if name in self}
        quantity = next(iter(known)) if quantity is None else quantity
        check_known("quantity", [quantity], known)
        present = list(dict.fromkeys(self["step"]))
        steps = present if steps is None else list(steps)
        if not steps:
            raise RoadmapError("no step is named whose learning curve is to be drawn")
        check_known("step", steps, present)
        if twice := repeated(steps):
            raise RoadmapError(f"step '{twice}' is named twice")
        rows = self[self["step"].isin(steps) & np.isfinite(self[quantity].astype(float))]
        if not len(rows):
            raise RoadmapError(f"these runs have no {quantity} at any epoch")
        shown = known[quantity]
        found = [_curve(step, rows[rows["step"] == step], quantity) for step in steps]
        return draw_curves(
            found,
            ("epoch", shown.axis),
            (shown.least, shown.most),
            Look(**look),
            _headline(found, shown),
            _caption(found, quantity),
        )


@dataclass(frozen=True)
class Quantity:
    """A column of the curves: what its axis shows, the format of its numbers, and the values that it can have."""

    axis: str
    form: str = ".1f"
    least: float = 0.0
    most: float = 100.0


@cache
def quantities() -> dict[str, Quantity]:
    """Column of the curves -> what it is: the metrics of every task, in tests and in training, and the losses."""
    found: dict[str, Quantity] = {}
    for task in tasks().values():
        found |= {f"test_{one.key}": Quantity(f"test {one.short} (%)") for one in task.metrics}
        found |= {f"train_{one.key}": Quantity(f"training {one.short} (%)") for one in [task.trained] if one}
    losses = {"test": "test loss (nats)", "train": "training loss (nats)"}
    return found | {f"{name}_loss": Quantity(axis, ".3f", most=math.inf) for name, axis in losses.items()}


def epoch_schema(task: Task) -> Schema:
    """What is known of every epoch of a run of this task: `EPOCH` with the task's own metrics."""
    own = {
        "train": [f"train_{task.trained.key}"] if task.trained else [],
        "test": [f"test_{metric.key}" for metric in task.metrics],
    }
    names = ("epoch", "train_loss", *own["train"], "test_loss", *own["test"])
    rest = ("lr_end", "seconds", "data_seconds", "images")
    return {name: EPOCH.get(name, METRIC) for name in (*names, *rest)}


def _kept(runs: pd.DataFrame) -> Schema:
    """The columns of curves.csv for these runs."""
    return {name: CURVES[name] for name in _RUN} | {**epoch_schema(task_named(runs["task"].iloc[0]))}


def _curve(step: str, rows: pd.DataFrame, quantity: str) -> Curve:
    done = rows[rows["status"] == "done"].groupby("epoch")[quantity]
    intervals = np.array([mean_interval(values) for _, values in done]).reshape(-1, 4)
    intervals[:, 2:] = intervals[:, 2:].clip(quantities()[quantity].least, quantities()[quantity].most)
    failed = [
        (run["epoch"].to_numpy(float), run[quantity].to_numpy(float))
        for _, run in rows[rows["status"] != "done"].sort_values("epoch").groupby("seed")
    ]
    reference = bool(rows["reference"].any())
    end = [number(intervals[-1, 0], quantities()[quantity].form) if len(intervals) else "no value"]
    return Curve(
        name=step,
        label=name_of(step, reference),
        x=np.array(list(done.groups), dtype=float),
        mean=intervals[:, 0],
        low=intervals[:, 2],
        high=intervals[:, 3],
        end="; ".join([*end, f"{len(failed)} failed"] if failed else end),
        road=not reference and not rows["adopted"].all(),
        reference=reference,
        failed=failed,
    )


def _headline(found: Sequence[Curve], shown: Quantity) -> str:
    ended = sorted((one for one in found if len(one.mean)), key=lambda one: -one.mean[-1])
    if not ended:
        return f"{shown.axis}: every run failed"
    first, last = (ended[0], ended[-1]) if shown.most == 100 else (ended[-1], ended[0])
    what = shown.axis.partition(" (")[0]
    best = f"Best final {what}: {first.label}, {number(first.mean[-1], shown.form)}"
    return best + (f"; worst: {last.label}, {number(last.mean[-1], shown.form)}" if last is not first else "")


def _caption(found: Sequence[Curve], quantity: str) -> str:
    banded = any(np.isfinite(curve.low).any() for curve in found)
    sentences = [
        "Mean over the seeds that ended well" + (", with its own 95 % interval." if banded else "; no intervals.")
    ]
    if any(0 < len(curve.x) < curve.x[-1] for curve in found if len(curve.x)):
        sentences.append("Epochs without a dot have no value.")
    if roads := [curve.label for curve in found if curve.road]:
        sentences.append(f"Dashed, not taken: {listed(roads, 4)}.")
    if failed := [curve.label for curve in found if curve.failed]:
        sentences.append(f"Thin, up to a cross: failed runs, of {listed(failed, 4)}; they are in no mean.")
    if quantity.startswith("train"):
        sentences.append("In training: on augmented images, while the network changed.")
    return " ".join(sentences)


def no_curves() -> Curves:
    """Curves without a row."""
    return Curves(empty(CURVES))


def curves_of(runs: pd.DataFrame, history: Callable[[str], Iterable[Mapping[str, float]]]) -> Curves:
    """The curves of `completed` runs, from what ``history`` says of the epochs of a run by its signature.

    Raises `RoadmapError` where that is no history.
    """
    rows = []
    for run in runs.to_dict("records"):
        try:
            epochs = list(history(run["signature"]))
        except (OSError, TypeError, ValueError) as error:
            raise RoadmapError(f"the history of run {run['signature']} cannot be read: {error}") from None
        rows += [{name: run[name] for name in _LABELS} | dict(epoch) for epoch in epochs]
    schema = {**{name: CURVES[name] for name in _LABELS}, **_kept(runs)}
    return Curves(typed(pd.DataFrame(rows).reindex(columns=list(schema)), schema))


def read_curves(path: Path, runs: pd.DataFrame) -> Curves:
    """The curves of `completed` runs from a curves.csv. Raises `RoadmapError` for any other file."""
    kept = _kept(runs)
    table = read_as_text(path, kept, "learning curves")
    try:
        table = typed(table[list(kept)], kept)
    except RoadmapError as error:
        raise RoadmapError(f"{path} is damaged: {error}") from None
    labelled = table.merge(runs[_LABELS], on=_RUN, how="left")
    for step, seed in labelled.loc[labelled["status"].isna(), _RUN].to_numpy()[:1]:
        raise RoadmapError(f"{path} has a run of '{step}' with seed {seed}, of which the table of runs knows nothing")
    for step, seed, epoch in labelled.loc[labelled.duplicated([*_RUN, "epoch"]), [*_RUN, "epoch"]].to_numpy()[:1]:
        raise RoadmapError(f"{path} is damaged: it has epoch {epoch} of '{step}' with seed {seed} twice")
    schema = {**{name: CURVES[name] for name in _LABELS}, **kept}
    return Curves(typed(labelled[list(schema)], schema))


def write_curves(curves: pd.DataFrame, folder: Path) -> Path:
    """Write curves.csv into an existing folder; what the table of runs says is not repeated."""
    kept = [name for name in curves if name in _RUN or name not in _LABELS]
    write_text(folder / CURVES_TABLE, curves[kept].to_csv(index=False, lineterminator="\n"))
    return folder / CURVES_TABLE
