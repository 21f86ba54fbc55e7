"""Accuracy against what it costs, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from roadmap.analysis.look import WIDTHS, NotebookFigure, headline, inches_of, styled


def draw_pareto(
    steps: pd.DataFrame,
    costs: pd.DataFrame,
    against: Sequence[str] = ("gmacs", "params", "images_per_second"),
    title: str | None = None,
    width: str = "page",
) -> Figure:
    """One panel a cost, with the accuracy of every network against it."""
    inches = inches_of(width)
    merged = steps[["step", "top1_mean"]].merge(costs, on="step")
    with styled():
        figure = NotebookFigure(figsize=(inches, 3.6 if width == "page" else 3.0 * len(against)))
        shape = (1, len(against)) if inches == WIDTHS["page"] else (len(against), 1)
        for axes, cost in zip(figure.subplots(*shape, squeeze=False).flat, against, strict=True):
            axes.plot(merged[cost], merged["top1_mean"], "o")
            axes.set_xlabel(cost)
        figure.suptitle(headline(title or "Accuracy and cost", inches))
    return figure
