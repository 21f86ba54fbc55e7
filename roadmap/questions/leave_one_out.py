"""What breaks without a step?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roadmap.checks import RoadmapError
from roadmap.questions.question import Builder, Cell, Contrast, Plan, Question, by_factors, difference


@dataclass(frozen=True)
class LeaveOneOut(Question):
    """The network with all steps, and that without each."""

    name = "leave-one-out"
    rank = 1
    title = "Leaving one out"
    asks = "What breaks without a step?"
    axis = "Accuracy lost when this step is removed (pp)"
    meaning = "The effect of a step is the accuracy of the network with all steps minus that of the network without it"
    networks = "the network with all steps, and that without each"
    example = "roadmap run --design leave-one-out"
    takes_away = True
    favours_common = True

    def plan(self, build: Builder) -> Plan:
        """All steps, and all but each."""
        whole = build.network(build.factors)
        rest = [
            build.network([step for step in build.factors if step != left], f"all but {left.name}")
            for left in build.factors
        ]
        return build.plan(self, [whole, *rest])

    @classmethod
    def contrasts(cls, cells: Sequence[Cell], facts: Mapping[str, Any]) -> list[Contrast]:
        """v(all) - v(all but the step)."""
        names = by_factors(cells, facts)
        whole = frozenset(facts["factors"])
        return [difference(step, names.get(whole), names.get(whole - {step})) for step in facts["factors"]]

    @classmethod
    def facts_of(cls, cells: Sequence[Cell], baseline: str | None = None) -> dict[str, Any]:
        """As `Question.facts_of`; one network must have all steps."""
        facts = super().facts_of(cells)
        names = by_factors(cells, facts)
        if frozenset(facts["factors"]) not in names:
            raise RoadmapError(f"design {cls.name} needs the network with all of {', '.join(facts['factors'])}")
        return facts
