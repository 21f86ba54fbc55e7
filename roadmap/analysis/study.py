"""A finished study, read from its folder: its runs and its summary as tables, and its figure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from roadmap.analysis.figure import draw_trajectory
from roadmap.analysis.tables import summarize
from roadmap.checks import RoadmapError
from roadmap.study.folder import StudyFolder


@dataclass(frozen=True)
class Study:
    """The finished runs of one study folder: ``runs`` has one row a run, ``summary`` one row a step."""

    path: Path
    runs: pd.DataFrame

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row a step, see `summarize`."""
        return summarize(self.runs)

    def draw(self, paper: bool = False, title: str | None = None) -> Figure:
        """The trajectory as a matplotlib Figure, see `roadmap.analysis.figure.draw_trajectory`."""
        return draw_trajectory(self.runs, paper=paper, title=title)

    def __repr__(self) -> str:
        return f"{self._headline()}\n{self.summary.to_string(index=False, float_format=_short, na_rep='')}"

    def _repr_html_(self) -> str:
        return f"<p>{self._headline()}</p>{self.summary.to_html(index=False, float_format=_short, na_rep='')}"

    def _headline(self) -> str:
        return f"Study {self.path.name}: {_count(len(self.runs), 'run')}, {_count(len(self.summary), 'step')}"


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.2g}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def load_study(path: str | Path) -> Study:
    """The finished runs under a study folder, as tables.

    Raises `RoadmapError` with one sentence where the folder does not exist, or holds no study or no finished run.
    """
    path = Path(path)
    rows = StudyFolder(path).rows()
    if not rows:
        raise RoadmapError(f"{path} holds no finished run yet")
    return Study(path, pd.DataFrame(rows))
