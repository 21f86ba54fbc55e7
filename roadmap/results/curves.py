"""Learning curves: one row a run and epoch, from the store or from a kept curves.csv, and their figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from roadmap.checks import RoadmapError, check_known, repeated
from roadmap.files import write_text
from roadmap.formatting import listed, name_of, number
from roadmap.plotting.line import Curve, draw_curves
from roadmap.plotting.style import Drawn, Look
from roadmap.results.schema import CURVES, EPOCH, empty, read_as_text, typed
from roadmap.results.statistics import mean_interval

#: The file of a study's folder that keeps the curves where the store is not kept.
CURVES_TABLE = "curves.csv"
#: What names a row's run, and what is known of it from the table of runs.
_RUN = ["step", "seed"]
_LABELS = [name for name in CURVES if name not in EPOCH]
#: Columns of curves.csv.
_KEPT = {name: CURVES[name] for name in (*_RUN, *EPOCH)}


class Curves(pd.DataFrame):  # type: ignore[misc]  # pandas has no types
    """Learning curves, one row a run and epoch; columns: `roadmap.results.schema.CURVES`, docs/tables.md.

    Called, they are drawn, as ``table.plot()`` of pandas draws; any part of the table is a plain DataFrame.
    """

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame

    def __call__(self, steps: Sequence[str] | None = None, quantity: str = "test_top1", **look: Any) -> Drawn:
        """Learning curves: a quantity by epoch, the mean over seeds with its 95 % interval as a band.

        ``quantity`` is one of `QUANTITIES`; ``steps``: which, in which order; by default all. ``look``: the fields of
        `roadmap.plotting.style.Look`. Runs that ended well make the mean, at each epoch those that have a value there;
        runs that failed are thin lines, up to a cross where they end.

        Raises `RoadmapError` for a quantity or step that does not exist, a step named twice, and where there are no
        values to draw.
        """
        if self.empty:
            raise RoadmapError(f"there are no learning curves: neither the study's store is here nor a {CURVES_TABLE}")
        check_known("quantity", [quantity], QUANTITIES)
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
        shown = QUANTITIES[quantity]
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


QUANTITIES = {
    "test_top1": Quantity("test top-1 (%)"),
    "test_top5": Quantity("test top-5 (%)"),
    "train_top1": Quantity("training top-1 (%)"),
    "test_loss": Quantity("test loss (nats)", ".3f", most=math.inf),
    "train_loss": Quantity("training loss (nats)", ".3f", most=math.inf),
}


def _curve(step: str, rows: pd.DataFrame, quantity: str) -> Curve:
    done = rows[rows["status"] == "done"].groupby("epoch")[quantity]
    intervals = np.array([mean_interval(values) for _, values in done]).reshape(-1, 4)
    intervals[:, 2:] = intervals[:, 2:].clip(QUANTITIES[quantity].least, QUANTITIES[quantity].most)
    failed = [
        (run["epoch"].to_numpy(float), run[quantity].to_numpy(float))
        for _, run in rows[rows["status"] != "done"].sort_values("epoch").groupby("seed")
    ]
    reference = bool(rows["reference"].any())
    end = [number(intervals[-1, 0], QUANTITIES[quantity].form) if len(intervals) else "no value"]
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
    return Curves(typed(pd.DataFrame(rows).reindex(columns=list(CURVES)), CURVES))


def read_curves(path: Path, runs: pd.DataFrame) -> Curves:
    """The curves of `completed` runs from a curves.csv. Raises `RoadmapError` for any other file."""
    table = read_as_text(path, _KEPT, "learning curves")
    try:
        table = typed(table[list(_KEPT)], _KEPT)
    except RoadmapError as error:
        raise RoadmapError(f"{path} is damaged: {error}") from None
    labelled = table.merge(runs[_LABELS], on=_RUN, how="left")
    for step, seed in labelled.loc[labelled["status"].isna(), _RUN].to_numpy()[:1]:
        raise RoadmapError(f"{path} has a run of '{step}' with seed {seed}, of which the table of runs knows nothing")
    for step, seed, epoch in labelled.loc[labelled.duplicated([*_RUN, "epoch"]), [*_RUN, "epoch"]].to_numpy()[:1]:
        raise RoadmapError(f"{path} is damaged: it has epoch {epoch} of '{step}' with seed {seed} twice")
    return Curves(typed(labelled[list(CURVES)], CURVES))


def write_curves(curves: pd.DataFrame, folder: Path) -> Path:
    """Write curves.csv into an existing folder; what the table of runs says is not repeated."""
    write_text(folder / CURVES_TABLE, curves[list(_KEPT)].to_csv(index=False, lineterminator="\n"))
    return folder / CURVES_TABLE
