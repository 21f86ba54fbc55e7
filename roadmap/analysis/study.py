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
from roadmap.study.folder import STUDY, TABLE, StudyFolder
from roadmap.study.store import COLUMNS

#: Columns without which a table says nothing; others came later, or may be unknown.
NEEDED = ("regime", "step", "adopted", "seed", "status", "top1", "gmacs", "params", "data", "image_size", "width",
          "depth", "stem_stride", "epochs", "recipe")  # fmt: skip


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
    """The finished runs under a study folder, as tables: from its store, or, where only the folder's trajectory.csv was
    kept, from that.

    Raises `RoadmapError` with one sentence where the folder does not exist, or holds no study or no finished run.
    """
    path = Path(path)
    if (path / TABLE).is_file() and not (path / STUDY).exists():
        return Study(path, _read_table(path / TABLE))
    rows = StudyFolder(path).rows()
    if not rows:
        raise RoadmapError(f"{path} holds no finished run yet")
    return Study(path, pd.DataFrame(rows))


def _read_table(path: Path) -> pd.DataFrame:
    try:
        runs = pd.read_csv(path, dtype={"precision": str, "signature": str})
    except (OSError, ValueError) as error:
        raise RoadmapError(f"{path} cannot be read: {error}") from None
    missing = [column for column in NEEDED if column not in runs]
    if missing or not len(runs):
        raise RoadmapError(f"{path} is no table of runs: it has no {missing[0] if missing else 'run'}")
    return runs.reindex(columns=list(COLUMNS))
