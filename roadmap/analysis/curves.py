"""Learning curves: one row a run and epoch, from the store or from a kept curves.csv, and their figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from roadmap.analysis.curves_figure import draw_curves
from roadmap.analysis.schema import CURVES, EPOCH, empty, typed
from roadmap.checks import RoadmapError
from roadmap.files import write_text

#: The file of a study's folder that keeps the curves where the store is not kept.
CURVES_TABLE = "curves.csv"
#: What names a row's run, and what is known of it from the table of runs.
_RUN = ["step", "seed"]
_LABELS = [name for name in CURVES if name not in EPOCH]
#: Columns of curves.csv.
_KEPT = {name: CURVES[name] for name in (*_RUN, *EPOCH)}


class Curves(pd.DataFrame):
    """Learning curves, one row a run and epoch; columns: `roadmap.analysis.schema.CURVES`, docs/tables.md.

    Called, they are drawn, as ``table.plot()`` of pandas draws; any part of the table is a plain DataFrame.
    """

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame

    def __call__(
        self,
        steps: Sequence[str] | None = None,
        quantity: str = "test_top1",
        title: str | None = None,
        width: str = "page",
    ) -> Figure:
        """The curves of some steps, by default all, see `roadmap.analysis.curves_figure.draw_curves`.

        Raises `RoadmapError` where there are none.
        """
        if self.empty:
            raise RoadmapError(f"there are no learning curves: neither the study's store is here nor a {CURVES_TABLE}")
        return draw_curves(self, steps=steps, quantity=quantity, title=title, width=width)


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
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise RoadmapError(f"{path} cannot be read: {error}") from None
    lacking = [name for name in _KEPT if name not in table]
    if lacking:
        raise RoadmapError(f"{path} is no table of learning curves: it has no {lacking[0]}")
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
