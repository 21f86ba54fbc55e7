"""What does a step bring alone?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roadmap.checks import RoadmapError
from roadmap.questions.question import Builder, Cell, Contrast, Plan, Question, by_factors, difference


@dataclass(frozen=True)
class OneAtATime(Question):
    """The base, and the base with each step."""

    name = "one-at-a-time"
    rank = 2
    title = "One at a time"
    asks = "What does a step bring alone?"
    axis = "Accuracy gained by adding this step alone to the base (pp)"
    meaning = "The effect of a step is the accuracy of the base with this step alone minus that of the base"
    networks = "the base, and the base with each step"
    example = "roadmap run --design one-at-a-time"
    favours_common = True

    def plan(self, build: Builder) -> Plan:
        """The base, and the base with each step."""
        return build.plan(
            self, [build.network([]), *(build.network([step], f"with {step.name}") for step in build.factors)]
        )

    @classmethod
    def contrasts(cls, cells: Sequence[Cell], facts: Mapping[str, Any]) -> list[Contrast]:
        """v(the step alone) - v(none), on the base."""
        names = by_factors(cells, facts)
        return [difference(step, names.get(frozenset([step])), names.get(frozenset())) for step in facts["factors"]]

    @classmethod
    def facts_of(cls, cells: Sequence[Cell], baseline: str | None = None) -> dict[str, Any]:
        """As `Question.facts_of`; one network must be the base alone."""
        facts = super().facts_of(cells)
        if frozenset() not in by_factors(cells, facts):
            raise RoadmapError(f"design {cls.name} needs the base, the network without any of the steps")
        return facts
