"""The figures of a study: those below, which are methods of `roadmap.results.study.Study`, and one in each other file
of this folder, found there.

Nothing heavy is imported before a figure is drawn, so that the command line can list them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from roadmap.found import modules_of


@dataclass(frozen=True)
class Figure:
    """A figure that ``roadmap plot --figure`` draws.

    name
        What it is called, also as a method of a study.
    shows
        What it shows, in a few words, for the help.
    alt
        A sentence for readers of a report who cannot see it; a score is accuracy there.
    draw
        From the study, and the fields of `roadmap.plotting.style.Look` as keywords, to what is drawn, a
        `roadmap.plotting.style.Drawn`; None: the study has a method of that name.
    foreign
        Whether a table of runs from elsewhere, which knows neither costs nor epochs, can be drawn so.
    """

    name: str
    shows: str
    alt: str
    draw: Callable[..., Any] | None = None
    foreign: bool = True


SHIPPED = (
    Figure(
        "trajectory",
        "accuracy and cost along a ladder, step by step",
        "Accuracy along the ladder, step by step; the table of networks has the numbers.",
    ),
    Figure(
        "ablation",
        "the effect of every step, with its interval",
        "What every step is worth; the table of effects has the numbers.",
    ),
    Figure(
        "interactions",
        "which steps need each other",
        "Main effects and interactions of two steps as a map; the table of effects has the numbers.",
    ),
    Figure(
        "levels",
        "accuracy at each level of a flag",
        "Accuracy over the levels of a flag; the table of networks has the numbers.",
    ),
    Figure(
        "pareto",
        "accuracy against a cost",
        "Mean accuracy of every network against its cost, with the Pareto front; the table of networks has both.",
        foreign=False,
    ),
    Figure(
        "curves",
        "accuracy at each epoch",
        "Learning curves: accuracy on the test images by epoch; the table of runs has their ends.",
        foreign=False,
    ),
)


@cache
def figures() -> dict[str, Figure]:
    """Name -> figure."""
    found = [thing for module in modules_of(__name__) for thing in vars(module).values() if isinstance(thing, Figure)]
    return {figure.name: figure for figure in (*SHIPPED, *found)}
