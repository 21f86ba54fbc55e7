"""Learning curves: one row a run and epoch, and their figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from roadmap.checks import RoadmapError


class Curves(pd.DataFrame):
    """Learning curves, one row a run and epoch. Called, they are drawn, as ``table.plot()`` of pandas draws; any part
    of the table is a plain DataFrame."""

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
        from roadmap.analysis.curves_figure import draw_curves

        if self.empty:
            raise RoadmapError("there are no learning curves: neither the study's store is here nor a curves.csv")
        return draw_curves(self, steps=steps, quantity=quantity, title=title, width=width)
