"""Anybody's table of runs as a study whose figures can be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from roadmap.plotting.style import save_figure
from roadmap.questions.question import Question
from roadmap.results.effects import Measured, TrainedNetwork, measure
from roadmap.results.figures import Figures
from roadmap.results.foreign import ForeignRuns, effects_of_foreign


class ForeignStudy(Figures):
    """A table of runs from elsewhere, as `roadmap.results.foreign.read_runs` understands it, with a ``name``: the
    figures, effects and table of its question. It knows no costs, and nothing of the paper."""

    unit = ""
    rule = None

    def __init__(self, found: ForeignRuns, name: str) -> None:
        self.found, self._name = found, name
        self.metric = self.metric_short = self.score = found.metric
        self.described, self.matters, self.lower_is_better = found.facts, found.matters, found.lower_is_better

    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    @property
    def question(self) -> type[Question]:
        """What it asks."""
        return self.found.question

    @property
    def networks(self) -> Sequence[TrainedNetwork]:
        """Its networks, in the order of their first appearance."""
        return self.found.networks

    @cached_property
    def measured(self) -> list[Measured]:
        """Its effects, each with the values of its parts."""
        found = self.found
        return measure(found.question, found.facts, found.networks, found.matters, found.lower_is_better)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """What every step is worth: a row an effect, without costs."""
        return effects_of_foreign(self.found)

    @property
    def scores(self) -> dict[str, list[float]]:
        """Network -> scores of its runs that ended well."""
        done = self.found.runs[self.found.runs["status"] == "done"]
        return {str(step): [*map(float, group["score"])] for step, group in done.groupby("step")}

    @property
    def printed(self) -> Mapping[str, float]:
        """Nothing."""
        return {}

    @property
    def sections(self) -> Mapping[str, str]:
        """None."""
        return {}

    @property
    def about(self) -> list[str]:
        """What was left out of the table, or is uneven."""
        return [f"{remark[:1].upper()}{remark[1:]}." for remark in self.found.remarks]

    def save(self, folder: Path, names: Sequence[str] = (), **look: Any) -> list[Path]:
        """Write figures, by default those of its question and the effects, into an existing folder; returns the paths.
        Raises `RoadmapError` for a figure that does not suit the question."""
        width = look.get("width", "page")
        paths = []
        for figure in names or dict.fromkeys([*self.figures, "ablation"]):
            stem = f"{self.name}-{figure}" if width == "page" else f"{self.name}-{figure}-{width}"
            paths += save_figure(self.figure(figure, **look), folder, stem)
        return paths
