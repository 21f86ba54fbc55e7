"""How much of it?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roadmap.checks import RoadmapError, repeated
from roadmap.questions.levels import level_of, parse_levels
from roadmap.questions.question import (
    Builder,
    Cell,
    Contrast,
    Network,
    Plan,
    Question,
    check_number_of_networks,
    difference,
)
from roadmap.settings import setting


@dataclass(frozen=True)
class Sweep(Question):
    """The base with each level of a flag, or with every combination of several flags' levels."""

    name = "sweep"
    rank = 5
    title = "Sweep"
    asks = "How much of it?"
    effect = "Difference"
    axis = "Accuracy gained over the first level (pp)"
    meaning = "The effect of a level is its accuracy minus that of the first level of its flag"
    networks = "the base with each level of a flag"
    example = "roadmap run --sweep kernel_size=3,7,11"
    figures = ("levels", "ablation")
    ranked = False
    uses = ()
    takes_away = True
    needs = ("levels",)

    sweep: Mapping[str, Any] = setting(
        "flag of the network or the training to vary, and its levels",
        (),
        metavar="FLAG=A,B,...",
        repeat=True,
        part="ablation",
        implies=True,
    )
    grid: bool = setting(
        "sweep all combinations of several flags' levels, not one flag at a time", False, part="ablation"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "sweep", parse_levels(self.sweep))

    def check(self) -> None:
        """See `Question.check`."""
        if not self.sweep:
            raise RoadmapError("a sweep needs its levels: --sweep kernel_size=3,5,7")

    def plan(self, build: Builder) -> Plan:
        """The base with each level of each flag, one flag at a time or in every combination."""
        levels = {flag: [level_of(flag, value) for value in values] for flag, values in self.sweep.items()}
        for steps in levels.values():
            if twice := repeated(step.name for step in steps):
                raise RoadmapError(f"sweep has the level {twice} twice")
        if self.grid:
            check_number_of_networks(math.prod(len(steps) for steps in levels.values()), "this grid")
        chosen = (
            itertools.product(*levels.values()) if self.grid else ((s,) for steps in levels.values() for s in steps)
        )
        networks = [Network(" & ".join(step.name for step in steps), (*build.base, *steps)) for steps in chosen]
        everything = tuple(step for steps in levels.values() for step in steps)
        named = {flag: [step.name for step in steps] for flag, steps in levels.items()}
        plan = Builder(build.base, build.name, everything).plan(self, networks, levels=named, grid=self.grid)
        return Plan(self, plan.networks, plan.base, plan.facts | {"factors": list(levels)})

    def pairs(self, plan: Plan) -> dict[str, list[tuple[Network, Network]]]:
        """Levels are alternatives: none is added to a network."""
        return {}

    @classmethod
    def contrasts(cls, cells: Sequence[Cell], facts: Mapping[str, Any]) -> list[Contrast]:
        """v(level) - v(the first level of its flag); in a grid v(levels) - v(the first level of every flag)."""
        levels: Mapping[str, Sequence[str]] = facts["levels"]
        flag_of = {level: flag for flag, names in levels.items() for level in names}
        found = {frozenset(flag_of) & frozenset(cell.steps): cell.name for cell in cells}
        grid = facts.get("grid", True) and len(levels) > 1
        combinations = itertools.product(*levels.values()) if grid else ((one,) for one in flag_of)
        contrasts = []
        for combination in combinations:
            first = [levels[flag_of[level]][0] for level in combination]
            if list(combination) != first:
                network, base = (found.get(frozenset(chosen)) for chosen in (combination, first))
                contrasts.append(difference(" & ".join(combination), network, base))
        return contrasts

    @classmethod
    def facts_of(cls, cells: Sequence[Cell], baseline: str | None = None) -> dict[str, Any]:
        """Levels are steps such as ``kernel_size=7``; without them the networks are the levels of one flag. The
        ``baseline`` comes first."""
        ordered = sorted(cells, key=lambda cell: cell.name != baseline) if baseline else cells
        levels: dict[str, dict[str, None]] = {}
        for cell in ordered:
            for step in cell.steps or (cell.name,):
                levels.setdefault(step.rpartition("=")[0] or "level", {})[step] = None
        return {
            "design": cls.name,
            "levels": {flag: list(names) for flag, names in levels.items()},
            "grid": max(len(cell.steps) for cell in cells) > 1,
        }

    @classmethod
    def compared(cls, cells: Sequence[Cell], baseline: str | None = None) -> list[Cell]:
        """Networks without steps are levels themselves."""
        return [Cell(cell.name, cell.steps or (cell.name,), cell.adopted, cell.reference) for cell in cells]

    def short_title(self, plan: Plan, upto: str | None) -> str:
        """The flags."""
        return f"sweep-{'-'.join(self.sweep)}"
