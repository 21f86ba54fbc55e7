"""Learning curves with bands over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from roadmap.analysis.look import NotebookFigure, headline, inches_of, styled


def draw_curves(
    curves: pd.DataFrame,
    steps: Sequence[str] | None = None,
    quantity: str = "test_top1",
    title: str | None = None,
    width: str = "page",
) -> Figure:
    """One curve a step, the mean over its seeds."""
    inches = inches_of(width)
    with styled():
        figure = NotebookFigure(figsize=(inches, 3.6))
        axes = figure.add_subplot()
        for step in curves["step"].unique() if steps is None else steps:
            means = curves[curves["step"] == step].groupby("epoch")[quantity].mean()
            axes.plot(means.index, means, label=step)
        axes.set_xlabel("epoch")
        axes.set_ylabel(quantity)
        figure.suptitle(headline(title or "Learning curves", inches))
    return figure
