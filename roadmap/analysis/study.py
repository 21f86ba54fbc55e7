"""A finished study, read from its folder: its runs, its summary and its effects as tables, and its figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from roadmap.analysis.ablation import effects
from roadmap.analysis.effects_figure import draw_ablation
from roadmap.analysis.figure import draw_trajectory
from roadmap.analysis.statistics import POWER, Agreement, pooled_deviation, seeds_needed
from roadmap.analysis.tables import LATER_COLUMNS, agreement, completed, design_of, summarize
from roadmap.checks import RoadmapError, check_number
from roadmap.files import write_text
from roadmap.look import number, save_figure, signed
from roadmap.study.folder import STUDY, TABLE, StudyFolder
from roadmap.study.store import COLUMNS

#: Columns without which a table says nothing; others came later, or may be unknown.
NEEDED = ("regime", "step", "adopted", "seed", "status", "top1", "gmacs", "params", "data", "image_size", "width",
          "depth", "stem_stride", "epochs", "recipe")  # fmt: skip
#: The table of effects in a study's folder.
EFFECTS = "effects.csv"


@dataclass(frozen=True)
class Study:
    """The finished runs of one study folder: ``runs`` has one row a run, ``summary`` one row a network, ``effects`` one
    a step. ``ablation`` is what study.json says of the design."""

    path: Path
    runs: pd.DataFrame
    ablation: Mapping[str, Any] = field(default_factory=lambda: {"design": "ladder"})

    @property
    def design(self) -> str:
        """The ablation design: ``ladder``, ``leave-one-out``, ..."""
        return design_of(self.runs, self.ablation)

    @property
    def described(self) -> Mapping[str, Any]:
        """What study.json says of the design."""
        return self.ablation

    @property
    def file_names(self) -> list[str]:
        """What `save_results` writes: the figure's two files, and of other designs than the ladder the effects."""
        if self.design == "ladder":
            return ["trajectory.png", "trajectory.svg"]
        return ["ablation.png", "ablation.svg", EFFECTS]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row a network, see `summarize`."""
        return summarize(self.runs, self.ablation)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """What every step is worth, see `roadmap.analysis.ablation.effects`."""
        return effects(self.runs, self.ablation)

    @property
    def agreement(self) -> Agreement:
        """How far the gains of a ladder rank as the paper's, see `roadmap.analysis.tables.agreement`."""
        return agreement(self.summary)

    def seeds_needed(self, difference: float, power: float = POWER) -> int | None:
        """With how many seeds a true difference of so many points would be found in a study like this one.

        From the spread of its own paired differences, pooled, and with as many tests; None where no million would do.
        Raises `RoadmapError` for a difference that is no number above zero, and where no spread of pairs is known, as
        with one seed or with orders drawn at random, whose error more seeds do not take away.
        """
        check_number("difference", difference, 0.001, 100)
        paired = self.effects[self.effects["freedom"] == self.effects["seeds"] - 1]
        if not len(paired):
            raise RoadmapError(f"{self.path.name} has no differences paired by two seeds or more, which show the noise")
        deviation = pooled_deviation([*(paired["std_error"] * paired["seeds"] ** 0.5)], [*paired["seeds"]])
        return seeds_needed(difference, deviation, int(self.effects["p"].notna().sum()), power)

    def draw(self, paper: bool = False, title: str | None = None) -> Figure:
        """The study as a matplotlib Figure: a ladder's trajectory, see `roadmap.analysis.figure.draw_trajectory`, which
        alone knows the ``paper``; of other designs the effects, see `roadmap.analysis.effects_figure.draw_ablation`."""
        if self.design == "ladder":
            return draw_trajectory(self.runs, paper=paper, title=title, ablation=self.ablation)
        return draw_ablation(self.runs, self.ablation, title=title)

    @property
    def _shown(self) -> pd.DataFrame:
        if self.design != "ladder":
            return readable(self.effects)
        return self.summary.assign(seeds_needed=self.summary["seeds_needed"].astype(object).fillna(""))

    def __repr__(self) -> str:
        return f"{self._headline()}\n{self._shown.to_string(index=False, float_format=_short, na_rep='')}"

    def _repr_html_(self) -> str:
        return f"<p>{self._headline()}</p>{self._shown.to_html(index=False, float_format=_short, na_rep='')}"

    def _headline(self) -> str:
        kind = "" if self.design == "ladder" else f" ({self.design})"
        networks = _count(len(self.summary), "network" if kind else "step")
        rank = self.agreement if not kind else None
        paper = f"; Kendall's tau with the paper's gains {rank}" if rank and rank.rungs > 1 else ""
        return f"Study {self.path.name}{kind}: {_count(len(self.runs), 'run')}, {networks}{paper}"


def readable(effects: pd.DataFrame) -> pd.DataFrame:
    """`effects` for the eye, as text: points with their interval and verdict, what was lost, the change in cost, and
    what a design has beside these."""

    def row(effect: Mapping[Any, Any]) -> dict[str, str]:
        interval = f"{signed(effect['low'])} to {signed(effect['high'])}"
        shown = {
            "effect": str(effect["effect"]),
            "points": signed(effect["estimate"]),
            "95 % interval": "" if pd.isna(effect["low"]) else interval,
            "error": number(effect["std_error"], ".2f"),
            "p (Holm)": "" if pd.isna(effect["p_holm"]) else f"{effect['p_holm']:.2g}",
            "verdict": effect["verdict"] if isinstance(effect["verdict"], str) else "",
            "seeds": number(effect["seeds"], "d"),
            "failed": number(effect["failed"] or None, "d"),
            "missing": number(effect["missing"] or None, "d"),
            "GMACs": number(effect["gmacs"], "+.3g"),
            "params M": number(effect["params"] / 1e6, "+.3g"),
        }
        if "top1_mean" in effect:
            shown["top-1 %"] = number(effect["top1_mean"], ".2f")
        if "orders" in effect:
            between = f"{signed(effect['least'])} to {signed(effect['greatest'])}"
            shown |= {
                "in any order": "" if pd.isna(effect["least"]) else between,
                "orders": number(effect["orders"], "d"),
            }
        if effect.get("aliases"):
            shown["and"] = str(effect["aliases"])
        if isinstance(effect.get("against"), str):
            shown["against"] = effect["against"]
        return shown

    rows = pd.DataFrame([row(effect) for effect in effects.to_dict("records")]).fillna("")
    return rows.loc[:, [column for column in rows if rows[column].any()]]


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.2g}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def save_results(study: Study, folder: str | Path | None = None, paper: bool = False) -> list[Path]:
    """Write a study's figure, and unless it is a ladder the table of its effects, into a folder, by default its own.

    They are `Study.file_names`, and each appears whole or not at all. Returns their paths. Raises `RoadmapError` where
    the runs cannot be summarised.
    """
    folder = Path(folder or study.path)
    names = study.file_names
    if EFFECTS in names:
        write_text(folder / EFFECTS, study.effects.to_csv(index=False, lineterminator="\n"))
    save_figure(study.draw(paper=paper), folder, Path(names[0]).stem)
    return [folder / name for name in names]


def load_study(path: str | Path) -> Study:
    """The finished runs under a study folder, as tables: from its store, or, where of the study only the folder was
    kept, from its trajectory.csv. A table that has no study.json beside it is that of a ladder.

    Raises `RoadmapError` with one sentence where the folder does not exist, or holds no study or no finished run.
    """
    path = Path(path)
    table, folder = path / TABLE, StudyFolder(path)
    if table.is_file() and not (path / STUDY).exists():
        runs = _read_table(table)
        design = design_of(runs, {})
        if design != "ladder":
            raise RoadmapError(f"{path} holds the runs of a {design} study, but no {STUDY} that describes it")
        return Study(path, runs)
    ablation = _ablation(path, folder.study())
    rows = folder.rows()
    if rows:
        return Study(path, completed(pd.DataFrame(rows)), ablation)
    if table.is_file():
        return Study(path, _read_table(table), ablation)
    raise RoadmapError(f"{path} holds no finished run yet")


def _ablation(path: Path, study: Mapping[str, Any]) -> Mapping[str, Any]:
    ablation = study.get("ablation", {"design": "ladder"})
    if not isinstance(ablation, dict) or "design" not in ablation:
        raise RoadmapError(f"{path / STUDY} is damaged: its ablation has no design")
    return ablation


def _read_table(path: Path) -> pd.DataFrame:
    try:
        runs = pd.read_csv(path, dtype={"precision": str, "signature": str})
    except (OSError, ValueError) as error:
        raise RoadmapError(f"{path} cannot be read: {error}") from None
    missing = [column for column in NEEDED if column not in runs]
    if missing:
        raise RoadmapError(f"{path} is no table of runs: it has no {missing[0]}")
    if not len(runs):
        raise RoadmapError(f"{path.parent} holds no finished run yet")
    return completed(runs.reindex(columns=list(dict.fromkeys([*COLUMNS, *LATER_COLUMNS]))))
